/** What can be another one's in tests. */
export const SYSTEM_CLOCK = {
  now: () => Date.now(),
  setTimeout: (callback, delay) => setTimeout(callback, delay),
  clearTimeout: (timer) => clearTimeout(timer),
};

const LOOK = 5000;
const SLEPT = 10_000;

/**
 * Rings at a time of the wall clock. A timer alone stands still while the machine sleeps, and would ring as much later;
 * so this one looks every five seconds. `ring(slept)` is told whether the time had long passed.
 */
export class Alarm {
  #clock;
  #timer;
  #at;
  #ring = null;

  constructor(clock) {
    this.#clock = clock;
  }

  get isSet() {
    return this.#ring !== null;
  }

  set(delay, ring) {
    this.#at = this.#clock.now() + delay;
    this.#ring = ring;
    this.look();
  }

  clear() {
    this.#ring = null;
    this.#clock.clearTimeout(this.#timer);
  }

  look() {
    const ring = this.#ring;
    const left = this.#at - this.#clock.now();
    this.#clock.clearTimeout(this.#timer);
    if (ring && left > 0) this.#timer = this.#clock.setTimeout(() => this.look(), Math.min(left, LOOK));
    else if (ring) ring(left < -SLEPT, this.clear());
  }
}
