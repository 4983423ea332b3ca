import assert from 'node:assert/strict';
import { test } from 'node:test';

import { LiveEventSource } from '../../livefeed/browser/event-source.js';
import { FakeClock, FakeServer, at, block, event, opening, put, settle } from './fakes.js';

const gathered = (server) => server.clock.advance(30);

function setUp(t, url, options = {}, answers = undefined) {
  const server = new FakeServer(new FakeClock(), answers);
  put({ fetch: server.fetch });
  const source = new LiveEventSource(url, options);
  const heard = [];
  for (const type of ['open', 'error', 'message', 'created', 'livefeed-reset', 'note']) {
    source.addEventListener(type, (event) => heard.push([type, event.data, event.lastEventId].slice(0, event.data === undefined ? 1 : 3)));
  }
  t.after(() => source.close());
  return { server, source, heard };
}

const SITE = 'https://site.test';
const URL_AS_THE_TAG_WRITES_IT = `${SITE}/livefeed/?topic=a&topic=b~1~s&since=${at('a', 1)}.${at('b', 2)}&viewer=anna`;

test('topics, cursor and viewer are those of the URL, and its events are an EventSource’s', async (t) => {
  const { server, source, heard } = setUp(t, URL_AS_THE_TAG_WRITES_IT);
  const properties = [];
  source.onopen = (event) => properties.push(event.type);
  source.onmessage = ({ data, lastEventId, topic, origin }) => properties.push(data, lastEventId, topic, origin);
  assert.deepEqual([source.readyState, LiveEventSource.OPEN, source.CLOSED, source.withCredentials], [0, 1, 2, false]);
  assert.equal(source.url, URL_AS_THE_TAG_WRITES_IT);
  await gathered(server);
  assert.deepEqual(server.topics, [['a', 'b~1~s']]);
  assert.deepEqual(server.cursors, [`${at('a', 1)}.${at('b', 2)}`]);
  assert.deepEqual([...server.requests[0].url.searchParams.keys()], ['topic', 'topic', 'client']);
  await server.stream.send(opening(['a', 'b'], [at('a', 1), at('b', 2)], { viewer: 'anna' }));
  assert.deepEqual([source.readyState, source.state, heard], [1, 'open', [['open']]]);
  const cursor = `${at('a', 1)}.${at('b', 3)}`;
  await server.stream.send(`id: ${cursor}\ntopic: b\ndata: plain\n\n${event('a', { pk: 1 }, at('a', 2), at('b', 3))}`);
  assert.deepEqual(heard.slice(1), [['message', 'plain', cursor], ['created', '{"pk":1}', `${at('a', 2)}.${at('b', 3)}`]]);
  assert.deepEqual(properties, ['open', 'plain', cursor, 'b', SITE]);
  assert.equal(source.cursor, `${at('a', 2)}.${at('b', 3)}`);
});

test('a stream that is not for this viewer closes it', async (t) => {
  const { server, source, heard } = setUp(t, URL_AS_THE_TAG_WRITES_IT);
  await gathered(server);
  await server.stream.send(opening(['a', 'b'], [at('a', 1), at('b', 2)], { viewer: 'bert' }));
  assert.deepEqual([source.readyState, source.state, heard], [2, 'denied', [['error']]]);
});

test('a reset is an event', async (t) => {
  const { server, heard } = setUp(t, `${SITE}/livefeed/?topic=a&since=${at('a', 1)}`);
  await gathered(server);
  await server.stream.send(opening(['a'], [at('a', 1)], { head: [at('a', 9)] }));
  await server.stream.send(block('livefeed-reset', { topic: 'a', reason: 'trimmed', cursor: at('a', 9) }, at('a', 9)));
  const [type, data, id] = heard.at(-1);
  assert.deepEqual([type, JSON.parse(data), id], ['livefeed-reset', { topic: 'a', reason: 'trimmed', cursor: at('a', 9) }, at('a', 9)]);
});

test('an end is an error, and the source is connecting; states say more', async (t) => {
  const { server, source, heard } = setUp(t, `${SITE}/livefeed/?topic=a&viewer=carl`);
  const states = [];
  source.onstate = ({ detail }) => states.push(`${detail.state} ${detail.reason}`);
  await gathered(server);
  await server.stream.send(opening(['a'], [at('a', 1)]));
  await server.stream.end();
  assert.deepEqual([source.readyState, heard], [0, [['open'], ['error']]]);
  source.reconnect();
  await settle();
  assert.equal(server.requests.length, 2);
  await server.stream.send(opening(['a'], [at('a', 1)]));
  assert.deepEqual([source.readyState, heard.at(-1)], [1, ['open']]);
  assert.deepEqual(states, ['connecting start', 'open open', 'waiting end', 'connecting reconnect', 'open open']);
});

test('close is silent and for good, also from within a listener', async (t) => {
  const { server, source, heard } = setUp(t, `${SITE}/livefeed/?topic=a&viewer=dora`);
  await gathered(server);
  source.addEventListener('created', () => source.close());
  await server.stream.send(opening(['a'], [at('a', 1)]) + event('a', 2, at('a', 2)) + event('a', 3, at('a', 3)));
  assert.deepEqual(heard, [['open'], ['created', '2', at('a', 2)]]);
  assert.deepEqual([source.readyState, source.cursor], [2, at('a', 2)]);
  source.close();
  source.reconnect();
});

test('a listener’s mistake is told of, and the stream goes on', async (t) => {
  const errors = t.mock.method(console, 'error', () => {});
  const { server, source, heard } = setUp(t, `${SITE}/livefeed/?topic=a&viewer=emil`);
  source.onmessage = () => {
    throw new Error('mine');
  };
  await gathered(server);
  await server.stream.send(`${opening(['a'], [at('a', 1)])}id: ${at('a', 2)}\ndata: x\n\nid: ${at('a', 3)}\nevent: note\ndata: y\n\n`);
  assert.equal(errors.mock.callCount(), 1);
  assert.deepEqual(heard.at(-1), ['note', 'y', at('a', 3)]);
});

test('a server that is not livefeed is read with its own ids, by a connection of its own', async (t) => {
  const { server, source, heard } = setUp(t, `${SITE}/other`, { withCredentials: true, lastEventId: 'urn:1' });
  await gathered(server);
  assert.deepEqual([server.requests[0].credentials, server.cursors, server.requests[0].url.search], ['include', ['urn:1'], '']);
  assert.equal(source.readyState, 1);
  await server.stream.send('id: urn:2\ndata: x\n\nevent: note\ndata: y\n\n');
  assert.deepEqual(heard, [['open'], ['message', 'x', 'urn:2'], ['note', 'y', 'urn:2']]);
  assert.equal(source.cursor, 'urn:2');
});

test('204 closes it with an error, as a browser does', async (t) => {
  const { server, source, heard } = setUp(t, `${SITE}/other`, {}, [{ status: 204 }]);
  await gathered(server);
  assert.deepEqual([source.readyState, source.state, heard], [2, 'closed', [['error']]]);
});

test('headers of its own are sent, by a connection of its own', async (t) => {
  const headers = () => ({ Authorization: 'Bearer x' });
  const { server } = setUp(t, URL_AS_THE_TAG_WRITES_IT, { headers });
  await gathered(server);
  assert.equal(server.requests[0].headers.Authorization, 'Bearer x');
  assert.deepEqual(server.topics, [['a', 'b~1~s']]);
});
