import assert from 'node:assert/strict';
import { test } from 'node:test';

import { compare, entriesOf, isCovered, numbered, oldest } from '../../livefeed/browser/cursors.js';
import { at } from './fakes.js';

test('numbers of one epoch have an order, the longer one is the larger', () => {
  assert.ok(compare(at('a', 36), at('a', 35)) > 0);
  assert.ok(compare(at('a', 9), at('a', 10)) < 0);
  assert.ok(compare(at('a', 1295), at('a', 1296)) < 0);
  assert.equal(compare(at('a', 7), at('a', 7)), 0);
});

test('a topic before its first event is before everything, in any epoch', () => {
  assert.ok(compare('a___', at('a', 1)) < 0);
  assert.ok(compare(at('a', 1, 'other0'), 'a___') > 0);
});

test('two epochs have no order, nor has what is missing', () => {
  assert.ok(Number.isNaN(compare(at('a', 1), at('a', 2, 'other0'))));
  assert.ok(Number.isNaN(compare(undefined, at('a', 2))));
  assert.ok(Number.isNaN(compare(at('a', 2), undefined)));
});

test('a cursor is read by its marks; what can’t be an entry says nothing', () => {
  const cursor = `${at('a', 1)}.b___`;
  assert.deepEqual([...entriesOf(cursor)], [['a___', at('a', 1)], ['b___', 'b___']]);
  assert.deepEqual([...entriesOf(`garbage.${cursor}`)], [...entriesOf(cursor)]);
  assert.deepEqual([...entriesOf('')], []);
});

test('the oldest of several places is kept once for each epoch; a single cursor stays as it is', () => {
  const cursors = [`${at('a', 9)}.${at('b', 4)}`, at('a', 10), at('a', 3), at('b', 2, 'other0'), ''];
  assert.equal(oldest(cursors), [at('a', 3), at('b', 4), at('b', 2, 'other0')].join('.'));
  assert.equal(oldest(['urn:a.b.a']), 'urn:a.b.a');
  assert.equal(oldest([at('a', 1), 'a___', at('a', 2, 'other0'), at('b', 1)]), `a___.${at('b', 1)}`);
});

test('an entry is numbered in the epoch of another', () => {
  assert.equal(numbered(at('a', 5), 36), at('a', 36));
});

test('an event is covered by what was read at its place or behind it', () => {
  assert.equal(isCovered(`${at('a', 5)}.${at('b', 9)}`, at('a', 5)), true);
  assert.equal(isCovered(at('a', 6), at('a', 5)), false);
  assert.equal(isCovered(at('a', 1, 'other0'), at('a', 5)), false);
  assert.equal(isCovered(at('a', 1), ''), false);
});
