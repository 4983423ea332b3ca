import { backOff, isRefused } from './answers.js';
import { prepareToSay } from './announcer.js';
import { isCovered } from './cursors.js';
import { plainName } from './endpoint.js';
import { parseJSON } from './json.js';
import { format, isOf } from './rendering.js';
import { warn } from './reporting.js';
import { follow } from './sharing.js';
import { fetchSnapshot } from './snapshot.js';
import { StatusLine } from './status.js';
import { textOf } from './texts.js';

const FRAME = 16; // ms
const RESET_PAUSE = 2000; // ms at most: a reset reaches everyone at once, the reloads should not
const STOPPED = ['paused', 'denied', 'failed', 'closed'];
const ADDRESS = ['src', 'topic', 'credentials', 'viewer', 'share', 'transport', 'worker'];

/**
 * An element that follows a topic. What one is made of: `ready()` when its content is there, and when `value` changed;
 * `take(batch)` for events, `[{type, data}]`; `press(button)` for its buttons; and, where a gap can be closed,
 * `show`, the kind of snapshot that it asks for, and `adopt(root)`, which gets it.
 */
export class LiveElement extends (globalThis.HTMLElement ?? class {}) {
  static observedAttributes = [...ADDRESS, 'value'];

  #status = new StatusLine(this);
  #membership; // while subscribed
  #state = '';
  #halted = ''; // 'paused' or 'closed' by the page
  #source; // what the content is of
  #cursor; // how far the content reaches, and the attribute as we know it: another value was brought by somebody else
  #stale = false; // the content needs a snapshot
  #missed; // while one is under way: events since it was asked for
  #queue = [];
  #changing = false;

  constructor() {
    super();
    this.addEventListener?.('click', ({ target }) => {
      const button = target.closest('button');
      if (button && isOf(this, button)) this.#press(button);
    });
    this.addEventListener?.('animationend', ({ target }) => {
      delete target.dataset.liveAdded;
      delete this.dataset.liveChanged;
    });
  }

  get state() {
    return this.#state;
  }

  get cursor() {
    return this.#membership?.cursor ?? this.#given;
  }

  pause() {
    this.#halt('paused');
  }

  close() {
    this.#halt('closed');
  }

  /** Goes on after `pause()` or `close()`, from where it was. */
  resume() {
    this.#halted = '';
    this.#enter();
  }

  /** Connects anew at once, from every state. */
  reconnect() {
    if (this.#membership) this.#membership.reconnect();
    else this.resume();
  }

  /** The element inside that is this one's own, and not another live element's. */
  find(selector) {
    return [...this.querySelectorAll(selector)].find((element) => isOf(this, element));
  }

  connectedCallback() {
    if (document.readyState === 'loading') document.addEventListener('DOMContentLoaded', () => this.#begin());
    else this.#begin();
    this.#enter();
  }

  // Moving a node is a removal and an insertion: only who is still out afterwards has left.
  disconnectedCallback() {
    queueMicrotask(() => this.isConnected || this.#leave());
  }

  attributeChangedCallback(name, before, after) {
    if (before === after || this.#source === undefined) return;
    if (name === 'value') return this.ready?.();
    if (!this.#changing) queueMicrotask(() => this.#resubscribe()); // `topic` and `cursor` are set one after the other
    this.#changing = true;
  }

  #begin() {
    prepareToSay();
    format(this);
    this.#label();
    this.ready?.();
  }

  #press(button) {
    if (!('livePause' in button.dataset)) this.press?.(button);
    else if (this.#isStopped) this.reconnect();
    else this.pause();
  }

  get #isStopped() {
    return STOPPED.includes(this.#state);
  }

  #label() {
    const button = this.find('[data-live-pause]');
    if (!button) return;
    button.hidden = false;
    button.textContent = textOf(this, this.#isStopped ? 'resume' : 'pause');
  }

  #resubscribe() {
    this.#changing = false;
    this.#leave();
    this.#enter();
  }

  #enter() {
    const { topic, ...address } = Object.fromEntries(ADDRESS.map((name) => [name, this.getAttribute(name) ?? undefined]));
    if (this.#membership || this.#halted || !this.isConnected || !address.src || !topic) return;
    this.#move(`${address.src} ${topic}`);
    this.#become({ state: 'connecting', reason: 'start', attempt: 0 });
    this.#cursor = this.#given;
    this.#membership = follow(address, {
      topics: [topic],
      cursor: this.#cursor,
      onevent: (event) => this.#receive(event),
      onstate: (change) => this.#become(change),
    });
  }

  // Another topic is followed from now on, and its content read once that has begun; unless a cursor came with it.
  #move(source) {
    if (this.#source && this.#source !== source && this.#given === this.#cursor) {
      this.#stale = this.show;
      this.#remember('');
    }
    this.#source = source;
  }

  #leave() {
    this.#missed = null;
    this.#flush();
    this.#membership?.leave();
    if (this.#membership && this.#given === this.#cursor) this.#remember(this.#membership.cursor);
    this.#membership = null;
  }

  #halt(state) {
    this.#halted = state;
    this.#leave();
    this.#become({ state, reason: 'user', attempt: 0 });
  }

  get #given() {
    return this.getAttribute('cursor') ?? '';
  }

  #remember(cursor) {
    this.#cursor = cursor;
    this.setAttribute('cursor', cursor);
  }

  #become(change) {
    const { state, limit, retryIn } = change;
    if (state === 'connecting' && this.#state === state) return;
    if (isRefused(state)) this.#missed = null;
    this.#state = state;
    this.setAttribute('state', state);
    if (state !== 'paused' || this.#halted) this.#status.show(change); // else the page is, which nobody sees
    this.#label();
    this.#emit('state', change);
    if (state === 'limited') this.#emit('limit', { limit, retryIn });
    if (state === 'open' && this.#stale && !this.#missed) this.#refresh(0);
  }

  #emit(name, detail) {
    const options = { detail, bubbles: true, composed: true, cancelable: name === 'message' };
    return this.dispatchEvent(new CustomEvent(`livefeed:${name}`, options));
  }

  // What comes within a frame is written together.
  #receive({ type, data: text, id, topic, fleeting }) {
    const data = parseJSON(text, text);
    if (type === 'livefeed-reset') return this.#reset(data);
    if (type === 'message') this.dispatchEvent(new MessageEvent(type, { data: text, lastEventId: id }));
    if (!this.#emit('message', { type, data, id, topic })) return;
    if (this.#queue.push({ type, data, id: !fleeting && id }) === 1) setTimeout(() => this.#flush(), FRAME);
  }

  #flush() {
    const batch = this.#queue.splice(0).filter(({ id }) => !isCovered(id, this.#cursor));
    this.#missed?.push(...batch);
    if (batch.length) this.take(batch);
  }

  #reset({ reason }) {
    this.#emit('gap', { topic: plainName(this.getAttribute('topic')), reason });
    this.#stale = this.show;
    if (this.show) this.#refresh(Math.random() * RESET_PAUSE);
  }

  /** Takes the content from a snapshot. Tries until it is there, or is called off. */
  async #refresh(pause) {
    const missed = (this.#missed = []);
    for (let attempt = 0; ; attempt += 1) {
      await new Promise((resolve) => setTimeout(resolve, pause));
      if (this.#missed !== missed) return;
      missed.length = 0;
      const snapshot = await fetchSnapshot(this).catch(warn);
      if (this.#missed !== missed) return;
      if (snapshot) return this.#adopt(snapshot);
      pause = backOff(1000, attempt);
    }
  }

  // The stream went on meanwhile: what the snapshot doesn't hold yet is applied to it.
  #adopt({ root, cursor }) {
    this.#queue.unshift(...this.#missed);
    this.#stale = this.#missed = null;
    this.adopt(root);
    this.#remember(cursor);
    this.#flush();
  }
}
