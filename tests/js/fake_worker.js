/** A browser with pages and a shared worker, as far as the two ends of sharing see it: ports, locks, `SharedWorker`. */

import { Membership } from '../../livefeed/browser/membership.js';
import { Union } from '../../livefeed/browser/union.js';
import { serve } from '../../livefeed/browser/worker.js';
import { FakeClock, FakeServer, settle } from './fakes.js';

/** A message port; what comes before somebody listens waits. */
class FakePort {
  other;
  closed = false;
  #listener = null;
  #waiting = [];

  set onmessage(listener) {
    this.#listener = listener;
    for (const message of this.#waiting.splice(0)) listener(message);
  }

  get onmessage() {
    return this.#listener;
  }

  postMessage(data) {
    const message = { data: structuredClone(data) };
    if (!this.closed) queueMicrotask(() => this.other.#take(message));
  }

  #take(message) {
    if (this.closed) return;
    if (this.#listener) this.#listener(message);
    else this.#waiting.push(message);
  }

  close() {
    this.closed = true;
  }
}

/** Web Locks: who asks waits until the holder lets go, or dies. */
class FakeLocks {
  held = new Map(); // name -> {owner, release}
  waiting = []; // {name, owner, callback}

  as = (owner) => ({
    request: (name, ...rest) => {
      const callback = rest.pop();
      const { signal } = rest[0] ?? {};
      return new Promise((resolve, reject) => {
        const request = { name, owner, callback, resolve };
        const leave = () => {
          this.waiting = this.waiting.filter((other) => other !== request);
          reject(signal.reason);
        };
        if (signal?.aborted) return leave();
        signal?.addEventListener('abort', leave);
        this.waiting.push(request);
        queueMicrotask(() => this.#grant());
      });
    },
  });

  #grant() {
    for (const request of this.waiting) {
      if (this.held.has(request.name)) continue;
      this.waiting = this.waiting.filter((other) => other !== request);
      this.held.set(request.name, request.owner);
      const release = () => this.held.get(request.name) === request.owner && this.held.delete(request.name) && this.#grant();
      Promise.resolve(request.callback()).then(release);
    }
  }

  kill(owner) {
    for (const [name, holder] of this.held) if (holder === owner) this.held.delete(name);
    this.waiting = this.waiting.filter((request) => request.owner !== owner);
    this.#grant();
  }
}

export class FakeBrowser {
  clock = new FakeClock();
  workers = new Map(); // name -> scope
  ports = [];
  trouble = ''; // "throws", "errors", "silent"
  hasLocks = true;
  locks = new FakeLocks();
  pages = [];

  constructor(t, { answers } = {}) {
    this.server = new FakeServer(this.clock, answers);
    this.#put(t, 'fetch', this.server.fetch);
    this.#put(t, 'SharedWorker', this.#sharedWorker());
    t.after(() => this.pages.forEach((page) => page.union.call('close')));
  }

  #put(t, name, value) {
    const before = Object.getOwnPropertyDescriptor(globalThis, name);
    Object.defineProperty(globalThis, name, { value, configurable: true, writable: true });
    t.after(() => (before ? Object.defineProperty(globalThis, name, before) : delete globalThis[name]));
  }

  #sharedWorker() {
    const browser = this;
    return function SharedWorker(url, options) {
      if (browser.trouble === 'throws') throw new TypeError('This requires a TrustedScriptURL.');
      Object.assign(browser, { url, options });
      const [port, theirs] = [new FakePort(), new FakePort()];
      [port.other, theirs.other, this.port] = [theirs, port, port];
      browser.ports.push(port);
      if (browser.trouble === 'errors') queueMicrotask(() => this.onerror(new Event('error')));
      else if (browser.trouble === 'silent') browser.late = () => browser.#scope(options.name).onconnect({ ports: [theirs] });
      else queueMicrotask(() => browser.#scope(options.name).onconnect({ ports: [theirs] }));
    };
  }

  #scope(name) {
    if (!this.workers.has(name)) {
      const scope = { navigator: { locks: this.hasLocks ? this.locks.as(`worker ${name}`) : undefined } };
      serve(scope, this.clock);
      this.workers.set(name, scope);
    }
    return this.workers.get(name);
  }

  /** The process of a worker ends. */
  killWorker(name) {
    this.workers.get(name).onconnect = null;
    this.workers.delete(name);
    for (const port of this.ports.splice(0)) port.closed = port.other.closed = true;
    this.locks.kill(`worker ${name}`);
  }

  /** A page with a union of its own, whose window and document are events' targets in the test's hand. */
  page({ viewer = 'anna', src = 'https://site.test/livefeed/', headers = () => undefined } = {}) {
    const page = { name: `page ${this.pages.length}`, window: new EventTarget(), document: new EventTarget(), headers };
    this.pages.push(page);
    this.enter(page);
    const options = { src, credentials: 'same-origin', viewer, transport: 'fetch' };
    const asked = (refused) => page.headers(refused);
    page.union = new Union({ ...options, headers: asked, clock: this.clock, random: () => 0.5, mayShare: () => true });
    page.add = (topic, cursor = '') => {
      const member = { topic, cursor, seen: [], resets: [], states: [] };
      member.onevent = ({ data }) => member.seen.push(JSON.parse(data));
      member.onreset = (reset) => member.resets.push(reset);
      member.onstate = ({ state, reason }) => member.states.push(`${state} ${reason}`);
      page.union.add((member.membership = new Membership(member)));
      return member;
    };
    page.say = (type, target = page.window) => {
      this.enter(page);
      target.dispatchEvent(new Event(type));
    };
    return page;
  }

  /** What runs now runs in this page. */
  enter(page) {
    globalThis.document = page.document;
    globalThis.addEventListener = (...listener) => page.window.addEventListener(...listener);
    const locks = this.hasLocks ? this.locks.as(page.name) : undefined;
    Object.defineProperty(globalThis, 'navigator', { value: { locks }, configurable: true });
  }

  /** Lets the elements of a page gather, and all that follows happen. */
  async gather(page) {
    this.enter(page);
    await this.clock.advance(30);
    globalThis.document = globalThis.addEventListener = undefined; // a worker has no page's events
    await this.clock.advance(30); // what the worker's union gathers
  }

  /** The process of a page ends, without a word. */
  async kill(page) {
    this.pages = this.pages.filter((other) => other !== page);
    this.locks.kill(page.name);
    await settle();
  }
}
