import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Alarm } from '../../livefeed/browser/alarm.js';
import { FakeClock } from './fakes.js';

function setUp(delay) {
  const clock = new FakeClock();
  const rings = [];
  const alarm = new Alarm(clock);
  const start = clock.time;
  alarm.set(delay, (slept) => rings.push([clock.time - start, slept]));
  return { clock, alarm, rings };
}

test('an alarm rings once, at its time', async () => {
  const { clock, alarm, rings } = setUp(12_345);
  assert.equal(alarm.isSet, true);
  await clock.advance(60_000);
  assert.deepEqual(rings, [[12_345, false]]);
  assert.deepEqual([alarm.isSet, clock.timers.size], [false, 0]);
});

test('a machine that slept over it is told within five seconds of waking, and that it slept', async () => {
  const { clock, rings } = setUp(60_000);
  await clock.advance(1000);
  await clock.sleep(3_600_000);
  await clock.advance(5000);
  assert.deepEqual(rings, [[3_605_000, true]]);
});

test('who wakes up looks at once', async () => {
  const { clock, alarm, rings } = setUp(60_000);
  clock.time += 61_000;
  alarm.look();
  assert.deepEqual(rings, [[61_000, false]]);
});

test('an alarm that is cleared or set anew does not ring for what was before', async () => {
  const { clock, alarm, rings } = setUp(1000);
  alarm.clear();
  alarm.look();
  await clock.advance(10_000);
  assert.deepEqual(rings, []);
  alarm.set(1000, () => rings.push('second'));
  alarm.set(2000, () => rings.push('third'));
  await clock.advance(10_000);
  assert.deepEqual(rings, ['third']);
});
