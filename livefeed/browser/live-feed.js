import { backOff, isRefused } from './answers.js';
import { plainName } from './endpoint.js';
import { parseJSON } from './json.js';
import { LiveList } from './list.js';
import { warn } from './reporting.js';
import { follow } from './sharing.js';
import { fetchSnapshot } from './snapshot.js';
import { StatusLine } from './status.js';
import { sleep, within } from './waiting.js';

const RESET_PAUSE = 2000; // ms at most: a reset reaches everyone at once, the reloads should not
const SNAPSHOT_TIMEOUT = 30_000;
const TICK = 30_000;

/** `<live-feed>`: a list that follows its topic. The markup is rendered by the template tag. */
export class LiveFeedElement extends (globalThis.HTMLElement ?? class {}) {
  static observedAttributes = ['src', 'topic', 'credentials'];

  #list = new LiveList(this);
  #status = new StatusLine(this);
  #membership = null; // while subscribed
  #state = '';
  #halted = ''; // 'paused' or 'closed' by the page
  #source; // what the items are of
  #cursor; // the attribute as we know it: another value was brought by somebody else
  #stale = false; // the items need a snapshot
  #reloading = null;
  #missed = null; // events since the request for the snapshot
  #queue = [];
  #ticker = null;
  #changing = false;

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

  reconnect() {
    this.#membership?.reconnect();
  }

  connectedCallback() {
    whenParsed(() => this.#list.format());
    this.#ticker ??= setInterval(() => this.#list.format('relative'), TICK);
    this.#enter();
  }

  // Moving a node is a removal and an insertion: only who is still out afterwards has left.
  disconnectedCallback() {
    queueMicrotask(() => {
      if (this.isConnected) return;
      clearInterval(this.#ticker);
      this.#ticker = null;
      this.#leave();
    });
  }

  connectedMoveCallback() {}

  attributeChangedCallback(name, before, after) {
    if (!this.#ticker || before === after || this.#changing) return;
    this.#changing = true;
    queueMicrotask(() => this.#resubscribe()); // `topic` and `cursor` are set one after the other
  }

  #resubscribe() {
    this.#changing = false;
    this.#leave();
    this.#enter();
  }

  async #enter() {
    const { src, topic, credentials } = this.#address();
    if (this.#membership || this.#halted || !this.isConnected || !src || !topic) return;
    const moved = this.#source !== undefined && this.#source !== `${src} ${topic}`;
    this.#stale ||= moved && this.#given === this.#cursor;
    this.#source = `${src} ${topic}`;
    if (this.#stale && this.#list.node && !(await this.#reload(0))) return;
    this.#become({ state: 'connecting', reason: 'start', attempt: 0 });
    this.#join({ src, credentials }, topic);
  }

  #join(address, topic) {
    this.#cursor = this.#given;
    this.#membership = follow(address, {
      topic,
      cursor: this.#cursor,
      onevent: (event) => this.#receive(event),
      onreset: (reset) => this.#reset(reset),
      onstate: (change) => this.#become(change),
    });
  }

  #leave() {
    this.#reloading?.abort();
    if (!this.#membership) return;
    const cursor = this.#membership.leave();
    this.#membership = null;
    if (this.#given === this.#cursor) this.#remember(cursor);
  }

  #halt(state) {
    this.#halted = state;
    this.#leave();
    this.#become({ state, reason: 'user', attempt: 0 });
  }

  get #given() {
    return this.getAttribute('cursor') ?? '';
  }

  #address() {
    const attribute = (name) => this.getAttribute(name) ?? '';
    const credentials = attribute('credentials') || 'same-origin';
    return { src: attribute('src'), topic: attribute('topic'), limit: attribute('limit'), credentials };
  }

  #remember(cursor) {
    this.#cursor = cursor;
    this.setAttribute('cursor', cursor);
  }

  #become({ state, reason, attempt, retryIn, limit }) {
    if (state === 'connecting' && this.#state === state) return;
    if (isRefused(state)) this.#reloading?.abort();
    this.#state = state;
    this.setAttribute('state', state);
    this.#status.show(state);
    this.#emit('state', { state, reason, attempt, retryIn });
    if (state === 'limited') this.#emit('limit', { limit, retryIn });
  }

  #emit(name, detail, cancelable = false) {
    const reach = { bubbles: true, composed: true };
    return this.dispatchEvent(new CustomEvent(`livefeed:${name}`, { detail, cancelable, ...reach }));
  }

  // What one chunk brought is one batch.
  #receive(event) {
    if (this.#queue.push(event) === 1) queueMicrotask(() => this.#flush());
  }

  #flush() {
    const batch = this.#queue.splice(0);
    if (batch.length > 1) this.#list.busy();
    for (const event of batch) this.#handle(event);
  }

  #handle({ type, data: text, id, topic }) {
    const data = parseJSON(text, text);
    if (type === 'message') this.dispatchEvent(new MessageEvent('message', { data: text, lastEventId: id }));
    if (!this.#emit('message', { type, data, id, topic }, true)) return;
    this.#missed?.push([type, data]);
    this.#list.apply(type, data);
  }

  #reset({ reason }) {
    this.#emit('gap', { topic: plainName(this.#address().topic), reason });
    if (!this.#list.node) return;
    this.#stale = true;
    this.#reload(Math.random() * RESET_PAUSE);
  }

  /** Takes the items from a snapshot. Tries until it is there; false if it was called off. */
  async #reload(pause) {
    this.#reloading?.abort();
    const { signal } = (this.#reloading = new AbortController());
    for (let attempt = 0; ; attempt += 1) {
      await sleep(pause);
      if (signal.aborted) return false;
      this.#missed = [];
      const snapshot = await within(SNAPSHOT_TIMEOUT, fetchSnapshot(this.#address())).catch(warn);
      if (signal.aborted) return false;
      if (snapshot) return this.#adopt(snapshot);
      pause = backOff(1000, attempt, Math.random);
    }
  }

  // The stream went on meanwhile, and the snapshot holds all that it had brought when the snapshot was asked for. What
  // came since is applied again: by key, so that once more makes no difference.
  #adopt({ items, cursor }) {
    const missed = this.#missed;
    this.#missed = null;
    this.#stale = false;
    this.#list.busy();
    this.#list.adopt(items);
    for (const [type, data] of missed) this.#list.apply(type, data);
    this.#remember(cursor);
    return true;
  }
}

function whenParsed(callback) {
  if (document.readyState !== 'loading') callback();
  else document.addEventListener('DOMContentLoaded', callback, { once: true });
}
