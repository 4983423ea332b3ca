import { SHORTEST_WAIT, backOff, clamp, isRefused, judge } from './answers.js';
import { endpoint } from './endpoint.js';
import { parseJSON } from './json.js';
import { EventStreamParser } from './parser.js';
import { report } from './reporting.js';

const DEFAULT_RETRY = 3000; // until the server says otherwise
const LONGEST_NAMED_WAIT = 86_400_000;
const DEFAULT_KEEPALIVE = 15_000;
const SILENCE = 2.5; // keep-alives that may be missing before a connection counts as dead
const STEADY = 10_000; // open for so long: the next failure is the first again

const SYSTEM_CLOCK = {
  now: () => Date.now(),
  setTimeout: (callback, delay) => setTimeout(callback, delay),
  clearTimeout: (timer) => clearTimeout(timer),
};

const PAGE = Array.from(globalThis.crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join('');
let connections = 0;

/**
 * Opens an event stream and keeps it open: retried for ever, resumed from its cursor, shut while the page is hidden in
 * the back/forward cache (where Chromium would keep the socket for a minute, until the site's six are used up).
 *
 * @param {string | URL} url
 * @param {object} [options]
 * @param {string[]} [options.topics]
 * @param {string} [options.cursor]  where to begin; without it, now
 * @param {(refused: {status: number | null}) => object | Promise<object>} [options.headers]  asked before each request,
 *   and once more when its answer was 401 or 403 (`status`)
 * @param {RequestCredentials} [options.credentials]
 * @param {(event: {type: string, data: string, id: string, topic: string | null}) => void} [options.onevent]  every
 *   event, `livefeed-reset` among them: what was missed can't be replayed, read the state anew
 * @param {(change: {state: string, reason: string, attempt: number, retryIn?: number}) => void} [options.onstate]
 * @param {(open: object) => void} [options.onopen]  the server's `livefeed-open`
 * @param {AbortSignal} [options.signal]  closes the connection
 * @param {typeof fetch} [options.fetch]
 * @param {{now: Function, setTimeout: Function, clearTimeout: Function}} [options.clock]
 * @param {() => number} [options.random]
 * @returns {Connection} with `close()`, `pause()`, `resume()`, `reconnect()`, `state` and `cursor`
 */
export function connect(url, options = {}) {
  return new Connection(url, options);
}

class Connection {
  #url;
  #options;
  #clock;
  #random;
  #client = `${PAGE}-${++connections}`; // lets a reconnect take over its own lease, and only its own
  #topics;
  #cursor;
  #state = 'connecting';
  #attempt = 0; // failures in a row
  #retry = DEFAULT_RETRY;
  #keepalive = DEFAULT_KEEPALIVE;
  #openedAt = Infinity;
  #holds = new Set(); // why the stream stays shut: 'user', 'page'
  #run = null; // the AbortController of the request under way
  #timer = null; // until the next request
  #mayHurry = false; // false where the server named the time
  #watchdog = null;
  #farewell = null; // how the server ended the stream, if it said so
  #lifetime = new AbortController();

  constructor(url, options) {
    this.#url = new URL(url, globalThis.document?.baseURI);
    this.#options = options;
    this.#clock = options.clock ?? SYSTEM_CLOCK;
    this.#random = options.random ?? Math.random;
    this.#topics = options.topics ?? [];
    this.#cursor = options.cursor ?? '';
    options.signal?.addEventListener('abort', () => this.close(), { signal: this.#lifetime.signal });
    this.#followPage();
    queueMicrotask(() => (options.signal?.aborted ? this.close() : this.#start('start')));
  }

  get state() {
    return this.#state;
  }

  get cursor() {
    return this.#cursor;
  }

  /** Ends the stream for good. */
  close() {
    if (this.#lifetime.signal.aborted) return;
    this.#lifetime.abort();
    this.#stop();
    this.#become('closed', { reason: 'close' });
  }

  /** Shuts the stream until `resume()`, which goes on from the cursor. */
  pause() {
    this.#hold('user');
  }

  resume() {
    this.#release('user');
  }

  /** Connects anew at once, from every state but after `close()`. */
  reconnect() {
    this.#attempt = 0;
    this.#start('reconnect');
  }

  /** Connects anew with other topics; `cursor` covers them all. */
  rejoin(topics, cursor) {
    this.#topics = topics;
    this.#cursor = cursor;
    this.#start('topics');
  }

  #start(reason) {
    if (this.#lifetime.signal.aborted || this.#holds.size) return;
    this.#stop();
    this.#become('connecting', { reason });
    if (this.#state === 'connecting' && !this.#run) this.#open(); // the listener may have paused or closed
  }

  #stop() {
    const run = this.#run;
    this.#run = null;
    this.#clock.clearTimeout(this.#timer);
    this.#clock.clearTimeout(this.#watchdog);
    run?.abort();
  }

  #become(state, details) {
    if (state === 'open' && this.#state === 'open') return;
    this.#state = state;
    if (state === 'open') this.#openedAt = this.#clock.now();
    this.#tell('onstate', { state, attempt: this.#attempt, ...details });
  }

  #tell(listener, detail) {
    try {
      this.#options[listener]?.(detail);
    } catch (error) {
      report(error); // a listener's mistake is not the connection's
    }
  }

  // One request, from its headers to its end. It is raced against its abort, for what doesn't heed the signal.
  async #open() {
    const run = (this.#run = new AbortController());
    this.#farewell = null;
    this.#openedAt = Infinity;
    this.#keepalive = DEFAULT_KEEPALIVE;
    this.#watch(run);
    const ending = await Promise.race([this.#exchange(run.signal), aborted(run.signal)]).catch(() => ({
      reason: run.signal.aborted ? 'timeout' : 'network',
    }));
    if (this.#run === run) this.#finish(ending);
  }

  async #exchange(signal) {
    let response = await this.#request(signal, null);
    if ([401, 403].includes(response.status) && this.#options.headers) {
      response = await this.#request(signal, response.status);
    }
    return judge(response, this.#clock.now()) ?? this.#read(response.body.getReader(), signal);
  }

  async #request(signal, status) {
    const cursor = this.#cursor && { 'Last-Event-ID': this.#cursor };
    const headers = { ...(await this.#options.headers?.({ status })), ...cursor, Accept: 'text/event-stream' };
    signal.throwIfAborted();
    const { fetch = globalThis.fetch, credentials = 'same-origin' } = this.#options;
    const url = endpoint(this.#url, this.#topics, { client: this.#client });
    return fetch(url, { headers, credentials, cache: 'no-store', signal });
  }

  async #read(reader, signal) {
    const parser = this.#listen(signal);
    for (;;) {
      const { done, value } = await reader.read();
      if (done || signal.aborted) return { reason: 'end' };
      parser.push(value);
      if (signal.aborted) return { reason: 'end' };
      this.#cursor = parser.lastEventId;
      if (this.#farewell) return this.#farewell;
      this.#watch(this.#run);
    }
  }

  #listen(signal) {
    const parser = new EventStreamParser({
      lastEventId: this.#cursor,
      onRetry: (milliseconds) => (this.#retry = milliseconds),
      onComment: () => this.#become('open', { reason: 'open' }),
      onEvent: (event) => {
        this.#take(event, signal);
        if (this.#farewell) parser.end();
      },
    });
    signal.addEventListener('abort', () => parser.end());
    return parser;
  }

  #take({ type, data, lastEventId, topic }, signal) {
    this.#cursor = lastEventId;
    const own = type.startsWith('livefeed-');
    const detail = own ? parseJSON(data, {}) : null;
    if (type === 'livefeed-refused') this.#farewell = { ...detail, wait: this.#retry, state: 'limited' };
    if (type === 'livefeed-closing') this.#farewell = { reason: detail.reason };
    if (this.#farewell) return;
    if (type === 'livefeed-open') this.#welcome(detail);
    if (!own) this.#attempt = 0;
    if (!signal.aborted) this.#become('open', { reason: 'open' });
    const silent = own && type !== 'livefeed-reset';
    if (!silent && !signal.aborted) this.#tell('onevent', { type, data, id: lastEventId, topic });
  }

  #welcome(detail) {
    if (Number.isFinite(detail.keepalive)) this.#keepalive = detail.keepalive * 1000;
    this.#tell('onopen', detail);
  }

  #watch(run) {
    this.#clock.clearTimeout(this.#watchdog);
    if (this.#keepalive > 0) this.#watchdog = this.#clock.setTimeout(() => run.abort(), this.#keepalive * SILENCE);
  }

  #finish({ state = 'waiting', reason, wait, limit }) {
    this.#stop();
    if (['closed', 'denied', 'failed'].includes(state)) return this.#become(state, { reason });
    if (this.#clock.now() - this.#openedAt >= STEADY) this.#attempt = 0;
    const named = wait !== undefined;
    const retryIn = named
      ? clamp(wait, SHORTEST_WAIT, LONGEST_NAMED_WAIT) + this.#random() * 1000
      : backOff(this.#retry, this.#attempt, this.#random);
    this.#attempt += 1;
    this.#mayHurry = !named;
    this.#timer = this.#clock.setTimeout(() => this.#open(), retryIn);
    this.#become(state, { reason, retryIn, ...(limit !== undefined && { limit }) });
  }

  #hold(who) {
    if (this.#state === 'closed') return;
    const shut = this.#holds.size > 0;
    this.#holds.add(who);
    if (shut) return;
    this.#stop();
    this.#become('paused', { reason: who });
  }

  #release(who) {
    if (this.#holds.delete(who)) this.#start('resume');
  }

  #hurry() {
    if (!this.#mayHurry || this.#state !== 'waiting' || this.#run) return;
    this.#clock.clearTimeout(this.#timer);
    this.#timer = this.#clock.setTimeout(() => this.#open(), this.#random() * 1000);
  }

  #followPage() {
    const { document } = globalThis;
    const { signal } = this.#lifetime;
    const on = (target, type, listener) => target?.addEventListener?.(type, listener, { signal });
    on(globalThis, 'pagehide', () => this.#hold('page'));
    on(globalThis, 'pageshow', () => this.#release('page'));
    on(document, 'freeze', () => this.#hold('page'));
    on(document, 'resume', () => this.#release('page'));
    on(document, 'visibilitychange', () => document.hidden || this.#hurry());
    on(globalThis, 'online', () => (isRefused(this.#state) ? this.#start('online') : this.#hurry()));
  }
}

const aborted = (signal) =>
  new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason), { once: true }));
