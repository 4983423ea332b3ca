import assert from 'node:assert/strict';
import { test } from 'node:test';

import { at, setUp, settle } from './fakes.js';

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
  open(topic, place, more = {}) {
    this.say('livefeed-open', { topics: [topic], refused: [], cursor: place, head: place, ...more }, place);
  }
  fail() {
    this.onerror();
  }
}

async function follow(t, options = {}) {
  const before = globalThis.EventSource;
  FakeEventSource.all = [];
  globalThis.EventSource = FakeEventSource;
  const it = setUp({ transport: 'native', topics: ['a', 'b~1~s'], cursor: CURSOR, types: ['created'], ...options });
  t.after(() => {
    it.connection.close();
    globalThis.EventSource = before;
  });
  await settle();
  return { ...it, it, sources: FakeEventSource.all };
}

test('each topic has an EventSource, from the cursor on', async (t) => {
  const { it, sources } = await follow(t, { credentials: 'include' });
  assert.deepEqual(sources.map(({ url }) => url.searchParams.getAll('topic')), [['a'], ['b~1~s']]);
  assert.deepEqual(sources.map(({ url }) => url.searchParams.get('since')), [CURSOR, CURSOR]);
  assert.deepEqual(sources.map(({ withCredentials }) => withCredentials), [true, true]);
  sources[1].open('b', at('b', 2));
  assert.equal(it.connection.state, 'open');
  sources[0].open('a', at('a', 5));
  assert.deepEqual(it.opens.at(-1).topics, ['b', 'a']);
  assert.deepEqual(it.opens.at(-1).cursor, `${at('b', 2)}.${at('a', 5)}`);
});

test('types that were asked for, messages and resets arrive with their topic and one cursor for all', async (t) => {
  const { it, sources } = await follow(t);
  sources[0].open('a', at('a', 5));
  sources[1].open('b', at('b', 2));
  sources[1].say('created', { pk: 1 }, at('b', 3));
  sources[0].say('message', 'x', at('a', 6));
  sources[0].say('livefeed-reset', { topic: 'a', reason: 'trimmed', cursor: at('a', 9) }, at('a', 9));
  sources[0].say('livefeed-sync', { cursor: at('a', 12) }, at('a', 12));
  sources[0].say('other', 'not asked for', at('a', 13));
  assert.deepEqual(it.events.map(({ type, topic, id }) => [type, topic, id]), [
    ['created', 'b', `${at('a', 5)}.${at('b', 3)}`],
    ['message', 'a', `${at('a', 6)}.${at('b', 3)}`],
    ['livefeed-reset', 'a', `${at('a', 9)}.${at('b', 3)}`],
  ]);
  assert.equal(it.connection.cursor, `${at('a', 12)}.${at('b', 3)}`);
});

test('one that fails ends all, and after a wait new ones go on from where these were', async (t) => {
  const { it, sources } = await follow(t);
  sources[0].open('a', at('a', 5));
  sources[0].say('created', 1, at('a', 6));
  sources[1].fail();
  await settle();
  assert.deepEqual([it.state.state, it.state.reason, sources.map(({ closed }) => closed)], ['waiting', 'network', [true, true]]);
  await it.clock.advance(3000);
  assert.deepEqual(sources.slice(2).map(({ url }) => url.searchParams.get('since')), Array(2).fill(`${at('a', 6)}.${at('b', 2)}`));
});

test('who is refused waits as told, who is sent away comes back', async (t) => {
  const { it, sources } = await follow(t, { topics: ['a'] });
  sources[0].say('livefeed-refused', { reason: 'limit', limit: 10, retry: 20_000 });
  await settle();
  const { state, reason, limit, retryIn } = it.state;
  assert.deepEqual([state, reason, limit, retryIn], ['limited', 'limit', 10, 20_500]);
  await it.clock.advance(20_500);
  sources[1].open('a', at('a', 5));
  sources[1].say('livefeed-closing', { reason: 'shutdown' });
  await settle();
  assert.deepEqual([it.state.state, it.state.reason], ['waiting', 'shutdown']);
});

test('where it is held back, pages are read', async (t) => {
  const body = { topics: ['a', 'b'], refused: [], events: [], cursor: CURSOR, more: false, resets: [] };
  const { it, sources } = await follow(t, { answers: [{ type: 'application/json', body }] });
  await it.clock.advance(10_000);
  assert.deepEqual([it.connection.state, sources.map(({ closed }) => closed)], ['polling', [true, true]]);
});

test('a server that is not ours, asked for no topic, is open when its EventSource is', async (t) => {
  const { it, sources } = await follow(t, { topics: [], cursor: 'urn:7' });
  assert.equal(sources[0].url.search, '?since=urn%3A7');
  sources[0].onopen();
  assert.equal(it.connection.state, 'open');
  sources[0].say('created', 'x', 'urn:8');
  assert.deepEqual(it.events, [{ type: 'created', data: '"x"', id: 'urn:8', topic: null }]);
});
