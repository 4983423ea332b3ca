import assert from 'node:assert/strict';
import { test } from 'node:test';

import { settings } from '../../livefeed/browser/settings.js';
import { newItems, textOf, timed } from '../../livefeed/browser/texts.js';

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
});

test('a page without texts, or with a language that is none, is spoken to in English', () => {
  assert.equal(newItems(element(), 3), '3 new items');
  assert.equal(newItems(element('en_US'), 1), '1 new item');
  assert.equal(textOf(element('en'), 'open'), '');
});

test('configure() gives texts to elements that have none', () => {
  settings.strings = { dismiss: 'Weg damit', open: 'Läuft' };
  assert.equal(textOf(element('de'), 'dismiss'), 'Weg damit');
  assert.equal(textOf(element('de', { open: 'Live' }), 'open'), 'Live');
  delete settings.strings;
});

test('the time until the next try is in the words of the language, and never in the past', () => {
  const at = Date.now() + 12_400;
  assert.equal(timed(element('en'), 'Next try #.', at), 'Next try in 12 seconds.');
  assert.equal(timed(element('de'), 'Nächster Versuch #.', at + 60_000), 'Nächster Versuch in 1 Minute.');
  assert.equal(timed(element('en'), 'Next try #.', 0), 'Next try now.');
  assert.equal(timed(element('en'), 'Paused', NaN), 'Paused');
});
