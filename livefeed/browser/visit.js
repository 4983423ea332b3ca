import { SYSTEM_CLOCK } from './alarm.js';
import { settings } from './settings.js';
import { absolute, OWN_URL, trusted } from './trusted.js';

const PATIENCE = 2000; // ms for the worker's first word; after that the page has a connection of its own meanwhile
const PING = 20_000; // where there are no locks (an insecure origin)
const BATCH = 64; // messages; the worker counts what a page has not taken yet

/** This page's visit at the worker that all share: to a union as a connection is. worker.js has what is said. */
export const visit = (src, options) => new Visit(src, options);

/** A name for a lock that nobody else has. */
export const newLock = () => `livefeed:${crypto.getRandomValues(new Uint32Array(4)).join('-')}`;

class Visit {
  #src;
  #options;
  #clock;
  #works = true; // until it fails, or is too slow
  #stay = null; // an AbortController, from coming in to leaving
  #port = null;
  #isIn = false;
  #asked = 0;
  #taken = 0;
  #timer;
  #lifetime = new AbortController();

  constructor(src, options) {
    this.#src = src;
    this.#options = options;
    this.#clock = options.clock ?? SYSTEM_CLOCK;
    this.#followPage();
    queueMicrotask(() => this.#enter());
  }

  /** Says anew for which topics this page is here, and from where. */
  renew() {
    if (this.#isIn) this.#say({ join: ++this.#asked, ...this.#options.where() });
  }

  reconnect() {
    this.#say({ call: 'reconnect' });
  }

  hurry() {
    this.#say({ call: 'hurry' });
  }

  close() {
    this.#lifetime.abort();
    this.#leave();
  }

  #say(message) {
    this.#port?.postMessage(message);
  }

  #enter() {
    this.#leave();
    if (this.#lifetime.signal.aborted) return;
    this.#stay = new AbortController();
    try {
      this.#knock();
      this.#timer = this.#clock.setTimeout(() => this.#become(false), PATIENCE);
    } catch {
      this.#fail(); // Trusted Types forbid it, or the script is of another origin
    }
  }

  #knock() {
    const { viewer, worker } = this.#options;
    const own = settings.worker ? absolute(settings.worker) : OWN_URL;
    const url = worker ? absolute(worker) : trusted('createScriptURL', own); // what an attribute names is just text
    const options = { type: 'module', name: `livefeed:1:${viewer}`, extendedLifetime: true }; // over navigations, if it can be
    const shared = new SharedWorker(url, options);
    const { signal } = this.#stay;
    shared.onerror = () => this.#fail(); // a policy forbids it
    this.#port = shared.port;
    this.#port.onmessage = ({ data }) => signal.aborted || this.#hear(data);
    this.#introduce(signal);
  }

  // The worker waits for our lock, and has it when this page has died. Where there are no locks we say that we live.
  #introduce(signal) {
    const { credentials, viewer, transport } = this.#options;
    const hello = { src: this.#src, credentials, viewer, transport };
    const { locks } = navigator;
    if (!locks) {
      this.#say({ hello });
      return this.#ping(signal);
    }
    const lock = newLock();
    const hold = () => new Promise((release) => {
      signal.addEventListener('abort', release);
      this.#say({ hello, lock });
    });
    locks.request(lock, { signal }, hold).catch(() => {}); // left before
  }

  #ping(signal) {
    if (signal.aborted) return;
    this.#say({});
    this.#clock.setTimeout(() => this.#ping(signal), PING);
  }

  #leave() {
    this.#clock.clearTimeout(this.#timer);
    this.#isIn = false;
    this.#say({ bye: 1 });
    this.#port?.close();
    this.#port = null;
    this.#stay?.abort();
  }

  #fail() {
    this.close();
    this.#become(false);
  }

  #become(works) {
    if (this.#works !== works) this.#options.onwork((this.#works = works));
  }

  #hear({ call, detail, ask, hello, away, open }) {
    if (call) this.#pass(call, detail, open);
    else if (ask) this.#answer(ask, detail);
    else if (away) this.#enter(); // the worker had given us up: back from our places
    else this.#settle(hello);
  }

  #settle(lock) {
    this.#clock.clearTimeout(this.#timer);
    this.#isIn = true;
    if (this.#works) this.renew();
    this.#become(true);
    const { signal } = this.#stay;
    if (lock) navigator.locks?.request(lock, { signal, mode: 'shared' }, () => this.#enter()).catch(() => {}); // it has died
  }

  #pass(call, detail, open) {
    if (++this.#taken % BATCH === 0) this.#say({ taken: BATCH });
    this.#options[call](call === 'onopen' ? { ...detail, stale: open !== this.#asked } : detail);
  }

  async #answer(ask, refused) {
    try {
      this.#say({ answer: ask, headers: await this.#options.headers?.(refused) });
    } catch (error) {
      this.#say({ answer: ask, error: String(error) });
    }
  }

  #hide() {
    if (!this.#stay || this.#stay.signal.aborted) return;
    this.#leave();
    this.#options.onstate({ state: 'paused', reason: 'page', attempt: 0 });
  }

  #show() {
    if (this.#stay?.signal.aborted) this.#enter();
  }

  #followPage() {
    const { document } = globalThis;
    const { signal } = this.#lifetime;
    const on = (target, type, listener) => target?.addEventListener?.(type, listener, { signal });
    on(globalThis, 'pagehide', () => this.#hide());
    on(globalThis, 'pageshow', () => this.#show());
    on(document, 'freeze', () => this.#hide());
    on(document, 'resume', () => this.#show());
    on(document, 'visibilitychange', () => document.hidden || this.hurry());
  }
}
