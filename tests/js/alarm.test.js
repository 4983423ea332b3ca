import assert from 'node:assert/strict';
import { test } from 'node:test';

import { newAlarm } from '../../livefeed/browser/alarm.js';
import { FakeClock } from './fakes.js';

function setUp(delay) {
  const clock = new FakeClock();
  const rings = [];
  const alarm = newAlarm();
  const start = clock.time;
  alarm.set(delay, () => rings.push(clock.time - start));
  return { clock, alarm, rings };
}

test('an alarm rings once, at its time', async () => {
  const { clock, rings } = setUp(12_345);
  await clock.advance(60_000);
  assert.deepEqual([rings, clock.timers.size], [[12_345], 0]);
});

test('where the machine slept over its time it rings within five seconds of waking', async () => {
  const { clock, rings } = setUp(60_000);
  await clock.advance(1000);
  await clock.sleep(3_600_000);
  await clock.advance(5000);
  assert.deepEqual(rings, [3_605_000]);
});

test('an alarm that is cleared or set anew does not ring for what was before', async () => {
  const { clock, alarm, rings } = setUp(1000);
  alarm.clear();
  await clock.advance(10_000);
  assert.deepEqual(rings, []);
  alarm.set(1000, () => rings.push('second'));
  alarm.set(2000, () => rings.push('third'));
  await clock.advance(10_000);
  assert.deepEqual(rings, ['third']);
});
