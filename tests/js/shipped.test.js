import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';

const SHIPPED = new URL('../../livefeed/static/livefeed/livefeed.js', import.meta.url);
const BUDGET = 10_000; // bytes over the network

test('the shipped script stays under 10 KB, gzipped', (t) => {
  const size = gzipSync(readFileSync(SHIPPED), { level: 9 }).length;
  t.diagnostic(`livefeed.js is ${size} bytes, gzipped`);
  assert.ok(size < BUDGET, `${size} bytes`);
});

test('the shipped script has neither imports nor a source map, which would break collectstatic', () => {
  const text = readFileSync(SHIPPED, 'utf8');
  assert.doesNotMatch(text, /\bimport\s*[{("']|sourceMappingURL/);
});

test('its types name what it exports, and nothing else', async () => {
  const types = readFileSync(new URL('./livefeed.d.ts', SHIPPED), 'utf8');
  const named = [...types.matchAll(/^export (?:class|function) (\w+)/gm)].map(([, name]) => name);
  assert.deepEqual(named.sort(), Object.keys(await import(SHIPPED)).sort());
});
