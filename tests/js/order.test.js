import assert from 'node:assert/strict';
import { test } from 'node:test';

import { compare, valuesOf } from '../../livefeed/browser/order.js';

const sorted = (order, rows) => rows.map((row) => JSON.stringify(row)).sort((a, b) => compare(order, a, b)).map((row) => JSON.parse(row));

test('numbers are ordered by size, and a minus descends', () => {
  assert.deepEqual(sorted('n', [[10], [9], [-1]]), [[-1], [9], [10]]);
  assert.deepEqual(sorted('-n', [[10], [9], [-1]]), [[10], [9], [-1]]);
});

test('the next field decides where the first is the same', () => {
  assert.deepEqual(sorted('-n pk', [[1, 2], [2, 4], [1, 1], [2, 3]]), [[2, 3], [2, 4], [1, 1], [1, 2]]);
});

test('times are ordered by time, with and without milliseconds and in any time zone', () => {
  const times = ['2026-01-01T10:00:00.5Z', '2026-01-01T10:00:00Z', '2026-01-01T12:00:00+03:00', '2026-01-01T10:00:01Z'];
  assert.deepEqual(sorted('at', times.map((at) => [at])).flat(), [times[2], times[1], times[0], times[3]]);
});

test('text is ordered by its characters, false before true, and nothing before everything', () => {
  assert.deepEqual(sorted('t', [['b'], ['a'], ['B'], [null]]).flat(), [null, 'B', 'a', 'b']);
  assert.deepEqual(sorted('-t', [[false], [null], [true]]).flat(), [true, false, null]);
});

test('data that lacks a field of the order has no place in it', () => {
  assert.equal(valuesOf('-at pk', { at: null, pk: 3, more: 1 }), '[null,3]');
  assert.equal(valuesOf('-at pk', { pk: 3 }), null);
  assert.equal(valuesOf(null, { pk: 3 }), null);
});
