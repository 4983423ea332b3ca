import assert from 'node:assert/strict';
import { test } from 'node:test';

import { at, opening, setUp } from './fakes.js';

const OPENING = 10_000;
const MINUTE = 60_000;
const PLACES = `${at('a', 5)}.${at('b', 2)}`;

const page = (more) => ({
  type: 'application/json',
  body: { topics: ['a', 'b'], refused: [], unnamed: [], events: [], cursor: PLACES, more: false, resets: [], ...more },
});
const event = (topic, seq, data, type = 'created') => ({ topic, seq, type, data, id: 'x', created_at: 'y' });
const follow = (answers, options) => setUp({ topics: ['a', 'b'], cursor: PLACES, answers, ...options });

/** A stream is held back for as long as one waits for it. */
async function held(answers, options) {
  const it = await follow(typeof answers === 'function' ? answers : ['hangs', ...answers], options);
  await it.clock.advance(OPENING);
  return it;
}

test('where no first byte comes in time, pages are read from the same cursor, and it is said', async () => {
  const it = await held([page({ events: [event('a', 6, { pk: 6 })], cursor: `${at('a', 6)}.${at('b', 2)}` })]);
  assert.equal(it.requests[0].signal.aborted, true);
  assert.deepEqual([it.requests[1].headers.Accept, it.requests[1].headers['Last-Event-ID']], ['application/json', PLACES]);
  assert.deepEqual(it.states.map(({ state, reason }) => `${state} ${reason}`), ['connecting start', 'polling held']);
  assert.deepEqual(it.events, [{ type: 'created', data: '{"pk":6}', id: `${at('a', 6)}.${at('b', 2)}`, topic: 'a', fleeting: false }]);
});

test('headers alone are no first byte', async () => {
  const it = await follow([{}, page()]);
  await it.clock.advance(OPENING - 1);
  assert.equal(it.requests.length, 1);
  await it.clock.advance(1);
  assert.equal(it.connection.state, 'polling');
});

test('a site that has no streams, under WSGI, has pages', async () => {
  const it = await follow([{ status: 501 }, page()]);
  assert.equal(it.connection.state, 'polling');
});

test('each event has the place behind it, so that one that stops in between misses nothing', async () => {
  const it = await held([
    page({ events: [event('b', 3, 1), event('a', 6, 2), event('b', 4, 3)], cursor: `${at('a', 6)}.${at('b', 4)}` }),
  ]);
  assert.deepEqual(it.events.map(({ id }) => id), [
    `${at('a', 5)}.${at('b', 3)}`,
    `${at('a', 6)}.${at('b', 3)}`,
    `${at('a', 6)}.${at('b', 4)}`,
  ]);
});

test('topics whose events have no names come as messages, and a text as it is', async () => {
  const events = [event('a', 6, '<li>x</li>'), event('a', 7, { n: 1 }), event('b', 3, 'text')];
  const it = await held([page({ unnamed: ['a'], events, cursor: `${at('a', 7)}.${at('b', 3)}` })]);
  assert.deepEqual(it.events.map(({ type, data }) => [type, data]), [
    ['message', '<li>x</li>'],
    ['message', '{"n":1}'],
    ['created', '"text"'],
  ]);
});

test('a reset of a page is one as of a stream', async () => {
  const cursor = `${at('a', 90)}.${at('b', 2)}`;
  const it = await held([page({ resets: [{ topic: 'a', reason: 'trimmed' }], cursor })]);
  assert.deepEqual(it.events, [
    { type: 'livefeed-reset', data: JSON.stringify({ topic: 'a', reason: 'trimmed' }), id: cursor, topic: 'a', fleeting: false },
  ]);
});

test('what is more is read at once, then a page comes about every retry interval', async () => {
  for (const chance of [0, 1]) {
    const next = `${at('a', 6)}.${at('b', 2)}`;
    const it = await held([page({ more: true, cursor: next }), page({ cursor: next })], { random: () => chance });
    const asked = it.requests.map(({ at }) => at);
    assert.deepEqual([asked.length, asked[2] - asked[1]], [3, 0]);
    assert.equal(it.requests[2].headers['Last-Event-ID'], next);
    await it.clock.advance(3000 * (0.75 + chance / 2));
    assert.equal(it.requests.length, 4);
    it.connection.close();
  }
});

const isPage = ({ headers }) => headers.Accept === 'application/json';

test('the stream is tried again every minute; pages are read meanwhile', async () => {
  const it = await held((request) => (isPage(request) ? page() : 'hangs'));
  await it.clock.advance(10 * MINUTE);
  const tries = it.requests.filter((request) => !isPage(request)).map(({ at }) => at);
  const gaps = tries.map((time, index) => Math.round((time - tries[index - 1]) / MINUTE));
  assert.deepEqual(gaps.slice(1), Array(8).fill(1));
  assert.ok(it.requests.filter(isPage).length > 150);
  assert.equal(it.states.at(-1).state, 'polling');
});

test('a stream that opens takes over from the pages, which go on until then', async () => {
  let answer = 'hangs';
  const it = await held((request) => (isPage(request) ? page() : answer));
  answer = {};
  await it.clock.advance(MINUTE);
  assert.deepEqual([it.streams.length, it.connection.state], [1, 'polling']);
  await it.stream.send(opening(['a', 'b'], PLACES.split('.')));
  assert.equal(it.connection.state, 'open');
  const pages = it.requests.length;
  await it.clock.advance(20_000);
  assert.equal(it.requests.length, pages);
});

for (const [answer, state, reason] of [
  [{ status: 503 }, 'waiting', 'http-503'],
  ['refused', 'waiting', 'network'],
  ['hangs', 'waiting', 'timeout'],
  [{ status: 429, headers: { 'Retry-After': '9' } }, 'limited', 'http-429'],
  [{ status: 404 }, 'denied', 'http-404'],
  [{ status: 204 }, 'closed', 'http-204'],
]) {
  test(`a page that fails (${JSON.stringify(answer)}) ends in ${state}`, async () => {
    const it = await held([answer]);
    await it.clock.advance(OPENING);
    assert.deepEqual([it.state.state, it.state.reason].join(), [state, reason].join());
  });

  test(`so does a later one (${JSON.stringify(answer)})`, async () => {
    const it = await held([page(), answer]);
    assert.equal(it.connection.state, 'polling');
    await it.clock.advance(3750 + OPENING);
    assert.ok(it.states.some((change) => change.state === state && change.reason === reason), JSON.stringify(it.states));
  });
}

test('a server that holds the stream back and has no pages either is not ours', async () => {
  const it = await follow([{}, { status: 200, type: 'text/event-stream' }]);
  await it.clock.advance(OPENING);
  assert.deepEqual([it.state.state, it.state.reason, it.clock.timers.size], ['failed', 'type', 0]);
});

test('pause ends the pages, and resume begins with a stream', async () => {
  const it = await held([page()]);
  it.connection.pause();
  const { length } = it.requests;
  await it.clock.advance(MINUTE);
  assert.deepEqual([it.requests.length, it.clock.timers.size], [length, 0]);
  it.connection.resume();
  await it.clock.advance(30);
  assert.equal(it.requests.at(-1).headers.Accept, 'text/event-stream');
});
