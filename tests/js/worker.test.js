import assert from 'node:assert/strict';
import { test } from 'node:test';

import { FakeBrowser } from './fake_worker.js';
import { at, event, opening, settle } from './fakes.js';

const nameOf = (viewer) => JSON.stringify([{ url: 'https://site.test/livefeed/', viewer }, 1]);
const NAME = nameOf('anna');
const LINGER = 5000;

/** Pages of one viewer, each with a member for its topic, from the same place; the worker's stream is open. */
async function together(t, topics, options) {
  const browser = new FakeBrowser(t, options);
  const members = [];
  for (const topic of topics) {
    const page = browser.page();
    members.push(Object.assign(page.add(topic, at(topic, 1)), { page }));
  }
  await browser.gather();
  const names = [...new Set(topics)];
  await browser.server.stream.send(opening(names, names.map((name) => at(name, 1))));
  return { browser, server: browser.server, members };
}

test('pages of one viewer have one connection, and each gets its topics’ events', async (t) => {
  const { browser, server, members } = await together(t, ['a', 'a', 'b']);
  assert.deepEqual(server.topics.at(-1), ['a', 'b']);
  assert.equal(server.requests.filter(({ signal }) => !signal.aborted).length, 1);
  assert.deepEqual([browser.options.type, browser.options.name, browser.workers.size], ['module', NAME, 1]);
  await server.stream.send(event('a', 2, at('a', 2), at('b', 1)) + event('b', 2, at('a', 2), at('b', 2)));
  assert.deepEqual(members.map(({ seen }) => seen), [[2], [2], [2]]);
  assert.deepEqual(members.map(({ states }) => states.at(-1)), Array(3).fill('open open'));
  assert.deepEqual(members.map(({ cursor }) => cursor), [at('a', 2), at('a', 2), at('b', 2)]);
});

test('two viewers share nothing', async (t) => {
  const browser = new FakeBrowser(t);
  for (const viewer of ['anna', 'bert']) {
    const page = browser.page({ viewer });
    page.add('a', at('a', 1));
    await browser.gather();
  }
  assert.deepEqual([...browser.workers.keys()], [NAME, nameOf('bert')]);
  assert.equal(browser.server.requests.length, 2);
});

test('two addresses of one viewer are two connections, each in a worker of its own', async (t) => {
  const browser = new FakeBrowser(t);
  for (const url of ['https://site.test/livefeed/', 'https://site.test/other/']) {
    const page = browser.page({ url });
    page.add('a', at('a', 1));
    await browser.gather();
  }
  assert.deepEqual([browser.workers.size, browser.server.requests.map(({ url }) => url.pathname)], [2, ['/livefeed/', '/other/']]);
});

test('a page that comes from further back gets what it lacks; nobody else gets it twice', async (t) => {
  const { browser, server, members } = await together(t, ['a']);
  for (const seq of [2, 3]) await server.stream.send(event('a', seq, at('a', seq)));
  const page = browser.page();
  const late = page.add('a', at('a', 1));
  await browser.gather();
  assert.equal(server.cursors.at(-1), at('a', 1));
  await server.stream.send(opening(['a'], [at('a', 1)], { head: [at('a', 3)] }));
  for (const seq of [2, 3, 4]) await server.stream.send(event('a', seq, at('a', seq)));
  assert.deepEqual([members[0].seen, late.seen], [[2, 3, 4], [2, 3, 4]]);
});

test('a member that comes to a page later, from further back or for more, is served beside those who are there', async (t) => {
  const { browser, server, members: [first] } = await together(t, ['a']);
  await server.stream.send(event('a', 2, at('a', 2)));
  const second = first.page.add(['a', 'b'], `${at('a', 1)}.${at('b', 5)}`);
  await browser.gather();
  await server.streams.at(-2).send(event('a', 3, at('a', 3)));
  assert.deepEqual([first.seen, second.seen], [[2, 3], []]);
  await server.stream.send(opening(['a', 'b'], [at('a', 1), at('b', 5)], { head: [at('a', 3), at('b', 5)] }));
  for (const seq of [2, 3, 4]) await server.stream.send(event('a', seq, at('a', seq), at('b', 5)));
  assert.deepEqual([first.seen, second.seen], [[2, 3, 4], [2, 3, 4]]);
});

test('a reset and a fleeting event reach the members of every page', async (t) => {
  const { server, members } = await together(t, ['a', 'a']);
  await server.stream.send('event: typing\ntopic: a\ndata: "x"\n\n');
  const cursor = at('a', 50);
  const reset = { topic: 'a', reason: 'trimmed', cursor };
  await server.stream.send(`id: ${cursor}\nevent: livefeed-reset\ndata: ${JSON.stringify(reset)}\n\n`);
  await server.stream.send(event('a', 51, at('a', 51)));
  for (const member of members) assert.deepEqual([member.seen, member.resets], [['x', 51], [reset]]);
});

test('a page that leaves its last topic, and the last page that goes, end the connection after a while', async (t) => {
  const { browser, server, members: [one, two] } = await together(t, ['a', 'b']);
  one.page.say('pagehide');
  await browser.clock.advance(LINGER + 100);
  assert.deepEqual(server.topics.at(-1), ['b']);
  await server.stream.send(opening(['b'], [at('b', 1)]));
  two.page.say('pagehide');
  await browser.clock.advance(LINGER - 100);
  assert.equal(server.requests.at(-1).signal.aborted, false);
  await browser.clock.advance(200);
  assert.equal(server.requests.at(-1).signal.aborted, true);
});

test('from page to page of a site the connection stays', async (t) => {
  const { browser, server, members: [first] } = await together(t, ['a']);
  const requests = server.requests.length;
  let page = first.page;
  for (let seq = 2; seq < 11; seq += 1) {
    await server.stream.send(event('a', seq, at('a', seq)));
    page.say('pagehide');
    page = browser.page();
    const member = page.add('a', at('a', seq));
    await browser.gather();
    assert.equal(member.states.at(-1), 'open open');
  }
  assert.equal(server.requests.length, requests);
});

for (const [hide, show, target] of [['pagehide', 'pageshow', 'window'], ['freeze', 'resume', 'document']]) {
  test(`${hide}: the page leaves, and with ${show} it is back from its own place`, async (t) => {
    const { browser, server, members: [member, other] } = await together(t, ['a', 'a']);
    await server.stream.send(event('a', 2, at('a', 2)));
    member.page.say(hide, member.page[target]);
    assert.equal(member.states.at(-1), 'paused page');
    await settle();
    assert.equal(browser.locks.held.size, 2); // the worker's and the other page's
    await server.stream.send(event('a', 3, at('a', 3)));
    assert.deepEqual([member.seen, other.seen], [[2], [2, 3]]);
    member.page.say(show, member.page[target]);
    await browser.gather();
    assert.equal(server.cursors.at(-1), at('a', 2));
    await server.stream.send(opening(['a'], [at('a', 2)], { head: [at('a', 3)] }) + event('a', 3, at('a', 3)));
    assert.deepEqual([member.seen, other.seen, member.states.at(-1)], [[2, 3], [2, 3], 'open open']);
  });
}

test('a page that dies without a word is noticed by its lock', async (t) => {
  const { browser, server, members: [one] } = await together(t, ['a', 'b']);
  await browser.kill(one.page);
  await browser.clock.advance(LINGER + 100);
  assert.deepEqual(server.topics.at(-1), ['b']);
});

test('a worker that dies is noticed by its lock, and the pages make another, from where they are', async (t) => {
  const { browser, server, members } = await together(t, ['a', 'a']);
  await server.stream.send(event('a', 2, at('a', 2)));
  const old = server.requests.length;
  browser.killWorker(NAME);
  await browser.gather();
  assert.deepEqual(server.cursors.slice(old), [at('a', 2)]);
  await server.stream.send(opening(['a'], [at('a', 2)]) + event('a', 3, at('a', 3)));
  assert.deepEqual(members.map(({ seen }) => seen), [[2, 3], [2, 3]]);
});

test('without locks (an insecure origin) pages share as well, and say when they go', async (t) => {
  const browser = new FakeBrowser(t);
  navigator.locks = undefined;
  const members = [browser.page(), browser.page()].map((page) => Object.assign(page.add('a', at('a', 1)), { page }));
  await browser.gather();
  await browser.server.stream.send(opening(['a'], [at('a', 1)]) + event('a', 2, at('a', 2)));
  assert.deepEqual(members.map(({ seen }) => seen), [[2], [2]]);
  for (const { page } of members) page.say('pagehide');
  await browser.clock.advance(LINGER + 100);
  assert.equal(browser.server.requests[0].signal.aborted, true);
});

test('before each request one of the pages says its headers', async (t) => {
  const browser = new FakeBrowser(t, { answers: [{ status: 401 }, {}] });
  const asked = [];
  const pages = ['one', 'two'].map((name) =>
    browser.page({ headers: ({ status }) => asked.push([name, status]) && { Authorization: name } }),
  );
  for (const page of pages) page.add('a', at('a', 1));
  await browser.gather();
  assert.deepEqual(asked, [['two', null], ['two', 401]]);
  assert.deepEqual(browser.server.requests.map(({ headers }) => headers.Authorization), ['two', 'two']);
});

test('headers that fail or never come are asked for again after a while', async (t) => {
  t.mock.method(console, 'error', () => {});
  const browser = new FakeBrowser(t);
  const page = browser.page({ headers: () => new Promise(() => {}) });
  const member = page.add('a', at('a', 1));
  await browser.gather();
  await browser.clock.advance(20_000);
  assert.deepEqual([browser.server.requests.length, member.states.at(-1)], [0, 'waiting timeout']);
  page.headers = () => {
    throw new Error('no token');
  };
  await browser.clock.advance(25_000);
  assert.deepEqual([browser.server.requests.length, member.states.at(-1)], [0, 'waiting timeout']);
  assert.equal(console.error.mock.callCount() > 0, true);
  page.headers = async () => ({ Authorization: 'back' });
  await browser.clock.advance(12_000);
  assert.equal(browser.server.requests[0].headers.Authorization, 'back');
});

test('a refusal is known to the page whose topic it is', async (t) => {
  const browser = new FakeBrowser(t);
  const page = browser.page();
  const [open, secret] = [page.add('a', at('a', 1)), page.add('b~1~s', at('b', 1))];
  await browser.gather();
  await browser.server.stream.send(opening(['a'], [at('a', 1)], { refused: ['b~1~s'] }));
  assert.deepEqual([open.states.at(-1), secret.states.at(-1)], ['open open', 'denied refused']);
});

for (const trouble of ['throws', 'errors']) {
  test(`where the worker ${trouble}, the page has its own connection, and does not try again`, async (t) => {
    const browser = new FakeBrowser(t);
    browser.trouble = trouble;
    const page = browser.page();
    const member = page.add('a', at('a', 1));
    await browser.gather();
    await browser.server.stream.send(opening(['a'], [at('a', 1)]) + event('a', 2, at('a', 2)));
    assert.deepEqual([member.seen, member.states.at(-1)], [[2], 'open open']);
    const tries = browser.ports.length;
    page.say('pagehide');
    page.say('pageshow');
    await browser.gather();
    assert.deepEqual([browser.ports.length, member.states.at(-1)], [tries, 'connecting start']);
  });
}

test('a worker that says nothing is waited for five seconds, then the page has its own connection', async (t) => {
  const browser = new FakeBrowser(t);
  browser.trouble = 'silent';
  const page = browser.page();
  const member = page.add('a', at('a', 1));
  await browser.clock.advance(5000);
  assert.equal(browser.server.requests.length, 0);
  await browser.clock.advance(100);
  await browser.server.stream.send(opening(['a'], [at('a', 1)]) + event('a', 2, at('a', 2)));
  browser.late();
  await browser.gather();
  assert.deepEqual([browser.server.requests.length, member.seen, member.states.at(-1)], [1, [2], 'open open']);
});

test('a page that asks to connect anew asks for all', async (t) => {
  const { browser, server, members } = await together(t, ['a', 'a']);
  const requests = server.requests.length;
  members[0].reconnect();
  await settle();
  assert.equal(server.requests.length, requests + 1);
  assert.deepEqual(members.map(({ states }) => states.at(-1)), Array(2).fill('connecting reconnect'));
  assert.equal(browser.workers.size, 1);
});
