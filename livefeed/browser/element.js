import { prepareToSay } from './announcer.js';
import { backOff, isRefused } from './answers.js';
import { isCovered } from './cursors.js';
import { keepTime } from './formats.js';
import { parseJSON } from './json.js';
import { isOf } from './rendering.js';
import { warn } from './reporting.js';
import { follow } from './sharing.js';
import { fetchSnapshot } from './snapshot.js';
import { statusOf } from './status.js';
import { textOf } from './texts.js';

const FRAME = 16; // ms
const RESET_PAUSE = 2000; // ms at most: a reset reaches everyone at once, the reloads should not
const STOPPED = ['paused', 'denied', 'failed', 'closed'];
const ADDRESS = ['src', 'topic', 'credentials', 'viewer', 'share', 'transport', 'worker'];

/**
 * An element that follows a topic. Whatever happens to it, it is looked at right after. What one is made of: `take(batch)`
 * for events, `[{type, data}]`; `settle()`, which brings its content in line after them and after all else; `press(button)`;
 * and, where a gap can be closed, `show`, the kind of snapshot that it asks for, and `adopt(root)`, which gets it.
 */
export class LiveElement extends (globalThis.HTMLElement ?? Object) {
  static observedAttributes = [...ADDRESS, 'value'];

  #showStatus = statusOf(this);
  #membership; // while subscribed
  #address = ''; // where to
  #source; // what the content is of
  #paused = false;
  #stale; // the content needs a snapshot
  #missed; // while one is under way: events since it was asked for
  #queue = [];

  constructor() {
    super();
    this.addEventListener('click', ({ target }) => {
      const button = target.closest('button');
      if (button && isOf(this, button)) this.#press(button);
    });
  }

  get state() {
    return this.getAttribute('state') ?? '';
  }

  get cursor() {
    return this.#membership?.cursor ?? this.getAttribute('cursor') ?? '';
  }

  pause() {
    this.#paused = true;
    this.#become({ state: 'paused', reason: 'user', attempt: 0 });
  }

  /** Goes on after `pause()`, from where it was. */
  resume() {
    this.#paused = false;
    this.#changed();
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
    this.#changed();
  }

  disconnectedCallback() {
    this.#changed();
  }

  attributeChangedCallback() {
    this.#changed();
  }

  // Moving a node is a removal and an insertion, and attributes are set one after the other: what came of it is looked at.
  #changed() {
    queueMicrotask(() => this.#look());
  }

  #look() {
    prepareToSay();
    this.#label();
    this.settle?.();
    keepTime();
    const address = Object.fromEntries(ADDRESS.map((name) => [name, this.getAttribute(name) ?? undefined]));
    const { src, topic } = address;
    const wanted = this.isConnected && !this.#paused && src && topic ? JSON.stringify(address) : '';
    if (wanted === this.#address) return;
    this.#leave();
    this.#address = wanted;
    if (wanted) this.#enter(address, src + topic);
  }

  // Another topic is followed from now on, and its content read once that has begun.
  #enter(address, source) {
    if (this.#source && this.#source !== source) {
      this.#stale = this.show;
      this.setAttribute('cursor', '');
    }
    this.#source = source;
    this.#membership = follow(address, {
      topics: [address.topic],
      cursor: this.cursor,
      onevent: (event) => this.#receive(event),
      onstate: (change) => this.#become(change),
    });
  }

  #leave() {
    this.#missed = null;
    this.#flush();
    this.#membership?.leave();
    if (this.#membership) this.setAttribute('cursor', this.#membership.cursor);
    this.#membership = null;
  }

  #press(button) {
    if (!('livePause' in button.dataset)) this.press?.(button);
    else if (STOPPED.includes(this.state)) this.reconnect();
    else this.pause();
    this.#changed();
  }

  #become(change) {
    const { state } = change;
    if (isRefused(state)) this.#missed = null;
    this.setAttribute('state', state);
    if (change.reason !== 'page') this.#showStatus(state); // else the page is away, which nobody sees
    this.#changed();
    this.#emit('state', change);
    if (state === 'limited') this.#emit('limit', change);
    if (state === 'open' && this.#stale && !this.#missed) this.#refresh(0);
  }

  #label() {
    const button = this.find('[data-live-pause]');
    if (!button) return;
    button.hidden = false;
    button.textContent = textOf(this, STOPPED.includes(this.state) ? 'resume' : 'pause');
  }

  #emit(name, detail) {
    return this.dispatchEvent(new CustomEvent(`livefeed:${name}`, { detail, bubbles: true, composed: true, cancelable: true }));
  }

  // What comes within a frame is written together.
  #receive(event) {
    const { type, data, id } = event;
    const detail = { ...event, data: parseJSON(data, data) };
    if (type === 'livefeed-reset') return this.#reset(detail.data);
    if (type === 'message') this.dispatchEvent(new MessageEvent(type, { data, lastEventId: id }));
    if (this.#emit('message', detail) && this.#queue.push(detail) === 1) setTimeout(() => this.#flush(), FRAME);
  }

  #flush() {
    const reached = this.getAttribute('cursor') ?? '';
    const batch = this.#queue.splice(0).filter(({ id, fleeting }) => fleeting || !isCovered(id, reached));
    this.#missed?.push(...batch);
    if (!batch.length) return;
    this.take(batch);
    this.#changed();
  }

  #reset(reset) {
    this.#emit('gap', reset);
    this.#stale = this.show;
    if (this.show) this.#refresh(Math.random() * RESET_PAUSE);
  }

  /** Takes the content from a snapshot. Tries until it is there, or is called off. */
  async #refresh(pause, attempt = 0) {
    const missed = (this.#missed = []);
    await new Promise((resolve) => setTimeout(resolve, pause));
    const snapshot = this.#missed === missed && (await fetchSnapshot(this).catch(warn));
    if (this.#missed !== missed) return;
    if (snapshot) this.#adopt(snapshot);
    else this.#refresh(backOff(1000, attempt), attempt + 1);
  }

  // The stream went on meanwhile: what the snapshot doesn't hold yet is applied to it.
  #adopt(root) {
    this.#queue.unshift(...this.#missed);
    this.#stale = this.#missed = null;
    this.adopt(root);
    this.#changed();
    this.setAttribute('cursor', root.dataset.cursor ?? '');
    this.#flush();
  }
}
