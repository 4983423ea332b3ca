import { say } from './announcer.js';
import { write } from './rendering.js';
import { textOf, timed } from './texts.js';

const LASTS = 1000; // ms a state must last to be written: blips are nobody's business
const NEWS = 5000; // ms it must last to be said
const TICK = 1000;
const PASSING = ['connecting', 'catching-up', 'waiting']; // from one to the next is no news

/** The line `[data-live-status]`: how the connection is, in words, with the time until the next try. */
export class StatusLine {
  #element;
  #change;
  #timer;
  #since = 0; // when it was open last; 0 while it is
  #said = 0; // of what kind it was

  constructor(element) {
    this.#element = element;
  }

  show(change) {
    this.#change = change;
    this.#since = change.state === 'open' ? 0 : this.#since || Date.now();
    this.#look();
  }

  #look() {
    clearTimeout(this.#timer);
    const line = this.#element.find('[data-live-status]');
    if (!line?.isConnected) return;
    const { state, at } = this.#change;
    const passing = PASSING.includes(state);
    const news = this.#since && (passing ? 'waiting' : state);
    const age = this.#since ? Date.now() - this.#since : NEWS;
    if (!passing || age >= LASTS) {
      write(line, timed(this.#element, textOf(this.#element, state), at));
      line.hidden = !line.textContent;
    }
    if (age >= NEWS && news !== this.#said) say(line.textContent, (this.#said = news));
    if (news && (passing || age < NEWS || state === 'limited')) this.#timer = setTimeout(() => this.#look(), TICK);
  }
}
