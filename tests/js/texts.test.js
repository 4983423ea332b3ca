import assert from 'node:assert/strict';
import { test } from 'node:test';

import { newItems, textOf } from '../../livefeed/browser/texts.js';

/** What the texts need of an element: its attributes, and the language around it. */
function element(lang, texts = {}) {
  const attributes = Object.fromEntries(Object.entries(texts).map(([name, text]) => [`data-text-${name}`, text]));
  return { getAttribute: (name) => attributes[name] ?? null, closest: () => (lang ? { lang } : null) };
}

const ARABIC = {
  'new-zero': 'zero', 'new-one': 'one', 'new-two': 'two', 'new-few': 'few #', 'new-many': 'many #', 'new-other': 'other #',
};

test('Arabic has six forms, and each number gets its own', () => {
  const said = [0, 1, 2, 3, 11, 100].map((count) => newItems(element('ar-EG-u-nu-latn', ARABIC), count));
  assert.deepEqual(said, ['zero', 'one', 'two', 'few 3', 'many 11', 'other 100']);
});

test('a language without forms has the last one, and numbers are written as it writes them', () => {
  assert.equal(newItems(element('zh-hans', { 'new-other': '# 条新内容' }), 1), '1 条新内容');
  assert.equal(newItems(element('de', { 'new-one': 'eins', 'new-other': '# neue' }), 1234), '1.234 neue');
  assert.equal(newItems(element('en_US', { 'new-one': '# new item' }), 1), '1 new item'); // which Intl takes for no language
});

test('an element without texts says nothing', () => {
  assert.equal(textOf(element('en'), 'open'), '');
  assert.equal(newItems(element(), 3), '');
});
