import { say } from './announcer.js';
import { newItems } from './texts.js';

const APART = 5000; // ms between two summaries
const SOON = 500; // what comes together is said together
const FEW = 3; // items in that time that a log reads out by itself

/** Says how many items came: a log reads a few of them by itself, everything else is a number, now and then. */
export class Arrivals {
  #feed;
  #count = 0;
  #next = 0; // when something may be said again

  constructor(feed) {
    this.#feed = feed;
  }

  /** To be told before the items are written: of many, a log keeps silent. */
  add(count, list) {
    const few = list.getAttribute('role') === 'log' ? FEW : 0;
    if (count && !this.#count) setTimeout(() => this.#end(list, few), few ? APART : Math.max(SOON, this.#next - Date.now()));
    this.#count += count;
    if (few && this.#count > few) list.ariaLive = 'off';
  }

  #end(list, few) {
    if (this.#count > few) say(newItems(this.#feed, this.#count));
    if (few) list.ariaLive = null;
    this.#count = 0;
    this.#next = Date.now() + APART;
  }
}
