import assert from 'node:assert/strict';
import { test } from 'node:test';

import { formatted } from '../../livefeed/browser/formats.js';
import { languageOf } from '../../livefeed/browser/language.js';

/** What formats need of an element. */
function element(format, { lang = 'de', text = '', ...attributes } = {}) {
  const dataset = { format };
  return { dataset, textContent: text, getAttribute: (name) => attributes[name] ?? null, closest: () => ({ lang }) };
}

const shown = (...from) => {
  const made = element(...from);
  return formatted(made, languageOf(made))?.replaceAll(/[\u00a0\u202f]/g, ' ');
};

test('numbers, shares and money are written in the language of the page', () => {
  assert.equal(shown('number', { text: ' 1234.5 ' }), '1.234,5');
  assert.equal(shown('number', { text: '1234.5', lang: 'en' }), '1,234.5');
  assert.equal(shown('percent', { value: '0.256' }), '25,6 %');
  assert.equal(shown('currency:EUR', { value: '9.5' }), '9,50 €');
  assert.equal(shown('currency:JPY', { value: '950', lang: 'en' }), '¥950');
});

test('a bare date has no time zone, and a distance has the largest unit that fits', () => {
  assert.equal(shown('date', { datetime: '2030-03-04' }), '04.03.2030');
  const at = (seconds) => new Date(Date.now() + seconds * 1000).toISOString();
  for (const [seconds, text] of [[-5400, '1 hour ago'], [86_400 * 3 + 60, 'in 3 days'], [0, 'now'], [86_400 * -15, '2 weeks ago']]) {
    assert.equal(shown('relative', { datetime: at(seconds), lang: 'en' }), text);
  }
});

test('what is no number, no time, no known format and no currency stays as it is', () => {
  for (const [format, text] of [['number', '12,5'], ['number', ' '], ['date', 'soon'], ['shout', '5'], [undefined, '5'], ['currency', '5']]) {
    assert.ok(!shown(format, { text }), `${format} of ${text}`);
  }
});

test('what was formatted once is formatted again from its value, not from its text', () => {
  const price = element('number', { text: '1234.5' });
  price.textContent = formatted(price, languageOf(price));
  assert.equal(price.dataset.value, '1234.5');
  assert.equal(formatted(price, languageOf(price)), '1.234,5');
  assert.equal(formatted(price, languageOf(price), '7'), '7');
  assert.equal(price.dataset.value, '7');
});
