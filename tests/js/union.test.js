import assert from 'node:assert/strict';
import { test } from 'node:test';

import { newUnion } from '../../livefeed/browser/union.js';
import { FakeClock, FakeServer, at, block, event, opening, put, settle } from './fakes.js';

const GATHERING = 30;

function setUp({ answers, asked, lingers = true, ...address } = {}) {
  const clock = new FakeClock();
  const server = new FakeServer(clock, answers);
  put({ fetch: server.fetch, random: () => 0.5 });
  const enter = newUnion({ url: 'https://site.test/livefeed/', client: 'tests', ...address }, lingers);
  const members = [];
  const page = enter(({ n, cursor, event, change, ask }) => {
    if (ask) return asked ? asked(ask) : page.take({ headers: undefined });
    const member = Object.assign(members[n - 1], { cursor });
    if (event?.type === 'livefeed-reset') member.resets.push({ ...JSON.parse(event.data), cursor });
    else if (event) member.seen.push([JSON.parse(event.data), cursor]);
    if (change) member.states.push(`${change.state} ${change.reason}`);
  });
  const add = (topics, cursor) => {
    const member = { topics: [topics].flat(), cursor, types: [], seen: [], resets: [], states: [] };
    member.n = members.push(member);
    const { n, types } = member;
    page.take({ n, topics: member.topics, types, cursor });
    return member;
  };
  const gather = () => clock.advance(GATHERING);
  const leave = async ({ n, cursor }) => {
    page.take({ n });
    await gather();
    return cursor;
  };
  return { clock, server, page, add, gather, leave };
}

const data = (member) => member.seen.map(([data]) => data);

test('members that come together share one request, from the place of whoever is furthest back', async () => {
  const it = setUp();
  const [one, two, three] = [it.add('a', at('a', 5)), it.add('a~1~s', at('a', 3)), it.add('b', '')];
  await it.gather();
  assert.deepEqual(it.server.topics, [['a~1~s', 'b']]);
  assert.deepEqual(it.server.cursors, [at('a', 3)]);
  await it.server.stream.send(opening(['a', 'b'], [at('a', 3), at('b', 7)], { head: [at('a', 6), at('b', 7)] }));
  assert.deepEqual(one.states, ['connecting start', 'catching-up open']);
  for (const seq of [4, 5, 6]) await it.server.stream.send(event('a', seq, at('a', seq), at('b', 7)));
  await it.server.stream.send(event('b', 8, at('a', 6), at('b', 8)));
  assert.deepEqual([one, two, three].map(data), [[6], [4, 5, 6], [8]]);
  assert.deepEqual(one.states.at(-1), 'open open');
  assert.deepEqual(three.seen, [[8, at('b', 8)]]);
  assert.deepEqual([one, three].map(({ cursor }) => cursor), [at('a', 6), at('b', 8)]);
});

test('who is no further back joins without a request, and gets nothing that it has', async () => {
  const it = setUp();
  const first = it.add('a', at('a', 1));
  await it.gather();
  await it.server.stream.send(opening(['a'], [at('a', 1)]) + event('a', 2, at('a', 2)));
  const [ahead, now] = [it.add('a', at('a', 4)), it.add('a', '')];
  await it.gather();
  assert.deepEqual([ahead, now].map(({ states }) => states), [['open open'], ['open open']]);
  for (const seq of [3, 4, 5]) await it.server.stream.send(event('a', seq, at('a', seq)));
  assert.deepEqual([first, ahead, now].map(data), [[2, 3, 4, 5], [5], [3, 4, 5]]);
  assert.equal(it.server.requests.length, 1);
});

test('who comes from further back makes the union begin there again, and the old stream goes on until the new one has opened', async () => {
  const it = setUp();
  const first = it.add('a', at('a', 5));
  await it.gather();
  await it.server.stream.send(opening(['a'], [at('a', 5)]) + event('a', 6, at('a', 6)));
  const late = it.add('a', at('a', 4));
  await it.gather();
  const [old, fresh] = it.server.streams;
  assert.deepEqual(it.server.cursors, [at('a', 5), at('a', 4)]);
  await old.send(event('a', 7, at('a', 7)));
  assert.deepEqual([first, late].map(data), [[6, 7], []]);
  await fresh.send(opening(['a'], [at('a', 4)], { head: [at('a', 7)] }));
  assert.equal(it.server.requests[0].signal.aborted, true);
  for (const seq of [5, 6, 7, 8]) await fresh.send(event('a', seq, at('a', seq)));
  assert.deepEqual([first, late].map(data), [[6, 7, 8], [5, 6, 7, 8]]);
  assert.deepEqual(first.states, ['connecting start', 'open open']);
  assert.deepEqual(late.states, ['catching-up open', 'open open']);
});

test('a server that ends the old stream because the new one has its place changes nothing for who is here', async () => {
  const it = setUp();
  const first = it.add('a', at('a', 5));
  await it.gather();
  await it.server.stream.send(opening(['a'], [at('a', 5)]));
  const more = it.add('b', at('b', 1));
  await it.gather();
  const [old, fresh] = it.server.streams;
  await old.send(block('livefeed-closing', { reason: 'taken-over' }));
  await fresh.send(opening(['a', 'b'], [at('a', 5), at('b', 1)]) + event('b', 2, at('a', 5), at('b', 2)));
  assert.deepEqual(first.states, ['connecting start', 'open open']);
  assert.deepEqual(data(more), [2]);
  assert.equal(it.server.requests.length, 2);
});

test('who comes faster than requests open does not keep them from opening', async () => {
  const [opens, every] = [400, 20]; // ms
  const answers = (_, index = it.server.requests.length - 1) => it.clock.setTimeout(() => open(index), opens) && {};
  const it = setUp({ answers });
  const open = (index) => {
    const { signal, headers } = it.server.requests[index];
    const cursor = headers['Last-Event-ID'].slice(0, at('a', 1).length);
    if (!signal.aborted) it.server.streams[index].send(opening(['a'], [cursor], { head: [at('a', 500)] }));
  };
  const opened = (member) => member.states.some((state) => /^(catching-up|open)/.test(state));
  const first = it.add('a', at('a', 500));
  await it.clock.advance(opens + GATHERING);
  const members = [];
  for (let place = 499; place > 300; place -= 1) {
    members.push(it.add('a', at('a', place)));
    await it.clock.advance(every);
  }
  const count = members.filter(opened).length;
  assert.ok(opened(first) && count > 100, `${count} of ${members.length} are open while more come`);
  await it.clock.advance(4 * opens);
  assert.ok(members.every(opened));
  assert.ok(it.server.requests.length < members.length / 3, `${it.server.requests.length} requests`);
  const { length } = it.server.requests;
  it.add('a', at('a', 1));
  await it.gather();
  assert.equal(it.server.requests.length, length + 1); // at once again
});

test('who comes when all have gone does not wait for longer because those were many', async () => {
  const it = setUp({ answers: () => new Promise(() => {}) }); // a server that hangs
  for (let place = 20; place > 0; place -= 1) {
    it.add('a', at('a', place));
    await it.clock.advance(200);
  }
  it.page.leave();
  await it.clock.advance(120_000);
  const { length } = it.server.requests;
  it.add('a', at('a', 1));
  await it.gather();
  assert.equal(it.server.requests.length, length + 1);
});

test('a successor that fails is tried again, while the old stream goes on', async () => {
  const it = setUp({ answers: [{}, { status: 503 }, {}] });
  const first = it.add('a', at('a', 5));
  await it.gather();
  await it.server.stream.send(opening(['a'], [at('a', 5)]));
  const more = it.add('b', at('b', 1));
  await it.gather();
  await it.server.streams[0].send(event('a', 6, at('a', 6)));
  assert.deepEqual([data(first), first.states.at(-1), more.states], [[6], 'open open', []]);
  await it.clock.advance(3000);
  assert.deepEqual(it.server.cursors.at(-1), `${at('a', 6)}.${at('b', 1)}`);
  await it.server.stream.send(opening(['a', 'b'], [at('a', 6), at('b', 1)]));
  assert.deepEqual(more.states, ['open open']);
});

test('after a cut the stream goes on from everybody’s place', async () => {
  const it = setUp();
  const members = [it.add('a', at('a', 1)), it.add('b', '')];
  await it.gather();
  await it.server.stream.send(opening(['a', 'b'], [at('a', 1), at('b', 9)]));
  await it.server.stream.send(event('a', 2, at('a', 2), at('b', 9)));
  await it.server.stream.end();
  assert.deepEqual(members.map(({ states }) => states.at(-1)), ['waiting end', 'waiting end']);
  await it.clock.advance(3000);
  assert.deepEqual(it.server.cursors[1], `${at('a', 2)}.${at('b', 9)}`);
  await it.server.stream.send(opening(['a', 'b'], [at('a', 2), at('b', 9)], { head: [at('a', 2), at('b', 10)] }));
  assert.deepEqual(members.map(({ states }) => states.slice(-2)), [['waiting end', 'open open'], ['waiting end', 'catching-up open']]);
});

test('a reset is for everybody who does not stand there yet', async () => {
  const it = setUp();
  const [behind, there, other] = [it.add('a', at('a', 2)), it.add('a', at('a', 50)), it.add('b', at('b', 1))];
  await it.gather();
  await it.server.stream.send(opening(['a', 'b'], [at('a', 2), at('b', 1)], { head: [at('a', 50), at('b', 1)] }));
  const cursor = `${at('a', 50)}.${at('b', 1)}`;
  await it.server.stream.send(block('livefeed-reset', { topic: 'a', reason: 'trimmed', cursor }, cursor));
  await it.server.stream.send(event('a', 51, at('a', 51), at('b', 1)));
  assert.deepEqual(behind.resets, [{ topic: 'a', reason: 'trimmed', cursor: at('a', 50) }]);
  assert.deepEqual([there.resets, other.resets], [[], []]);
  assert.deepEqual([behind, there, other].map(data), [[51], [51], []]);
});

test('a lost epoch is one reset, and it is the server’s', async () => {
  const it = setUp();
  const member = it.add('a', at('a', 9, 'before'));
  await it.gather();
  await it.server.stream.send(opening(['a'], [at('a', 9, 'before')], { head: [at('a', 3)] }));
  assert.deepEqual(member.resets, []);
  await it.server.stream.send(block('livefeed-reset', { topic: 'a', reason: 'epoch', cursor: at('a', 3) }, at('a', 3)));
  assert.deepEqual(member.resets, [{ topic: 'a', reason: 'epoch', cursor: at('a', 3) }]);
});

test('who brings another epoch than the connection’s is told at once: there is nothing to compare', async () => {
  const it = setUp();
  it.add('a', at('a', 5));
  await it.gather();
  await it.server.stream.send(opening(['a'], [at('a', 5)]));
  const stranger = it.add('a', at('a', 5, 'before'));
  await it.gather();
  assert.deepEqual(stranger.resets, [{ topic: 'a', reason: 'behind', cursor: at('a', 5) }]);
  await it.server.stream.send(event('a', 6, at('a', 6)));
  assert.deepEqual(data(stranger), [6]);
  assert.equal(it.server.requests.length, 1);
});

test('of several cursors the server goes on from one that it can follow, and who is behind that is told', async () => {
  const it = setUp();
  const [before, some] = [it.add('a', at('a', 3, 'before')), it.add('a', at('a', 8))];
  await it.gather();
  assert.deepEqual(it.server.cursors, [`${at('a', 3, 'before')}.${at('a', 8)}`]);
  await it.server.stream.send(opening(['a'], [at('a', 8)]));
  assert.deepEqual([before.resets.length, some.resets.length], [1, 0]);
});

test('who stands before the first event is further back than all others', async () => {
  const it = setUp();
  const [some, none] = [it.add('a', at('a', 2)), it.add('a', 'a___')];
  await it.gather();
  assert.deepEqual(it.server.cursors, ['a___']);
  const events = [1, 2, 3].map((number) => event('a', number, at('a', number))).join('');
  await it.server.stream.send(opening(['a'], ['a___'], [at('a', 2)]) + events);
  assert.deepEqual([data(none), data(some)], [[1, 2, 3], [3]]);
});

test('a topic before its first event: that event is the next', async () => {
  const it = setUp();
  const member = it.add('a', 'a___');
  await it.gather();
  await it.server.stream.send(opening(['a'], ['a___']) + event('a', 1, at('a', 1)) + event('a', 2, at('a', 2)));
  assert.deepEqual(data(member), [1, 2]);
});

test('a fleeting event reaches everybody who is here, and moves nobody', async () => {
  const it = setUp();
  const [one, two] = [it.add('a', at('a', 1)), it.add('a', at('a', 9))];
  await it.gather();
  await it.server.stream.send(opening(['a'], [at('a', 1)]));
  const fleeting = 'event: typing\ntopic: a\ndata: "x"\n\n';
  await it.server.stream.send(fleeting + event('a', 2, at('a', 2)) + fleeting);
  assert.deepEqual([data(one), data(two)], [['x', 2, 'x'], ['x', 'x']]);
  assert.deepEqual([one, two].map(({ cursor }) => cursor), [at('a', 2), at('a', 9)]);
});

test('a sync moves everybody on', async () => {
  const it = setUp();
  const member = it.add('a', at('a', 1));
  await it.gather();
  await it.server.stream.send(opening(['a'], [at('a', 1)]));
  await it.server.stream.send(block('livefeed-sync', { cursor: at('a', 40) }, at('a', 40)));
  assert.deepEqual([member.cursor, member.seen], [at('a', 40), []]);
});

test('a connection with one topic need not name it', async () => {
  const it = setUp();
  const member = it.add('a', at('a', 1));
  await it.gather();
  await it.server.stream.send(opening(['a'], [at('a', 1)]) + block('created', 2, at('a', 2)));
  assert.deepEqual(member.seen, [[2, at('a', 2)]]);
});

test('a refused topic is denied for its members alone; with a newer name it is asked for again', async () => {
  const it = setUp();
  const [open, secret] = [it.add('a', at('a', 1)), it.add('b~1sAAA~old', at('b', 1))];
  await it.gather();
  await it.server.stream.send(opening(['a'], [at('a', 1)], { refused: ['b~1sAAA~old'] }));
  assert.deepEqual([open.states.at(-1), secret.states.at(-1)], ['open open', 'denied refused']);
  const same = it.add('b~1sAAA~old', at('b', 1));
  await it.gather();
  assert.deepEqual(same.states, ['denied refused']);
  assert.equal(it.server.requests.length, 1);
  const newer = it.add('b~1sBBB~new', at('b', 1));
  await it.gather();
  assert.deepEqual(it.server.topics[1], ['a', 'b~1sBBB~new']);
  await it.server.stream.send(opening(['a', 'b'], [at('a', 1), at('b', 1)]));
  assert.deepEqual([secret, same, newer].map(({ states }) => states.at(-1)), Array(3).fill('open open'));
});

test('a name that has expired is asked for again by the newest that is known', async () => {
  const it = setUp();
  it.add('a~1sBBB~new', at('a', 1));
  it.add('a~1sAAA~old', at('a', 1));
  await it.gather();
  assert.deepEqual(it.server.topics, [['a~1sBBB~new']]);
});

test('a stream for another viewer than the pages’ is denied, and brings nothing', async () => {
  const it = setUp({ viewer: 'anna' });
  const member = it.add('a', at('a', 1));
  await it.gather();
  await it.server.stream.send(opening(['a'], [at('a', 1)], { viewer: 'bert' }) + event('a', 2, at('a', 2)));
  assert.deepEqual([member.states.at(-1), member.seen], ['denied viewer', []]);
  assert.equal(it.server.requests[0].signal.aborted, true);
});

test('what nobody wants any more is dropped after a while, and after the last member all is', async () => {
  const it = setUp();
  const [one, two] = [it.add('a', at('a', 1)), it.add('b', at('b', 1))];
  await it.gather();
  await it.server.stream.send(opening(['a', 'b'], [at('a', 1), at('b', 1)]) + event('b', 2, at('a', 1), at('b', 2)));
  assert.equal(await it.leave(two), at('b', 2));
  await it.clock.advance(4900);
  assert.equal(it.server.requests.length, 1);
  await it.clock.advance(200);
  assert.deepEqual(it.server.topics[1], ['a']);
  await it.server.stream.send(opening(['a'], [at('a', 1)]));
  await it.leave(one);
  await it.clock.advance(4900);
  assert.equal(it.server.requests[1].signal.aborted, false);
  const back = it.add('a', at('a', 1));
  await it.clock.advance(6000);
  assert.deepEqual([back.states, it.server.requests.length], [['open open'], 2]);
  await it.leave(back);
  await it.clock.advance(5000);
  assert.deepEqual([it.server.requests[1].signal.aborted, it.clock.timers.size], [true, 0]);
});

test('what nobody wants any more when a request opens is dropped after a while', async () => {
  const it = setUp();
  const [, gone] = [it.add('a', at('a', 1)), it.add('b', at('b', 1))];
  await it.gather();
  await it.leave(gone);
  await it.server.stream.send(opening(['a', 'b'], [at('a', 1), at('b', 1)]));
  await it.clock.advance(6000);
  assert.deepEqual(it.server.topics, [['a', 'b'], ['a']]);
});

test('where the union does not linger, nothing is left when everybody has gone', async () => {
  const it = setUp({ lingers: false });
  const [, gone] = [it.add('a', at('a', 1)), it.add('b', at('b', 1))];
  await it.gather();
  await it.server.stream.send(opening(['a', 'b'], [at('a', 1), at('b', 1)]));
  await it.leave(gone); // its topic is to be dropped after a while
  it.page.leave();
  await it.clock.advance(60_000);
  assert.deepEqual([it.server.requests.length, it.clock.timers.size], [1, 0]);
});

test('who comes without a cursor stands at now, not where a connection that was closed had been', async () => {
  const it = setUp();
  await it.leave(it.add('a', at('a', 1)), await it.gather());
  await it.server.stream.send(opening(['a'], [at('a', 1)]));
  await it.clock.advance(3_600_000);
  it.add('b', at('b', 1));
  await it.gather();
  it.add('a', '');
  await it.gather();
  assert.deepEqual(it.server.cursors, [at('a', 1), at('b', 1), at('b', 1)]);
});

test('a page that goes before it has said its headers does not keep the next one waiting', async () => {
  const asks = [];
  const it = setUp({ asked: (ask) => asks.push(ask) });
  await it.leave(it.add('a', at('a', 1)), await it.gather());
  const next = it.add('b', at('b', 1));
  await it.gather();
  assert.equal(asks.length, 2);
  it.page.take({ headers: {} });
  await settle();
  await it.server.stream.send(opening(['b'], [at('b', 1)]));
  assert.deepEqual(next.states.at(-1), 'open open');
});

test('while pages are read, a newcomer whose first request fails gets pages all the same', async () => {
  let fails = 1;
  const told = ({ Accept }, topics) => {
    if (Accept !== 'application/json') return 'hangs';
    if (topics.includes('b') && fails-- > 0) return 'refused';
    const body = { topics, unnamed: [], events: [], resets: [], cursor: topics.map((topic) => at(topic, 1)).join('.') };
    return { type: Accept, body };
  };
  const it = setUp({ answers: ({ headers }) => told(headers, it.server.topics.at(-1)) });
  const first = it.add('a', at('a', 1));
  await it.clock.advance(GATHERING + 10_000);
  assert.deepEqual(first.states.at(-1), 'polling held');
  const second = it.add('b', at('b', 1));
  await it.clock.advance(10_000);
  assert.ok(fails < 0);
  assert.equal(second.states.at(-1), 'polling held');
});

test('a stream that is cut while nobody is here is opened again when somebody comes', async () => {
  const it = setUp();
  const member = it.add('a~1~s', at('a', 1));
  await it.gather();
  await it.server.stream.send(opening(['a'], [at('a', 1)]) + event('a', 2, at('a', 2)));
  await it.leave(member);
  await it.server.stream.end();
  await it.clock.advance(60_000);
  assert.deepEqual([it.server.requests.length, it.clock.timers.size], [1, 0]);
  const back = it.add('a~1~s', at('a', 2));
  await it.gather();
  await it.server.stream.send(opening(['a'], [at('a', 2)]));
  assert.deepEqual([it.server.cursors[1], back.states], [at('a', 2), ['connecting start', 'open open']]);
});

test('who joins a connection that was denied makes it ask again; one that waits is waited for', async () => {
  const it = setUp({ answers: [{ status: 404 }, { status: 503, headers: { 'Retry-After': '60' } }] });
  const first = it.add('a', at('a', 1));
  await it.gather();
  assert.equal(first.states.at(-1), 'denied http-404');
  const second = it.add('b', at('b', 1));
  await it.gather();
  assert.equal(it.server.requests.length, 2);
  assert.equal(second.states.at(-1), 'waiting http-503');
  const third = it.add('c', at('c', 1));
  await it.gather();
  assert.deepEqual([third.states, it.server.requests.length], [['waiting http-503'], 2]);
  it.page.take({ call: 'hurry' });
  await it.clock.advance(1000);
  assert.equal(it.server.requests.length, 2);
});

test('a server that has ended the stream for good is not asked again because somebody goes', async () => {
  const it = setUp({ answers: [{ status: 204 }] });
  const [first, second] = [it.add('a', at('a', 1)), it.add('b', at('b', 1))];
  await it.gather();
  assert.deepEqual(first.states.at(-1), 'closed http-204');
  await it.leave(second);
  assert.equal(it.server.requests.length, 1);
});

test('headers that a stream and a page wait for are for both', async () => {
  const history = { topics: ['a'], unnamed: [], events: [], resets: [], cursor: at('a', 1) };
  const answers = ({ headers: { Accept } }) => (Accept === 'application/json' ? { type: Accept, body: history } : 'hangs');
  const [pending, opening] = [[], 10_000];
  let isSilent = false;
  const asked = (ask) => (isSilent ? pending.push(ask) : it.page.take({ headers: undefined }));
  const it = setUp({ answers, asked });
  const member = it.add('a', at('a', 1));
  await it.clock.advance(GATHERING + opening + 59_000);
  isSilent = true;
  await it.clock.advance(1000); // the stream is tried again when a page is due
  const { length } = it.server.requests;
  it.page.take({ headers: { Authorization: 'x' } });
  await settle();
  assert.deepEqual([pending.length, it.server.requests.length - length, member.states.at(-1)], [2, 2, 'polling held']);
});

test('a server that begins further on than it was asked to is not asked for the same again, and it is told', async () => {
  const it = setUp();
  const member = it.add('a', at('a', 1));
  await it.gather();
  await it.server.stream.send(opening(['a'], [at('a', 5)]) + event('a', 6, at('a', 6)));
  await it.clock.advance(10_000);
  assert.equal(it.server.requests.length, 1);
  assert.deepEqual([member.resets, data(member)], [[{ topic: 'a', reason: 'behind', cursor: at('a', 5) }], [6]]);
});

test('who comes back for what the stream had before it was cut, and was asked for without, is asked for again', async () => {
  const it = setUp();
  const [, second] = [it.add('a', at('a', 1)), it.add('b', at('b', 1))];
  await it.gather();
  await it.server.stream.send(opening(['a', 'b'], [at('a', 1), at('b', 1)]));
  await it.leave(second);
  await it.server.stream.end();
  await it.clock.advance(3000);
  it.add('b', at('b', 1));
  await it.gather();
  await it.server.stream.send(opening(['a'], [at('a', 1)]));
  await it.gather();
  assert.deepEqual(it.server.topics.slice(1), [['a'], ['a', 'b']]);
});

test('a member may have several topics', async () => {
  const it = setUp();
  const member = it.add(['a', 'b~1~s'], `${at('a', 1)}.${at('b', 1)}`);
  await it.gather();
  await it.server.stream.send(opening(['a', 'b'], [at('a', 1), at('b', 1)]));
  await it.server.stream.send(event('b', 2, at('a', 1), at('b', 2)));
  assert.deepEqual(member.seen, [[2, `${at('a', 1)}.${at('b', 2)}`]]);
});
