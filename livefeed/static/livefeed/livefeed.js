/**
 * livefeed in the browser: one module, no dependencies, no build.
 *
 *   EventStreamParser   bytes in, events out (WHATWG HTML, "9.2.6 Interpreting an event stream")
 *   connect()           one stream over fetch that comes back by itself, from where it was
 *   SharedStream        one connection for all elements of a page (inner)
 *   LiveList            the items of an element, by key (inner)
 *   LiveFeedElement     <live-feed>, what {% livefeed %} renders
 *
 * Why fetch and not EventSource: any answer but 200 ends an EventSource for good, it can't send a cursor on its first
 * request, can't carry Authorization, and doesn't notice a connection that is dead but open.
 */

// ---- Parser --------------------------------------------------------------------------------------------------------

export class EventStreamParser {
  #on;
  #decoder = new TextDecoder(); // UTF-8 whatever the charset says; drops one leading BOM, at the very start only
  #rest = ''; // the line that has begun
  #afterCR = false; // a CR ended the last line: an LF that follows belongs to it
  #ended = false;
  #id;
  #type = '';
  #topic = null;
  #data = [];

  /** The id of the last finished block: what a reconnect sends. An id of an unfinished block isn't in it. */
  lastEventId;

  /**
   * @param {object} on
   * @param {(event: {type: string, data: string, lastEventId: string, topic: string | null}) => void} on.onEvent
   * @param {(milliseconds: number) => void} [on.onRetry]  called when the line ends, not with its block
   * @param {(text: string) => void} [on.onComment]
   * @param {string} [on.lastEventId]  the id before this stream, which events without one report (as browsers do)
   */
  constructor({ lastEventId = '', ...on }) {
    this.#on = on;
    this.#id = this.lastEventId = lastEventId;
  }

  /** Takes the next bytes, cut anywhere. A CR at their end ends the line now, without waiting for an LF. */
  push(bytes) {
    let text = this.#decoder.decode(bytes, { stream: true });
    if (!text) return;
    if (this.#afterCR && text[0] === '\n') text = text.slice(1);
    this.#afterCR = text.endsWith('\r');
    const lines = (this.#rest + text).split(/\r\n|\r|\n/);
    this.#rest = lines.pop();
    for (const line of lines) this.#line(line);
  }

  /** The stream is over: the block that has begun is dropped, its id too, and nothing is dispatched any more. */
  end() {
    this.#ended = true;
  }

  #line(line) {
    if (this.#ended) return;
    if (line === '') return this.#dispatch();
    const colon = line.indexOf(':');
    if (colon === 0) return this.#on.onComment?.(line.slice(1));
    if (colon < 0) return this.#field(line, '');
    this.#field(line.slice(0, colon), line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1));
  }

  #field(name, value) {
    if (name === 'data') this.#data.push(value);
    else if (name === 'event') this.#type = value;
    else if (name === 'topic') this.#topic = value; // ours; every other client skips it
    else if (name === 'id' && !value.includes('\0')) this.#id = value;
    else if (name === 'retry' && /^[0-9]+$/.test(value)) this.#on.onRetry?.(Number(value));
  }

  #dispatch() {
    this.lastEventId = this.#id; // also for a block without data
    const [type, topic, data] = [this.#type || 'message', this.#topic, this.#data];
    [this.#type, this.#topic, this.#data] = ['', null, []];
    if (data.length) this.#on.onEvent({ type, data: data.join('\n'), lastEventId: this.#id, topic });
  }
}

// ---- Connection ----------------------------------------------------------------------------------------------------

const DEFAULT_RETRY = 3000; // until the server says otherwise
const SHORTEST_WAIT = 500;
const LONGEST_WAIT = 60_000;
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
    if (state === 'live' && this.#state === 'live') return;
    this.#state = state;
    if (state === 'live') this.#openedAt = this.#clock.now();
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
      onComment: () => this.#become('live', { reason: 'open' }),
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
    if (!signal.aborted) this.#become('live', { reason: 'open' });
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

  #finish({ state = 'reconnecting', reason, wait, limit }) {
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
    if (!this.#mayHurry || this.#state !== 'reconnecting' || this.#run) return;
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

const isRefused = (state) => state === 'denied' || state === 'failed';

/** What an answer means, or null for a stream to read. `wait` (ms) where the server names it. */
function judge({ status, redirected, headers }, now) {
  const type = (headers.get('content-type') ?? '').split(';')[0].trim().toLowerCase();
  const reason = `http-${status}`;
  if (status === 204) return { state: 'closed', reason };
  if ([401, 403, 404].includes(status)) return { state: 'denied', reason };
  if ([408, 425, 429].includes(status) || status >= 500) {
    return { state: status === 429 ? 'limited' : 'reconnecting', reason, wait: retryAfter(headers, now) };
  }
  if (status === 200 && type === 'text/event-stream') return null;
  if (redirected && type === 'text/html') return { state: 'denied', reason: 'login' };
  return { state: 'failed', reason: status === 200 ? 'type' : reason };
}

// RFC 9110, 10.2.3: seconds, or a date.
function retryAfter(headers, now) {
  const text = headers.get('retry-after')?.trim() ?? '';
  const wait = /^[0-9]+$/.test(text) ? Number(text) * 1000 : Date.parse(text) - now;
  return Number.isNaN(wait) ? undefined : wait;
}

// Doubles from `first`; half of it is chance, so that those who were cut off together don't come back together.
function backOff(first, attempt, random) {
  const full = Math.min(clamp(first, SHORTEST_WAIT, LONGEST_WAIT) * 2 ** attempt, LONGEST_WAIT);
  return full / 2 + (random() * full) / 2;
}

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

function endpoint(base, topics, more = {}) {
  const url = new URL(base, globalThis.document?.baseURI);
  for (const topic of topics) url.searchParams.append('topic', topic);
  for (const [name, value] of Object.entries(more)) url.searchParams.set(name, value);
  return url.href;
}

const aborted = (signal) =>
  new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason), { once: true }));

function parseJSON(text, otherwise) {
  try {
    return JSON.parse(text);
  } catch {
    return otherwise;
  }
}

const report = (error) => (globalThis.reportError ?? console.error)(error);
const warn = (error) => console.warn(`livefeed: ${error.message}`);

// ---- Sharing -------------------------------------------------------------------------------------------------------

const GATHERING = 30; // ms: the elements of a page that start together share the first request
const settings = {};

/**
 * Sets what all elements of the page use.
 * @param {{headers?: Function, fetch?: typeof fetch}} options  as of `connect()`
 */
export function configure(options) {
  Object.assign(settings, options);
  SharedStream.retryRefused();
}

// A signed topic is "name~timestamp~signature"; blocks and `livefeed-open` say the name.
const plainName = (topic) => topic.split('~')[0];

// A cursor is a dot-joined list of entries, one per topic; the server skips those of topics not asked for.
const joinCursors = (cursors) => [...new Set(cursors.join('.').split('.'))].filter(Boolean).join('.');

/**
 * One connection for all members with one address: browsers allow six per origin over HTTP/1.1. A member is
 * `{topic, cursor, onevent, onreset, onstate}`; what another needs to share it between tabs fits behind add and remove.
 */
class SharedStream {
  static #all = new Map();

  static at(src, credentials) {
    const key = `${credentials} ${endpoint(src, [])}`;
    if (!this.#all.has(key)) this.#all.set(key, new SharedStream(src, credentials, () => this.#all.delete(key)));
    return this.#all.get(key);
  }

  static retryRefused() {
    for (const stream of this.#all.values()) {
      if (isRefused(stream.#connection?.state)) stream.reconnect();
    }
  }

  #src;
  #credentials;
  #forget;
  #members = new Set();
  #topics = new Map(); // plain name -> topic as asked for
  #granted = [];
  #connection = null;
  #change = null; // the connection's last one
  #timer = null;

  constructor(src, credentials, forget) {
    this.#src = src;
    this.#credentials = credentials;
    this.#forget = forget;
  }

  add(member) {
    this.#members.add(member);
    this.#gather();
  }

  /** Returns the cursor to come back with. */
  remove(member) {
    this.#members.delete(member);
    this.#gather();
    return this.cursorOf(member);
  }

  cursorOf(member) {
    return (member.joined && this.#connection?.cursor) || member.cursor;
  }

  reconnect() {
    this.#connection?.reconnect();
  }

  #gather() {
    this.#timer ??= setTimeout(() => this.#update(), GATHERING);
  }

  #update() {
    this.#timer = null;
    const before = this.#topics;
    this.#topics = new Map([...this.#members].map(({ topic }) => [plainName(topic), topic]));
    if (!this.#topics.size) return this.#close();
    const cursor = this.#admit(before);
    const same = before.size === this.#topics.size && [...before.keys()].every((name) => this.#topics.has(name));
    if (!same) this.#ask([...this.#topics.values()], cursor);
  }

  // The cursor that covers everyone. Who joins a topic that is already read, from another place, is told to reload:
  // cursors can't be compared here, and a topic has only one place in a connection.
  #admit(before) {
    const covered = this.#connection?.cursor ?? '';
    const kept = [...before.keys()].filter((name) => this.#topics.has(name));
    const cursors = new Map(kept.map((name) => [name, covered]));
    for (const member of this.#members) {
      if (member.joined) continue;
      const name = plainName(member.topic);
      const known = cursors.get(name);
      if (known === undefined) cursors.set(name, member.cursor);
      member.joined = true;
      if (this.#change) member.onstate(this.#change);
      if (known !== undefined && member.cursor && member.cursor !== known) member.onreset({ reason: 'joined' });
    }
    return joinCursors([...cursors.values()]);
  }

  #ask(topics, cursor) {
    if (this.#connection) return this.#connection.rejoin(topics, cursor);
    this.#connection = connect(this.#src, {
      ...{ topics, cursor, credentials: this.#credentials, fetch: (...request) => fetchAs(...request) },
      get headers() {
        return settings.headers;
      },
      onopen: (detail) => this.#opened(detail),
      onstate: (change) => this.#tell((this.#change = change)),
      onevent: (event) => this.#route(event),
    });
  }

  #close() {
    this.#connection?.close();
    this.#forget();
  }

  #opened({ topics = [], refused = [] }) {
    this.#granted = topics;
    for (const member of this.#members) member.refused = refused.includes(member.topic);
  }

  #tell(change) {
    for (const member of this.#members) {
      if (member.joined) member.onstate(member.refused ? { ...change, state: 'denied', reason: 'refused' } : change);
    }
  }

  #route(event) {
    const reset = event.type === 'livefeed-reset' ? parseJSON(event.data, {}) : null;
    const only = this.#granted.length === 1 ? this.#granted[0] : null;
    const topic = reset?.topic ?? event.topic ?? only;
    for (const member of this.#members) {
      if (!member.joined || plainName(member.topic) !== topic) continue;
      if (reset) member.onreset(reset);
      else member.onevent({ ...event, topic });
    }
  }
}

const fetchAs = (url, request) => (settings.fetch ?? globalThis.fetch)(url, request);

// ---- Items ---------------------------------------------------------------------------------------------------------

const ATTRIBUTES = /^(?:href|src|datetime|title|alt|class|hidden|data-.+|aria-.+)$/;
const URL_ATTRIBUTES = ['href', 'src'];
const LOADS_CODE = 'script, link, base, iframe, frame, object, embed';

/** The items in an element's `[data-live-list]`, each a child with a `data-key`. */
class LiveList {
  #feed;

  constructor(feed) {
    this.#feed = feed;
    feed.addEventListener?.('animationend', ({ target }) => target.removeAttribute('data-live-added'));
  }

  get node() {
    return this.#feed.querySelector('[data-live-list]');
  }

  get #items() {
    return [...this.node.children].filter((item) => 'key' in item.dataset);
  }

  apply(type, data) {
    if (!this.node || data?.pk === undefined) return;
    const item = this.#items.find(({ dataset }) => dataset.key === String(data.pk));
    if (type === 'deleted') item?.remove();
    else if (item && ['created', 'updated'].includes(type)) this.#fill(item, data);
    else if (type === 'created') this.#insert(data);
  }

  /** Says to assistive technology that the list is being changed, until shortly after. */
  busy() {
    this.node?.setAttribute('aria-busy', 'true');
    setTimeout(() => this.node?.removeAttribute('aria-busy'), 100);
  }

  /** Takes over fresh items; who didn't change stays, with its focus, selection and animations. */
  adopt(fresh) {
    const old = new Map(this.#items.map((item) => [item.dataset.key, item]));
    const items = fresh.map((item) => {
      this.#format(item);
      const known = old.get(item.dataset.key);
      known?.removeAttribute('data-live-added');
      return known?.isEqualNode(item) ? known : item;
    });
    for (const child of [...this.node.children]) if (!items.includes(child)) child.remove();
    items.forEach((item, index) => {
      if (this.node.children[index] !== item) this.node.insertBefore(item, this.node.children[index] ?? null);
    });
  }

  /** Shows the times in the reader's language: all, or those of one format. */
  format(style) {
    if (this.node) this.#format(this.node, style);
  }

  #format(root, style) {
    for (const element of root.querySelectorAll(style ? `[data-format="${style}"]` : '[data-format]')) {
      write(element, this.#time(element) ?? element.textContent);
    }
  }

  #time(element) {
    return formatTime(element, (element.closest('[lang]') ?? this.#feed.closest('[lang]'))?.lang);
  }

  #insert(data) {
    const template = this.#feed.querySelector('template')?.content.firstElementChild;
    if (!template) return;
    const item = document.importNode(template, true);
    item.dataset.key = data.pk;
    item.dataset.liveAdded = '';
    this.#fill(item, data);
    this.node[this.#appends ? 'append' : 'prepend'](item);
    this.#trim();
  }

  get #appends() {
    return this.#feed.getAttribute('insert') === 'append';
  }

  // From the far end; never the item somebody is in.
  #trim() {
    const limit = Number(this.#feed.getAttribute('limit')) || Infinity;
    const items = this.#appends ? this.#items : this.#items.reverse();
    const spare = items.length - limit;
    if (spare <= 0) return;
    for (const item of items.filter((item) => !item.matches(':focus-within')).slice(0, spare)) item.remove();
  }

  #fill(item, data) {
    for (const element of [item, ...item.querySelectorAll('*')]) {
      for (const { name, value } of [...element.attributes]) {
        if (name.startsWith('data-attr-')) bindAttribute(element, name.slice(10), lookUp(data, value));
      }
      const { field } = element.dataset;
      if (field !== undefined) write(element, this.#time(element) ?? asText(lookUp(data, field)));
    }
  }
}

const lookUp = (data, path) =>
  Object.hasOwn(data, path) ? data[path] : path.split('.').reduce((value, name) => value?.[name], data);

const asText = (value) => (value && typeof value === 'object' ? JSON.stringify(value) : String(value ?? ''));

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function bindAttribute(element, name, value) {
  if (!ATTRIBUTES.test(name)) return;
  const gone = name === 'hidden' ? !value : value === null || value === undefined;
  if (gone || (URL_ATTRIBUTES.includes(name) && !isSafe(element, value))) return element.removeAttribute(name);
  const text = name === 'hidden' ? '' : asText(value);
  if (element.getAttribute(name) !== text) element.setAttribute(name, text);
}

function isSafe(element, value) {
  if (element.matches(LOADS_CODE)) return false;
  try {
    return ['http:', 'https:', 'mailto:'].includes(new URL(value, document.baseURI).protocol);
  } catch {
    return false;
  }
}

const TIMES = {
  time: { timeStyle: 'short' },
  date: { dateStyle: 'medium' },
  datetime: { dateStyle: 'medium', timeStyle: 'short' },
  relative: { numeric: 'auto' },
};
const UNITS = { year: 31_536_000, month: 2_592_000, week: 604_800, day: 86_400, hour: 3600, minute: 60, second: 1 };
const formats = new Map();

/** The time in `datetime` as `data-format` says, or null where there is none. */
function formatTime(element, language) {
  const { format } = element.dataset;
  const text = element.getAttribute('datetime') ?? '';
  const time = Date.parse(text);
  if (!Object.hasOwn(TIMES, format ?? '') || Number.isNaN(time)) return null;
  if (format === 'relative') return relativeTime((time - Date.now()) / 1000, intl(format, language));
  return intl(format, language, text.length === 10 ? 'UTC' : undefined).format(time); // a bare date has no time zone
}

function relativeTime(seconds, format) {
  const [unit, size] = Object.entries(UNITS).find(([, size]) => Math.abs(seconds) >= size) ?? ['second', 1];
  return format.format(Math.trunc(seconds / size), unit);
}

function intl(format, language, timeZone) {
  const key = [format, language, timeZone].join();
  if (!formats.has(key)) {
    const Format = format === 'relative' ? Intl.RelativeTimeFormat : Intl.DateTimeFormat;
    formats.set(key, new Format(languageTag(language), { ...TIMES[format], timeZone }));
  }
  return formats.get(key);
}

function languageTag(language) {
  try {
    return Intl.getCanonicalLocales(language || undefined);
  } catch {
    return undefined; // "en_US" is no language tag
  }
}

// ---- Snapshot ------------------------------------------------------------------------------------------------------

let policy;

// Trusted Types: a page that enforces them allows the policy "livefeed". Only the server's snapshot goes through it.
function trusted(html) {
  policy ??= globalThis.trustedTypes?.createPolicy('livefeed', { createHTML: (text) => text }) ?? null;
  return policy ? policy.createHTML(html) : html;
}

/** The items as the server renders them now, and the cursor from before they were read. Nothing in them runs. */
async function fetchSnapshot({ src, topic, credentials, limit, insert }) {
  const headers = { ...(await settings.headers?.({ status: null })), Accept: 'text/html' };
  const url = endpoint(src, [topic], { ...(limit && { limit }), ...(insert && { insert }) });
  const response = await fetchAs(url, { headers, credentials, cache: 'no-store' });
  const page = new DOMParser().parseFromString(trusted(await response.text()), 'text/html');
  const root = page.querySelector('[data-live-snapshot]');
  if (!response.ok || !root) throw new Error(`No snapshot of "${plainName(topic)}": status ${response.status}.`);
  const content = root.content ?? root; // a <template> where the items can't stand in a <div>, as table rows
  for (const script of content.querySelectorAll('script')) script.remove();
  return { items: [...content.children], cursor: root.dataset.cursor ?? '' };
}

const sleep = (delay) => new Promise((resolve) => setTimeout(resolve, delay));
const within = (delay, promise) =>
  Promise.race([promise, sleep(delay).then(() => Promise.reject(new Error(`No answer in ${delay} ms.`)))]);

// ---- Status --------------------------------------------------------------------------------------------------------

const PATIENCE = 1000; // ms a state other than live must last before it is written: blips are nobody's business
const TEXTS = { limited: 'reconnecting', denied: 'stopped', failed: 'stopped', paused: 'stopped', closed: 'stopped' };

class StatusLine {
  #feed;
  #state;
  #timer = null;
  #lasting = false;

  constructor(feed) {
    this.#feed = feed;
  }

  show(state) {
    this.#state = state;
    if (state === 'live') {
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

// ---- Element -------------------------------------------------------------------------------------------------------

const RESET_PAUSE = 2000; // ms at most: a reset reaches everyone at once, the reloads should not
const SNAPSHOT_TIMEOUT = 30_000;
const TICK = 30_000;

/** `<live-feed>`: a list that follows its topic. The markup is rendered by the template tag. */
export class LiveFeedElement extends (globalThis.HTMLElement ?? class {}) {
  static observedAttributes = ['src', 'topic', 'credentials'];

  #list = new LiveList(this);
  #status = new StatusLine(this);
  #stream = null;
  #member = null; // while subscribed
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
    return this.#member ? this.#stream.cursorOf(this.#member) : this.#given;
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
    this.#stream?.reconnect();
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
    if (this.#member || this.#halted || !this.isConnected || !src || !topic) return;
    const moved = this.#source !== undefined && this.#source !== `${src} ${topic}`;
    this.#stale ||= moved && this.#given === this.#cursor;
    this.#source = `${src} ${topic}`;
    if (this.#stale && this.#list.node && !(await this.#reload(0))) return;
    this.#become({ state: 'connecting', reason: 'start', attempt: 0 });
    this.#join(SharedStream.at(src, credentials), topic);
  }

  #join(stream, topic) {
    this.#cursor = this.#given;
    this.#stream = stream;
    this.#member = {
      topic,
      cursor: this.#cursor,
      onevent: (event) => this.#receive(event),
      onreset: (reset) => this.#reset(reset),
      onstate: (change) => this.#become(change),
    };
    stream.add(this.#member);
  }

  #leave() {
    this.#reloading?.abort();
    if (!this.#member) return;
    const cursor = this.#stream.remove(this.#member);
    this.#member = null;
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

if (globalThis.customElements && !customElements.get('live-feed')) customElements.define('live-feed', LiveFeedElement);
