import { write } from './rendering.js';

const PATIENCE = 1000; // ms a state other than open must last before it is written: blips are nobody's business
const TEXTS = { open: 'live', waiting: 'reconnecting', limited: 'reconnecting', denied: 'stopped', failed: 'stopped', paused: 'stopped', closed: 'stopped' };

export class StatusLine {
  #feed;
  #state;
  #timer = null;
  #lasting = false;

  constructor(feed) {
    this.#feed = feed;
  }

  show(state) {
    this.#state = state;
    if (state === 'open') {
      clearTimeout(this.#timer);
      this.#timer = null;
      this.#lasting = false;
      this.#write();
    } else if (this.#lasting) this.#write();
    else this.#timer ??= setTimeout(() => this.#last(), PATIENCE);
  }

  #last() {
    this.#lasting = true;
    this.#write();
  }

  #write() {
    const line = this.#feed.querySelector('[data-live-status]');
    if (!line) return;
    const { dataset } = this.#feed;
    const text = (name) => dataset[`text${name[0].toUpperCase()}${name.slice(1)}`];
    write(line, text(this.#state) ?? text(TEXTS[this.#state] ?? this.#state) ?? '');
    line.hidden = !line.textContent;
    if (!line.hasAttribute('role')) line.setAttribute('role', 'status'); // after the first: "Live" is no news at load
  }
}
