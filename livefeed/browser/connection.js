import { Alarm, SYSTEM_CLOCK } from './alarm.js';
import { SHORTEST_WAIT, backOff, clamp, isRefused } from './answers.js';
import { reaches } from './cursors.js';
import { listen } from './native.js';
import { readPages } from './polling.js';
import { report } from './reporting.js';
import { readStream } from './stream.js';
import { visit } from './visit.js';

const DEFAULT_RETRY = 3000; // until the server says otherwise
const LONGEST_NAMED_WAIT = 86_400_000;
const STEADY = 10_000; // open for so long: the next failure is the first again
const MINUTE = 60_000;
const SOURCES = { fetch: readStream, native: listen, pages: readPages, worker: visit };

const PAGE = Array.from(globalThis.crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join('');
let connections = 0;

/**
 * Opens an event stream and keeps it open: retried for ever, resumed from its cursor, shut while the page is hidden in
 * the back/forward cache (where Chromium would keep the socket for a minute, until the site's six are used up).
 * livefeed.d.ts has its options.
 */
export function connect(url, options = {}) {
  return new Connection(url, options);
}

/**
 * The state machine over at most two sources of events (requests for a stream, or pages): the current one, and the next,
 * which takes its place when it has opened, and not before.
 */
class Connection {
  #url;
  #options;
  #clock;
  #random;
  #client = `${PAGE}-${++connections}`; // lets a request take over the place of the one before, and only that
  #cursor;
  #state = 'connecting';
  #current = null;
  #next = null;
  #attempt = 0; // failures in a row
  #tries = 0; // for a stream, while pages are read
  #retry = DEFAULT_RETRY;
  #openedAt = Infinity;
  #head = ''; // where the topics stood when the stream opened
  #shares; // whether it is the worker's, while that works
  #patient; // whether a stream is open without a first byte
  #holds = new Set(); // why the stream stays shut: 'user', 'page'
  #alarm; // until the next request
  #mayHurry = false; // false where the server named the time
  #lifetime = new AbortController();

  constructor(url, options) {
    this.#url = new URL(url, globalThis.document?.baseURI);
    this.#options = options;
    this.#clock = options.clock ?? SYSTEM_CLOCK;
    this.#random = options.random ?? Math.random;
    this.#alarm = new Alarm(this.#clock);
    this.#cursor = options.cursor ?? '';
    // Who names no topic talks to a server that isn't ours: it has no pages, and need not say anything at once.
    this.#patient = !options.where && !options.topics?.length && !this.#url.searchParams.has('topic');
    this.#shares = options.mayShare?.();
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

  /** Connects anew at once, from every state but paused and closed. */
  reconnect() {
    if (this.#ask('reconnect')) return;
    this.#attempt = 0;
    this.#start('reconnect');
  }

  /** Asks anew where to begin, by a request that replaces the present one when it has opened. */
  renew() {
    if (this.#ask('renew')) return;
    if (this.#current) this.#open(this.#current.kind === 'pages' ? 'pages' : this.#transport);
    else if (this.#next || isRefused(this.#state)) this.#start('topics');
  }

  // The worker's connection does it, where that is ours.
  #ask(call) {
    this.#next?.call?.(call);
    return this.#next?.call;
  }

  get #transport() {
    if (this.#shares) return 'worker';
    return this.#options.transport === 'native' ? 'native' : 'fetch';
  }

  #start(reason) {
    if (this.#lifetime.signal.aborted || this.#holds.size) return;
    this.#stop();
    this.#become('connecting', { reason });
    if (this.#state === 'connecting' && !this.#next) this.#open(this.#transport); // the listener may have paused or closed
  }

  #stop() {
    this.#alarm.clear();
    drop(this.#current);
    drop(this.#next);
    this.#current = this.#next = null;
  }

  #open(kind) {
    this.#alarm.clear();
    drop(this.#next);
    const run = new AbortController();
    const alarm = new Alarm(this.#clock);
    const source = (this.#next = { kind, run, alarm });
    run.signal.addEventListener('abort', () => alarm.clear());
    // Raced against its abort, for what doesn't heed the signal.
    Promise.race([SOURCES[kind](this.#request(alarm), this.#listener(source), run, source), aborted(run.signal)])
      .catch(() => (run.signal.aborted ? run.signal.reason : { reason: 'network' }))
      .then((ending) => this.#ended(source, ending));
  }

  #request(alarm) {
    const { fetch = globalThis.fetch, credentials = 'same-origin', topics = [], where } = this.#options;
    const [patient, client] = [this.#patient, this.#patient ? '' : this.#client];
    const at = { topics, cursor: this.#cursor, ...where?.(), url: this.#url };
    return { ...this.#options, ...at, fetch, credentials, client, patient, alarm, clock: this.#clock, random: this.#random };
  }

  // What a source says. One that was dropped says nothing any more.
  #listener(source) {
    const { signal } = source.run;
    const alive = (listener) => (detail) => !signal.aborted && listener(detail);
    return {
      retry: (milliseconds = this.#retry) => (this.#retry = milliseconds),
      opened: alive((detail) => this.#opened(source, detail)),
      moved: alive((id) => this.#moved(source, id)),
      event: alive((event) => this.#event(source, event)),
      pass: (call, detail) => this.#pass(call, detail),
    };
  }

  #opened(source, detail) {
    const { viewer } = this.#options;
    if (viewer && detail.viewer && detail.viewer !== viewer) return this.#ended(source, { state: 'denied', reason: 'viewer' });
    if (source === this.#next) this.#switch(source);
    this.#head = source.kind === 'pages' ? '' : (detail.head ?? '');
    this.#advance(source, detail.cursor || this.#cursor, 'onopen', detail);
  }

  #switch(source) {
    drop(this.#current);
    this.#current = source;
    this.#next = null;
    this.#openedAt = this.#clock.now();
    if (source.kind === 'pages') this.#tryStreaming();
    else this.#tries = 0;
  }

  #tryStreaming() {
    const delay = Math.min(MINUTE * 2 ** this.#tries++, 10 * MINUTE);
    this.#alarm.set(delay, () => this.#open(this.#transport));
  }

  #moved(source, id) {
    if (source === this.#current && id !== this.#cursor) this.#advance(source, id, 'onmove', id); // else the opening says it
  }

  #event(source, event) {
    if (!this.#alarm.isSet) this.#attempt = 0;
    this.#advance(source, event.id, 'onevent', event);
  }

  #advance(source, cursor, call, detail) {
    this.#cursor = cursor;
    this.#tell(call, detail);
    if (!source.run.signal.aborted) this.#progress();
  }

  #pass(call, detail) {
    this.#state = detail.state ?? this.#state;
    this.#tell(call, detail);
  }

  #progress() {
    if (this.#head && reaches(this.#cursor, this.#head)) this.#head = '';
    const state = this.#current.kind === 'pages' ? 'polling' : this.#head ? 'catching-up' : 'open';
    if (state !== this.#state) this.#become(state, { reason: state === 'polling' ? 'held' : 'open' });
  }

  #become(state, details) {
    this.#state = state;
    this.#tell('onstate', { state, attempt: this.#attempt, ...details });
  }

  #tell(listener, detail) {
    try {
      this.#options[listener]?.(detail);
    } catch (error) {
      report(error); // a listener's mistake is not the connection's
    }
  }

  #ended(source, ending) {
    const wasCurrent = source === this.#current;
    if (!wasCurrent && source !== this.#next) return;
    drop(source);
    if (wasCurrent) this.#current = null;
    else this.#next = null;
    const { state, reason } = ending;
    if (source.kind === 'worker') return this.#open((this.#shares = ending.again) ? 'worker' : this.#transport);
    if (['closed', 'denied'].includes(state)) return this.#finish(state, reason);
    if (wasCurrent && this.#next) return; // its successor has taken its place on the server already
    if (reason === 'sleep') return this.#start('sleep');
    if (this.#current?.kind === 'pages') return this.#tryStreaming();
    if (ending.held && !this.#patient && !this.#current) return this.#open('pages');
    if (state === 'failed') return this.#finish(state, reason);
    this.#wait(ending);
  }

  #finish(state, reason) {
    this.#stop();
    this.#become(state, { reason });
  }

  #wait({ state = 'waiting', reason, wait, limit }) {
    if (this.#clock.now() - this.#openedAt >= STEADY) this.#attempt = 0;
    this.#openedAt = Infinity;
    const named = wait !== undefined;
    const retryIn = named
      ? clamp(wait, SHORTEST_WAIT, LONGEST_NAMED_WAIT) + this.#random() * 1000
      : backOff(this.#retry, this.#attempt, this.#random);
    this.#attempt += 1;
    this.#mayHurry = !named;
    this.#alarm.set(retryIn, () => this.#open(this.#transport));
    if (this.#current) return; // only the successor failed: all is well for who is here
    const at = this.#clock.now() + retryIn;
    this.#become(state, { reason, retryIn, at, ...(limit !== undefined && { limit }) });
  }

  #hold(who) {
    if (this.#lifetime.signal.aborted || this.#state === 'closed') return;
    const shut = this.#holds.size > 0;
    this.#holds.add(who);
    if (shut) return;
    this.#stop();
    this.#become('paused', { reason: who });
  }

  #release(who) {
    if (this.#holds.delete(who)) this.#start('resume');
  }

  /** The network or the reader is back: soon, but not all in the same moment; and who slept looks at the clock. */
  hurry() {
    this.#ask('hurry');
    this.#alarm.look();
    this.#current?.alarm.look();
    if (!this.#mayHurry || this.#state !== 'waiting' || !this.#alarm.isSet) return;
    this.#alarm.set(this.#random() * 1000, () => this.#open(this.#transport));
  }

  #followPage() {
    const { document } = globalThis;
    const { signal } = this.#lifetime;
    const on = (target, type, listener) => target?.addEventListener?.(type, listener, { signal });
    for (const [target, hide, show] of [[globalThis, 'pagehide', 'pageshow'], [document, 'freeze', 'resume']]) {
      on(target, hide, () => this.#hold('page'));
      on(target, show, () => this.#release('page'));
    }
    on(document, 'visibilitychange', () => document.hidden || this.hurry());
    on(globalThis, 'online', () => (isRefused(this.#state) ? this.#start('online') : this.hurry()));
  }
}

const drop = (source) => source?.run.abort({ reason: 'dropped' });

const aborted = (signal) =>
  new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason), { once: true }));
