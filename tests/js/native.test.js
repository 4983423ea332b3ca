import assert from 'node:assert/strict';
import { test } from 'node:test';

import { newUnion } from '../../livefeed/browser/union.js';
import { FakeClock, at, setUp, settle } from './fakes.js';

const CURSOR = `${at('a', 5)}.${at('b', 2)}`;

/** The browser's EventSource, as far as it can be seen from here. */
class FakeEventSource extends EventTarget {
  static all = [];
  closed = false;
  constructor(url, options) {
    super();
    Object.assign(this, { url: new URL(url), ...options });
    FakeEventSource.all.push(this);
  }
  close() {
    this.closed = true;
  }
  say(type, data, lastEventId = '') {
    if (!this.closed) this.dispatchEvent(Object.assign(new Event(type), { data: JSON.stringify(data), lastEventId }));
  }
  open(topics, cursor) {
    this.say('livefeed-open', { topics, refused: [], cursor, head: cursor, keepalive: 15 }, cursor);
  }
  fail() {
    this.onerror();
  }
}

async function follow(t, options = {}) {
  const before = globalThis.EventSource;
  FakeEventSource.all = [];
  globalThis.EventSource = FakeEventSource;
  const it = await setUp({ transport: 'native', topics: ['a', 'b~1~s'], cursor: CURSOR, types: ['created'], ...options });
  t.after(() => {
    it.connection.close();
    globalThis.EventSource = before;
  });
  return { ...it, it, sources: FakeEventSource.all };
}

test('an EventSource asks for all topics, from the cursor on', async (t) => {
  const { it, sources: [source] } = await follow(t, { credentials: 'include' });
  const { searchParams } = source.url;
  assert.deepEqual([searchParams.getAll('topic'), searchParams.get('since'), source.withCredentials], [['a', 'b~1~s'], CURSOR, true]);
  assert.match(searchParams.get('client'), /^[a-z0-9-]{8,64}$/);
  source.open(['a', 'b'], CURSOR);
  assert.equal(it.connection.state, 'open');
  await it.clock.advance(60_000);
  assert.deepEqual([it.connection.state, FakeEventSource.all.length], ['open', 1]);
});

test('types that were asked for, messages and resets arrive', async (t) => {
  const { it, sources: [source] } = await follow(t);
  source.open(['a', 'b'], CURSOR);
  source.say('created', { pk: 1 }, `${at('a', 5)}.${at('b', 3)}`);
  source.say('message', 'x', `${at('a', 6)}.${at('b', 3)}`);
  source.say('livefeed-reset', { topic: 'a', reason: 'trimmed' }, `${at('a', 9)}.${at('b', 3)}`);
  source.say('livefeed-sync', {}, `${at('a', 12)}.${at('b', 3)}`);
  source.say('other', 'not asked for', `${at('a', 13)}.${at('b', 3)}`);
  assert.deepEqual(it.events.map(({ type, data }) => [type, data]), [
    ['created', '{"pk":1}'],
    ['message', '"x"'],
    ['livefeed-reset', '{"topic":"a","reason":"trimmed"}'],
  ]);
  assert.equal(it.connection.cursor, `${at('a', 12)}.${at('b', 3)}`);
});

test('a union knows the topic of an event by whose place its id moves', async (t) => {
  const { it } = await follow(t);
  it.connection.close();
  const [clock, seen] = [new FakeClock(), []];
  const enter = newUnion({ url: 'https://site.test/livefeed/', transport: 'native' });
  const page = enter(({ n, event }) => event && seen.push([n, event.topic, event.data]));
  ['a', 'b'].forEach((topic, index) => page.take({ n: index + 1, topics: [topic], types: [], cursor: at(topic, 1) }));
  await clock.advance(30);
  const source = FakeEventSource.all.at(-1);
  source.open(['a', 'b'], `${at('a', 1)}.${at('b', 1)}`);
  source.say('created', 2, `${at('a', 1)}.${at('b', 2)}`);
  source.say('created', 3, `${at('a', 2)}.${at('b', 2)}`);
  assert.deepEqual(seen, [[2, 'b', '2'], [1, 'a', '3']]);
  page.leave();
});

test('one that fails is closed, and after a wait a new one goes on from where it was', async (t) => {
  const { it, sources } = await follow(t);
  sources[0].open(['a', 'b'], CURSOR);
  const cursor = `${at('a', 6)}.${at('b', 2)}`;
  sources[0].say('created', 1, cursor);
  sources[0].fail();
  await settle();
  assert.deepEqual([it.state.state, it.state.reason, sources[0].closed], ['waiting', 'network', true]);
  await it.clock.advance(3000);
  assert.deepEqual([sources.length, sources[1].url.searchParams.get('since')], [2, cursor]);
});

test('who is refused waits as told, who is sent away comes back', async (t) => {
  const { it, sources } = await follow(t);
  sources[0].say('livefeed-refused', { reason: 'limit', limit: 10, retry: 20_000 });
  await settle();
  const { state, reason, limit, retryIn } = it.state;
  assert.deepEqual([state, reason, limit, retryIn], ['limited', 'limit', 10, 20_500]);
  await it.clock.advance(20_500);
  sources[1].open(['a', 'b'], CURSOR);
  sources[1].say('livefeed-closing', { reason: 'shutdown' });
  await settle();
  assert.deepEqual([it.state.state, it.state.reason], ['waiting', 'shutdown']);
});

test('where it is held back, pages are read', async (t) => {
  const body = { topics: ['a', 'b'], refused: [], events: [], cursor: CURSOR, more: false, resets: [] };
  const { it, sources } = await follow(t, { answers: [{ type: 'application/json', body }] });
  await it.clock.advance(10_000);
  assert.deepEqual([it.connection.state, sources.map(({ closed }) => closed)], ['polling', [true]]);
});

test('a server that is not ours, asked for no topic, is open when its EventSource is', async (t) => {
  const { it, sources } = await follow(t, { topics: [], cursor: 'urn:7' });
  assert.equal(sources[0].url.search, '?since=urn%3A7');
  sources[0].onopen();
  assert.equal(it.connection.state, 'open');
  sources[0].say('created', 'x', 'urn:8');
  assert.deepEqual(it.events, [{ type: 'created', data: '"x"', id: 'urn:8', topic: undefined }]);
});
