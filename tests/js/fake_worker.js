/** A browser with pages and a shared worker, as far as the two ends of sharing see it: ports, locks, `SharedWorker`. */

import { newHub } from '../../livefeed/browser/sharing.js';
import { serve } from '../../livefeed/browser/worker.js';
import { FakeClock, FakeServer, put, settle } from './fakes.js';

/** A message port; what comes before somebody listens waits. */
class FakePort {
  other;
  closed = false;
  #listener = null;
  #waiting = [];

  /** `enter()`: from now on its owner runs. */
  constructor(enter) {
    this.enter = enter;
  }

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
    this.enter();
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
  owner = ''; // who asks

  request = (name, { signal }, callback) =>
    new Promise((resolve, reject) => {
      const request = { name, owner: this.owner, callback, resolve };
      const leave = () => {
        this.waiting = this.waiting.filter((other) => other !== request);
        reject(signal.reason);
      };
      if (signal.aborted) return leave();
      signal.addEventListener('abort', leave);
      this.waiting.push(request);
      queueMicrotask(() => this.#grant());
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
  locks = new FakeLocks();
  pages = [];

  constructor(t, { answers } = {}) {
    this.server = new FakeServer(this.clock, answers);
    put({ fetch: this.server.fetch, random: () => 0.5 });
    this.#put(t, 'SharedWorker', this.#sharedWorker());
    this.#put(t, 'navigator', { locks: this.locks });
    t.after(() => this.pages.forEach((page) => page.members.forEach((member) => member.leave())));
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
      const { owner } = browser.locks;
      const port = new FakePort(() => (browser.locks.owner = owner));
      const theirs = new FakePort(() => (browser.locks.owner = options.name));
      [port.other, theirs.other, this.port] = [theirs, port, port];
      browser.ports.push(port);
      const arrive = () => browser.#connect(options.name, theirs);
      if (browser.trouble === 'errors') queueMicrotask(() => this.onerror(new Event('error')));
      else if (browser.trouble === 'silent') browser.late = arrive;
      else queueMicrotask(arrive);
    };
  }

  #connect(name, port) {
    port.enter();
    if (!this.workers.has(name)) {
      const scope = { name };
      serve(scope);
      this.workers.set(name, scope);
    }
    this.workers.get(name).onconnect({ ports: [port] });
  }

  /** The process of a worker ends. */
  killWorker(name) {
    this.workers.delete(name);
    for (const port of this.ports.splice(0)) port.closed = port.other.closed = true;
    this.locks.kill(name);
  }

  /** A page with a hub of its own, whose window and document are events' targets in the test's hand. */
  page({ viewer = 'anna', url = 'https://site.test/livefeed/', headers = () => undefined } = {}) {
    const page = { name: `page ${this.pages.length}`, window: new EventTarget(), document: new EventTarget(), headers, members: [] };
    this.pages.push(page);
    this.enter(page);
    page.hub = newHub({ url, viewer }, (refused) => page.headers(refused), true, undefined, () => {});
    page.add = (topics, cursor = '') => {
      const member = { topics: [topics].flat(), cursor, seen: [], resets: [], states: [] };
      member.onevent = ({ type, data }) => (type === 'livefeed-reset' ? member.resets : member.seen).push(JSON.parse(data));
      member.onstate = ({ state, reason }) => member.states.push(`${state} ${reason}`);
      page.members.push(member);
      this.enter(page);
      return page.hub.join(member);
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
    this.locks.owner = page.name;
  }

  /** Lets the elements of a page gather, and all that follows happen. */
  async gather() {
    globalThis.document = globalThis.addEventListener = undefined; // a worker has no page's events
    await this.clock.advance(30);
  }

  /** The process of a page ends, without a word. */
  async kill(page) {
    this.pages = this.pages.filter((other) => other !== page);
    this.locks.kill(page.name);
    await settle();
  }
}
