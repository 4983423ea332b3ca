import assert from 'node:assert/strict';
import { test } from 'node:test';

import { EventStreamParser } from '../../livefeed/browser/parser.js';

const encode = (text) => new TextEncoder().encode(text);

/** Everything the parser reports for bytes cut at the given places, in the order of reporting. */
function parse(bytes, cuts = [], { lastEventId } = {}) {
  const seen = [];
  const parser = new EventStreamParser({
    lastEventId,
    onEvent: ({ type, data, lastEventId: id, topic }) => seen.push([type, data, id, ...(topic === null ? [] : [topic])]),
    onRetry: (milliseconds) => seen.push(['retry', milliseconds]),
  });
  const edges = [0, ...cuts, bytes.length];
  edges.slice(1).forEach((edge, index) => parser.push(bytes.subarray(edges[index], edge)));
  parser.end();
  return { seen, id: parser.lastEventId };
}

// name, stream (text or bytes), what is reported, the id a reconnect sends, the id before the stream
const CASES = [
  ['one event', 'data: a\n\n', [['message', 'a', '']]],
  ['CRLF', 'data: a\r\n\r\ndata: b\r\n\r\n', [['message', 'a', ''], ['message', 'b', '']]],
  ['lone CR', 'data: a\r\rdata: b\r\r', [['message', 'a', ''], ['message', 'b', '']]],
  ['line ends mixed', 'data: a\r\n\ndata: b\n\rdata: c\r\r\n', [['message', 'a', ''], ['message', 'b', ''], ['message', 'c', '']]],
  ['LF CR is two ends', 'data: a\n\r', [['message', 'a', '']]],
  ['lines of data joined by LF', 'data: a\r\ndata: b\rdata: c\n\n', [['message', 'a\nb\nc', '']]],
  ['one space is dropped, not two', 'data:  a\ndata:b\ndata:\tc\n\n', [['message', ' a\nb\n\tc', '']]],
  ['empty data', 'data\n\ndata:\n\ndata: \n\n', [['message', '', ''], ['message', '', ''], ['message', '', '']]],
  ['two empty lines of data', 'data\ndata\n\n', [['message', '\n', '']]],
  ['a trailing empty line of data stays', 'data: a\ndata\n\n', [['message', 'a\n', '']]],
  ['colons in a value', 'data: a: b:c\n\n', [['message', 'a: b:c', '']]],
  ['only LF, CR and CRLF end lines', 'data: a\u2028b\u0085c\vd\fe\u2029f\n\n', [['message', 'a\u2028b\u0085c\vd\fe\u2029f', '']]],
  ['names are case-sensitive', 'Data: a\nDATA: b\n data: c\ndata : d\ndata: e\n\n', [['message', 'e', '']]],
  ['unknown fields are skipped', 'foo: 1\nbar\ndata: a\n\n', [['message', 'a', '']]],
  ['comments', ': hi\n:\n:x\ndata: a\n: mid\n\n', [['message', 'a', '']]],
  ['BOM', '\uFEFFdata: a\n\n', [['message', 'a', '']]],
  ['only one BOM', '\uFEFF\uFEFFdata: a\n\ndata: b\n\n', [['message', 'b', '']]],
  ['BOM only at the start', 'data: a\n\n\uFEFFdata: b\n\ndata: \uFEFFc\n\n', [['message', 'a', ''], ['message', '\uFEFFc', '']]],
  ['UTF-8', 'data: é€😀\n\n', [['message', 'é€😀', '']]],
  ['bytes that are no UTF-8', [...encode('data: a'), 0xff, 0xe2, 0x82, ...encode('b\n\n')], [['message', 'a\uFFFD\uFFFDb', '']]],
  ['event', 'event: created\ndata: a\n\ndata: b\n\n', [['created', 'a', ''], ['message', 'b', '']]],
  ['the last event wins, empty is message', 'event: x\nevent: y\ndata: a\n\nevent: x\nevent:\ndata: b\n\n', [['y', 'a', ''], ['message', 'b', '']]],
  ['a type without data is forgotten', 'event: x\n\ndata: a\n\n', [['message', 'a', '']]],
  ['id stays until the next', 'id: 1\ndata: a\n\ndata: b\n\nid: 2\ndata: c\n\n', [['message', 'a', '1'], ['message', 'b', '1'], ['message', 'c', '2']], '2'],
  ['a block without data commits its id', 'id: 7\n\n', [], '7'],
  ['an empty id resets', 'id: 1\ndata: a\n\nid\ndata: b\n\n', [['message', 'a', '1'], ['message', 'b', '']], ''],
  ['an id with NUL is ignored', 'id: 1\ndata: a\n\nid: 2\0\ndata: b\n\n', [['message', 'a', '1'], ['message', 'b', '1']], '1'],
  ['a NUL elsewhere is not', 'event: x\0\ndata: \0\n\n', [['x\0', '\0', '']]],
  ['the unfinished block is dropped, its id too', 'id: 1\ndata: a\n\nid: 2\ndata: b\n', [['message', 'a', '1']], '1'],
  ['the unfinished line is dropped', 'id: 1\ndata: a\n\nid: 2', [['message', 'a', '1']], '1'],
  ['retry counts at once', 'retry: 100\nretry: 007\ndata: a', [['retry', 100], ['retry', 7]]],
  ['retry takes digits only', 'retry\nretry:\nretry: -1\nretry: 1.5\nretry: 1e3\nretry: 0x10\nretry:  5\nretry: 5 \nretry: ٣\n\n', []],
  ['retry needs the end of its line', 'retry: 10', []],
  ['topic is for one block', 'topic: a.b\ndata: 1\n\ndata: 2\n\ntopic: c\n\ndata: 3\n\n', [['message', '1', '', 'a.b'], ['message', '2', ''], ['message', '3', '']]],
  ['the id before the stream', 'data: a\n\n', [['message', 'a', '41']], '41', '41'],
  ['no bytes', '', []],
  ['only blank lines', '\n\n\r\r\n\n', []],
  ['a livefeed stream', 'retry: 2500\nid: c0\nevent: livefeed-open\ndata: {"topics":["t"]}\n\n: keep-alive\n\nid: c1\nevent: created\ndata: {"pk":1}\n\n',
    [['retry', 2500], ['livefeed-open', '{"topics":["t"]}', 'c0'], ['created', '{"pk":1}', 'c1']], 'c1'],
];

for (const [name, stream, expected, id = '', lastEventId = ''] of CASES) {
  const bytes = typeof stream === 'string' ? encode(stream) : Uint8Array.from(stream);
  const right = { seen: expected, id };
  test(`${name}: whole, cut at every byte, byte by byte`, () => {
    assert.deepEqual(parse(bytes, [], { lastEventId }), right);
    for (let cut = 0; cut <= bytes.length; cut += 1) {
      assert.deepEqual(parse(bytes, [cut], { lastEventId }), right, `cut at ${cut}`);
    }
    assert.deepEqual(parse(bytes, [...bytes.keys()], { lastEventId }), right, 'byte by byte');
  });
}

test('an event is dispatched by a CR at the end of a chunk, without waiting for what follows', () => {
  const seen = [];
  const parser = new EventStreamParser({ onEvent: ({ data }) => seen.push(data) });
  parser.push(encode('data: a\r\r'));
  assert.deepEqual(seen, ['a']);
  parser.push(encode('\ndata: b\n\n'));
  assert.deepEqual(seen, ['a', 'b']);
});

test('a listener that ends the parser gets nothing more from the same chunk, and the id stays at its event', () => {
  const seen = [];
  const parser = new EventStreamParser({
    onEvent: ({ data }) => {
      seen.push(data);
      parser.end();
    },
  });
  parser.push(encode('id: 1\ndata: a\n\nid: 2\ndata: b\n\n'));
  parser.push(encode('id: 3\ndata: c\n\n'));
  assert.deepEqual(seen, ['a']);
  assert.equal(parser.lastEventId, '1');
});

test('a listener that is not given is not missed', () => {
  const parser = new EventStreamParser({ onEvent: () => assert.fail('no event was sent') });
  parser.push(encode(': c\nretry: 5\n\n'));
});
