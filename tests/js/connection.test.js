import assert from 'node:assert/strict';
import { test } from 'node:test';

import { connect } from '../../livefeed/browser/connect.js';
import { OPEN, at, block, opening, setUp, settle } from './fakes.js';

const MINUTE = 60_000;

test('the request names topics, client and cursor, and is neither cached nor sent with cookies elsewhere', async () => {
  const it = await setUp({ topics: ['a', 'b~1~s'], cursor: at('t', 7) });
  const [{ url, headers, credentials, cache }] = it.requests;
  assert.deepEqual(url.searchParams.getAll('topic'), ['a', 'b~1~s']);
  assert.match(url.searchParams.get('client'), /^[a-z0-9-]{8,64}$/);
  assert.deepEqual(headers, { 'Last-Event-ID': at('t', 7), Accept: 'text/event-stream' });
  assert.deepEqual([credentials, cache], [undefined, 'no-store']);
});

test('without a cursor no Last-Event-ID is sent, and each connection is a client of its own', async () => {
  const [one, two] = [await setUp(), await setUp()];
  assert.equal('Last-Event-ID' in one.requests[0].headers, false);
  assert.notEqual(one.requests[0].url.searchParams.get('client'), two.requests[0].url.searchParams.get('client'));
});

test('events, the opening and the cursor arrive; what is only ours does not', async () => {
  const it = await setUp();
  assert.equal(it.connection.state, 'connecting');
  await it.stream.send(`retry: 2500\n${OPEN}`);
  assert.equal(it.connection.state, 'open');
  await it.stream.send(block('created', { pk: 1 }, at('t', 1)) + block('livefeed-sync', { cursor: at('t', 5) }, at('t', 5)));
  await it.stream.send('event: typing\ntopic: t\ndata: x\n\n');
  assert.deepEqual(it.events, [
    { type: 'created', data: '{"pk":1}', id: at('t', 1), topic: 't', fleeting: false },
    { type: 'typing', data: 'x', id: at('t', 5), topic: 't', fleeting: true },
  ]);
  assert.equal(it.connection.cursor, at('t', 5));
});

test('a reset is an event, and its cursor counts', async () => {
  const it = await setUp({ cursor: 'old' });
  await it.stream.send(OPEN + block('livefeed-reset', { topic: 't', reason: 'trimmed', cursor: at('t', 9) }, at('t', 9)));
  assert.deepEqual(it.events.map(({ type }) => type), ['livefeed-reset']);
  assert.equal(it.connection.cursor, at('t', 9));
  assert.equal(it.connection.state, 'open');
});

test('a stream that ends is resumed from its cursor, by the same client', async () => {
  const it = await setUp();
  await it.stream.send(OPEN + block('created', { pk: 1 }, at('t', 1)) + 'id: c2\ndata: unfinished\n');
  await it.stream.end();
  assert.equal(it.state.state, 'waiting');
  assert.equal(it.state.reason, 'end');
  await it.clock.advance(MINUTE);
  assert.equal(it.requests[1].headers['Last-Event-ID'], at('t', 1));
  assert.equal(it.requests[1].url.search, it.requests[0].url.search);
});

for (const status of [408, 425, 500, 501, 502, 503, 504]) {
  test(`${status} is retried for ever`, async () => {
    const it = await setUp({ answers: [{ status, type: 'text/html' }] });
    await it.clock.advance(60 * MINUTE);
    assert.ok(it.requests.length > 60, `${it.requests.length} requests`);
    assert.deepEqual([it.state.state, it.state.reason], ['waiting', `http-${status}`]);
  });
}

for (const [answer, state, reason] of [
  [{ status: 204 }, 'closed', 'http-204'],
  [{ status: 401 }, 'denied', 'http-401'],
  [{ status: 403 }, 'denied', 'http-403'],
  [{ status: 404 }, 'denied', 'http-404'],
  [{ status: 400 }, 'failed', 'http-400'],
  [{ status: 406 }, 'failed', 'http-406'],
  [{ status: 206 }, 'failed', 'http-206'],
  [{ type: 'text/html' }, 'failed', 'type'],
  [{ type: '' }, 'failed', 'type'],
  [{ type: 'text/html; charset=utf-8', redirected: true }, 'denied', 'login'],
]) {
  test(`${JSON.stringify(answer)} ends in ${state}, and no timer is left`, async () => {
    const it = await setUp({ answers: [answer] });
    await it.clock.advance(10 * MINUTE);
    assert.equal(it.requests.length, 1);
    assert.deepEqual([it.state.state, it.state.reason], [state, reason]);
    assert.equal(it.clock.timers.size, 0);
  });
}

test('the content type may carry parameters and capitals', async () => {
  const it = await setUp({ answers: [{ type: 'Text/Event-Stream; charset=UTF8' }] });
  await it.stream.send(OPEN);
  assert.equal(it.connection.state, 'open');
});

for (const [name, answer] of [['a refused connection', 'refused'], ['a request that hangs', 'hangs']]) {
  test(`${name} is retried for ever`, async () => {
    const it = await setUp({ answers: [answer] });
    await it.clock.advance(120 * MINUTE);
    assert.ok(it.requests.length > 60);
    assert.equal(it.state.state, 'waiting');
  });
}

test('waits double from retry, between half and full, from 500 ms to a minute', async () => {
  for (const [retry, firsts] of [[2000, [2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]], [0, [500, 1000]],
    [1e20, [60_000, 60_000]]]) {
    for (const chance of [0, 0.5, 0.999]) {
      const it = await setUp({ answers: [{}, { status: 503 }], random: () => chance });
      await it.stream.send(`retry: ${retry}\n\n`);
      await it.stream.end();
      for (const [failures, full] of firsts.entries()) {
        assert.equal(it.state.retryIn, full / 2 + (chance * full) / 2);
        assert.equal(it.state.attempt, failures + 1);
        await it.clock.advance(it.state.retryIn);
      }
      it.connection.close();
    }
  }
});

test('opening alone does not reset the waits; an event does, and so do ten seconds', async () => {
  const it = await setUp({ random: () => 1 });
  const cycle = async (text, open = 0) => {
    await settle();
    await it.stream.send(text);
    await it.clock.advance(open);
    await it.stream.end();
    const { retryIn } = it.state;
    await it.clock.advance(retryIn);
    return retryIn;
  };
  assert.equal(await cycle(OPEN), 3000);
  assert.equal(await cycle(OPEN), 6000);
  assert.equal(await cycle(OPEN, 9999), 12_000);
  assert.equal(await cycle(OPEN + block('created', { pk: 1 }, at('t', 1))), 3000);
  assert.equal(await cycle(OPEN), 6000);
  assert.equal(await cycle(OPEN, 10_000), 3000);
});

for (const [header, low] of [['7', 7000], ['Tue, 01 Jan 2030 00:00:20 GMT', 20_000], ['0', 500],
  ['Mon, 31 Dec 2029 00:00:00 GMT', 500], ['99999999999', 99_999_999_999_000]]) {
  test(`Retry-After: ${header} is honoured, with up to a second of chance`, async () => {
    for (const chance of [0, 1]) {
      const it = await setUp({ answers: [{ status: 503, headers: { 'Retry-After': header } }], random: () => chance });
      assert.equal(it.state.retryIn, low + chance * 1000);
      it.connection.close();
    }
  });
}

test('a Retry-After that is neither is as none', async () => {
  const it = await setUp({ answers: [{ status: 503, headers: { 'Retry-After': 'soon' } }], random: () => 1 });
  assert.equal(it.state.retryIn, 3000);
});

test('429 is limited, and comes back', async () => {
  const it = await setUp({ answers: [{ status: 429, headers: { 'Retry-After': '9' } }, {}], random: () => 0 });
  assert.deepEqual([it.state.state, it.state.retryIn], ['limited', 9000]);
  await it.clock.advance(9000);
  await it.stream.send(OPEN);
  assert.equal(it.connection.state, 'open');
});

test('livefeed-refused is limited without having been live, keeps the cursor, and waits as told', async () => {
  const it = await setUp({ cursor: at('t', 3), random: () => 0 });
  await it.stream.send(`retry: 20000\n${block('livefeed-refused', { reason: 'limit', limit: 10, retry: 20000 })}`);
  const { state, reason, limit, retryIn } = it.state;
  assert.deepEqual([state, reason, limit, retryIn], ['limited', 'limit', 10, 20_000]);
  assert.equal(it.states.some((change) => change.state === 'open'), false);
  assert.equal(it.requests[0].signal.aborted, true);
  await it.clock.advance(20_000);
  assert.equal(it.requests[1].headers['Last-Event-ID'], at('t', 3));
});

test('livefeed-closing ends the stream at once, and the client comes back after retry', async () => {
  const it = await setUp({ random: () => 1 });
  await it.stream.send(OPEN + block('created', { pk: 1 }, at('t', 1)));
  await it.stream.send(`retry: 4000\n${block('livefeed-closing', { reason: 'shutdown' }, at('t', 1))}data: too late\n\n`);
  assert.deepEqual([it.state.state, it.state.reason, it.state.retryIn], ['waiting', 'shutdown', 4000]);
  assert.equal(it.requests[0].signal.aborted, true);
  assert.equal(it.events.length, 1);
});

test('silence of two and a half keep-alives is the end of a connection', async () => {
  const it = await setUp({ random: () => 1 });
  await it.stream.send(opening(['t'], [at('t', 0)], { keepalive: 4 }));
  await it.clock.advance(9999);
  await it.stream.send(': keep-alive\n\n');
  await it.clock.advance(9999);
  assert.equal(it.connection.state, 'open');
  await it.clock.advance(1);
  assert.deepEqual([it.state.state, it.state.reason], ['waiting', 'timeout']);
  assert.equal(it.requests[0].signal.aborted, true);
  await it.clock.advance(3000);
  assert.equal(it.requests[1].headers['Last-Event-ID'], at('t', 0));
});

test('a server without keep-alives is not watched', async () => {
  const it = await setUp();
  await it.stream.send(opening(['t'], [at('t', 0)], { keepalive: 0 }));
  await it.clock.advance(600 * MINUTE);
  assert.equal(it.connection.state, 'open');
});

test('headers() is asked before each connect', async () => {
  let tokens = 0;
  const it = await setUp({ headers: async () => ({ Authorization: `Bearer ${++tokens}` }) });
  await it.stream.end();
  await it.clock.advance(3000);
  assert.deepEqual(it.requests.map(({ headers }) => headers.Authorization), ['Bearer 1', 'Bearer 2']);
});

for (const status of [401, 403]) {
  test(`${status} asks headers() once more for a fresh token, then the stream is live`, async () => {
    const asked = [];
    const headers = (refused) => asked.push(refused.status) && { Authorization: `Bearer ${asked.length}` };
    const it = await setUp({ answers: [{ status }, {}], headers });
    await it.stream.send(OPEN);
    assert.deepEqual(asked, [null, status]);
    assert.equal(it.connection.state, 'open');
    assert.equal(it.requests[1].headers.Authorization, 'Bearer 2');
  });

  test(`${status} twice is denied`, async () => {
    const it = await setUp({ answers: [{ status }], headers: () => ({}) });
    await it.clock.advance(MINUTE);
    assert.equal(it.requests.length, 2);
    assert.equal(it.connection.state, 'denied');
  });
}

test('headers() that fails, or never answers, is retried', async () => {
  for (const headers of [() => Promise.reject(new Error('no token')), () => new Promise(() => {})]) {
    let calls = 0;
    const it = await setUp({ headers: () => (calls++, headers()) });
    await it.clock.advance(20 * MINUTE);
    assert.ok(calls > 5);
    assert.equal(it.requests.length, 0);
    it.connection.close();
  }
});

test('pause shuts the stream, resume goes on from the cursor', async () => {
  const it = await setUp();
  await it.stream.send(OPEN + block('created', { pk: 1 }, at('t', 1)));
  it.connection.pause();
  await it.clock.advance(10 * MINUTE);
  assert.equal(it.connection.state, 'paused');
  assert.equal(it.requests[0].signal.aborted, true);
  assert.equal(it.requests.length, 1);
  it.connection.reconnect();
  await settle();
  assert.equal(it.requests.length, 1);
  it.connection.resume();
  it.connection.resume();
  await it.clock.advance(30);
  assert.equal(it.requests.length, 2);
  assert.equal(it.requests[1].headers['Last-Event-ID'], at('t', 1));
});

test('pause while waiting clears the timer', async () => {
  const it = await setUp({ answers: [{ status: 503 }] });
  it.connection.pause();
  assert.equal(it.clock.timers.size, 0);
});

for (const [verb, state] of [['close', 'closed'], ['pause', 'paused']]) {
  test(`${verb} during dispatch: nothing more of the same chunk arrives, and the cursor stays there`, async () => {
    const it = await setUp({ onevent: (event) => it.events.push(event) && it.connection[verb]() });
    await it.stream.send(OPEN + block('created', { pk: 1 }, at('t', 1)) + block('created', { pk: 2 }, at('t', 2)));
    await it.clock.advance(MINUTE);
    assert.equal(it.events.length, 1);
    assert.equal(it.connection.cursor, at('t', 1));
    assert.equal(it.connection.state, state);
    assert.deepEqual([it.requests.length, it.clock.timers.size], [1, 0]);
  });
}

test('close inside onstate: no event follows', async () => {
  const it = await setUp({ onstate: ({ state }) => state === 'open' && it.connection.close() });
  await it.stream.send(OPEN + block('created', { pk: 1 }, at('t', 1)));
  assert.deepEqual(it.events, []);
  assert.equal(it.connection.state, 'closed');
});

test('close is for good, and told once', async () => {
  const it = await setUp({ answers: [{ status: 503 }] });
  it.connection.close();
  it.connection.close();
  it.connection.reconnect();
  it.connection.pause();
  it.connection.resume();
  await it.clock.advance(MINUTE);
  assert.equal(it.requests.length, 1);
  assert.deepEqual(it.states.map(({ state }) => state), ['connecting', 'waiting', 'closed']);
});

test('reconnect comes back at once from every state that is not closed or paused', async () => {
  for (const answer of [{}, { status: 503 }, { status: 404 }, { type: 'text/html' }]) {
    const it = await setUp({ answers: [answer] });
    it.connection.reconnect();
    await settle();
    assert.equal(it.requests.length, 2);
    assert.equal(it.requests[0].signal.aborted, true);
  }
});

test('the answer of a request that was overtaken changes nothing', async () => {
  const pending = [];
  const it = await setUp({ answers: () => new Promise((resolve) => pending.push(resolve)) });
  it.connection.reconnect();
  await settle();
  pending[0]({ status: 404, headers: new Headers() });
  await settle();
  assert.equal(pending.length, 2);
  assert.equal(it.connection.state, 'connecting');
});

test("a listener's error is reported, and the stream goes on", async (t) => {
  const errors = t.mock.method(console, 'error', () => {});
  let calls = 0;
  const it = await setUp({
    onevent() {
      calls += 1;
      throw new Error('mine');
    },
  });
  await it.stream.send(OPEN + block('a', 1, at('t', 1)) + block('a', 2, at('t', 2)));
  assert.equal(calls, 2);
  assert.equal(errors.mock.callCount(), 2);
  assert.equal(it.connection.state, 'open');
});

test('an address that is none is refused at once', () => {
  assert.throws(() => connect('/livefeed/'), TypeError);
});

test('an opening behind its head is caught up with before it is open', async () => {
  const it = await setUp({ cursor: at('t', 3) });
  await it.stream.send(opening(['t'], [at('t', 3)], { head: [at('t', 5)] }));
  assert.equal(it.connection.state, 'catching-up');
  await it.stream.send(block('created', 4, at('t', 4)));
  assert.equal(it.connection.state, 'catching-up');
  await it.stream.send(block('livefeed-sync', { cursor: at('t', 5) }, at('t', 5)));
  assert.equal(it.connection.state, 'open');
  assert.deepEqual(it.states.map(({ state }) => state), ['connecting', 'catching-up', 'open']);
});

test('a stream whose epoch is lost has nothing to catch up with: its reset follows', async () => {
  const it = await setUp({ cursor: at('t', 3, 'before') });
  await it.stream.send(opening(['t'], [at('t', 3, 'before')], { head: [at('t', 5)] }));
  assert.equal(it.connection.state, 'open');
});

test('a stream for another viewer is denied', async () => {
  const it = await setUp({ viewer: 'anna' });
  await it.stream.send(opening(['t'], [at('t', 3)], { viewer: 'bert' }) + block('created', 4, at('t', 4)));
  await it.clock.advance(MINUTE);
  assert.deepEqual([it.state.state, it.state.reason, it.events], ['denied', 'viewer', []]);
  assert.equal(it.requests.length, 1);
});

test('a stream for this viewer, or one that does not say, is not', async () => {
  for (const more of [{ viewer: 'anna' }, {}]) {
    const it = await setUp({ viewer: 'anna' });
    await it.stream.send(opening(['t'], [at('t', 3)], more));
    assert.equal(it.connection.state, 'open');
  }
});

test('a wait says when it ends', async () => {
  const it = await setUp({ answers: [{ status: 503 }] });
  assert.equal(it.state.at, it.clock.time + it.state.retryIn);
});

test('a machine that slept connects anew soon after it is awake, and does not wait for its watchdog', async () => {
  const it = await setUp();
  await it.stream.send(OPEN);
  await it.clock.advance(3000);
  await it.clock.sleep(3_600_000);
  assert.equal(it.requests.length, 1);
  await it.clock.advance(5000);
  assert.deepEqual(it.states.map(({ state, reason }) => `${state} ${reason}`).slice(-2), ['open open', 'waiting timeout']);
  await it.clock.advance(3000);
  assert.equal(it.requests.length, 2);
});

test('a wait that passed in sleep is over', async () => {
  const it = await setUp({ answers: [{ status: 503, headers: { 'Retry-After': '600' } }] });
  await it.clock.sleep(3_600_000);
  await it.clock.advance(5000);
  assert.equal(it.requests.length, 2);
});

test('a server that is not ours, asked for no topic, is open with its headers; it is told no client', async () => {
  const it = await setUp({ topics: [], cursor: 'urn:uuid:7' });
  assert.equal(it.connection.state, 'open');
  assert.equal(it.requests[0].url.search, '');
  await it.clock.advance(600 * MINUTE);
  assert.equal(it.requests.length, 1);
  await it.stream.send('id: urn:uuid:8\nevent: note\ndata: x\n\n');
  assert.deepEqual(it.events, [{ type: 'note', data: 'x', id: 'urn:uuid:8', topic: null }]);
  await it.stream.end();
  await it.clock.advance(3000);
  assert.equal(it.requests[1].headers['Last-Event-ID'], 'urn:uuid:8');
});

/** What a page is to a connection: events of its window and its document. */
function page(t) {
  const [window, document] = [new EventTarget(), Object.assign(new EventTarget(), { hidden: false })];
  const listen = (type, listener, options) => window.addEventListener(type, listener, options);
  for (const [name, value] of Object.entries({ document, addEventListener: listen })) {
    const before = Object.getOwnPropertyDescriptor(globalThis, name);
    Object.defineProperty(globalThis, name, { value, configurable: true });
    t.after(() => (before ? Object.defineProperty(globalThis, name, before) : delete globalThis[name]));
  }
  return { document, say: (type, target = window) => target.dispatchEvent(new Event(type)) };
}

for (const [hide, show, where] of [['pagehide', 'pageshow', 'window'], ['freeze', 'resume', 'document']]) {
  test(`${hide} shuts the stream, ${show} goes on from the cursor`, async (t) => {
    const { document, say } = page(t);
    const it = await setUp();
    await it.stream.send(OPEN + block('created', 1, at('t', 1)));
    const target = where === 'document' ? document : undefined;
    say(hide, target);
    assert.deepEqual([it.state.state, it.state.reason, it.requests[0].signal.aborted], ['paused', 'page', true]);
    await it.clock.advance(MINUTE);
    assert.deepEqual([it.requests.length, it.clock.timers.size], [1, 0]);
    say(show, target);
    await it.clock.advance(30);
    assert.equal(it.requests[1].headers['Last-Event-ID'], at('t', 1));
    it.connection.close();
    say(hide, target);
    assert.equal(it.connection.state, 'closed');
  });
}

test('a page that was paused by its reader stays so when it is shown again', async (t) => {
  const { say } = page(t);
  const it = await setUp();
  it.connection.pause();
  say('pagehide');
  say('pageshow');
  await settle();
  assert.deepEqual([it.connection.state, it.requests.length], ['paused', 1]);
});

test('a page that is hidden is paused by itself, and resume() is not for that', async (t) => {
  const { say } = page(t);
  const it = await setUp();
  await it.stream.send(OPEN);
  say('pagehide');
  it.connection.resume();
  say('pageshow');
  await it.clock.advance(30);
  await it.stream.send(OPEN + block('created', 1, at('t', 1)));
  assert.deepEqual([it.requests.length, it.events.length], [2, 1]);
  it.connection.close();
});

test('online cuts a wait short, within a second, but not one that the server named', async (t) => {
  const { say } = page(t);
  const it = await setUp({ answers: [{ status: 503 }, { status: 503 }, { status: 503, headers: { 'Retry-After': '60' } }] });
  await it.clock.advance(3000);
  assert.equal(it.requests.length, 2);
  say('online');
  await it.clock.advance(1000);
  assert.equal(it.requests.length, 3);
  say('online');
  await it.clock.advance(10_000);
  assert.equal(it.requests.length, 3);
  it.connection.close();
});

test('online asks again after a refusal', async (t) => {
  const { say } = page(t);
  const it = await setUp({ answers: [{ status: 404 }] });
  await it.clock.advance(MINUTE);
  assert.equal(it.requests.length, 1);
  say('online');
  await it.clock.advance(1000);
  assert.equal(it.requests.length, 2);
  it.connection.close();
});
