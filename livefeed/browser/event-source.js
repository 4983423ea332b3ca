import { connect } from './connection.js';
import { follow } from './sharing.js';
import { absolute } from './trusted.js';

const READY = { open: 1, 'catching-up': 1, polling: 1, denied: 2, failed: 2, closed: 2 };
const CONSTANTS = { CONNECTING: 0, OPEN: 1, CLOSED: 2 };
const OURS = ['topic', 'since', 'viewer'];

/**
 * EventSource's interface over all this: for a livefeed stream, whose topics, cursor and viewer are in the URL, as
 * `{% livefeed_url %}` writes it, over the connection that all share; for any other, over one of its own.
 */
export class LiveEventSource extends EventTarget {
  onopen = null;
  onmessage = null;
  onerror = null;
  onstate = null;
  state = 'connecting';
  #link;
  #cursor = '';

  constructor(url, options = {}) {
    super();
    this.url = absolute(url);
    this.withCredentials = Boolean(options.withCredentials);
    this.#link = this.#open(new URL(this.url), options);
  }

  get readyState() {
    return READY[this.state] ?? 0;
  }

  get cursor() {
    return this.#link?.cursor ?? this.#cursor;
  }

  reconnect() {
    this.#link?.reconnect();
  }

  close() {
    const link = this.#link;
    this.#link = null;
    if (!link) return;
    link.leave?.() ?? link.close();
    this.#cursor = link.cursor;
    this.#show({ state: 'closed', reason: 'close', attempt: 0 });
  }

  #open(url, { share, viewer, lastEventId, headers, transport, types, fetch }) {
    const [topic, [since = ''], [digest]] = OURS.map((name) => url.searchParams.getAll(name));
    const options = { credentials: this.withCredentials ? 'include' : 'same-origin', transport };
    const member = { cursor: lastEventId ?? since, types, ...this.#listeners() };
    if (!topic.length || headers || fetch) return connect(url, { ...options, headers, fetch, ...member });
    for (const name of OURS) url.searchParams.delete(name);
    return follow({ ...options, src: url.href, viewer: viewer ?? digest, share }, { topic, ...member });
  }

  #listeners() {
    return {
      onevent: (event) => this.#receive(event),
      onreset: (reset) => this.#receive({ type: 'livefeed-reset', data: JSON.stringify(reset), id: this.cursor }),
      onstate: (change) => this.#link && this.#become(change),
    };
  }

  #receive({ type, data, id: lastEventId, topic }) {
    if (!this.#link) return;
    const { origin } = new URL(this.url);
    this.#fire(Object.assign(new MessageEvent(type, { data, lastEventId, origin }), { topic }));
  }

  // As a browser's: `open` whenever it has opened, `error` whenever it is not open any more, or not yet again.
  #become(change) {
    const before = this.readyState;
    this.#show(change);
    if (this.readyState === 1) before === 1 || this.#fire(new Event('open'));
    else if (before === 1 || change.state !== 'connecting') this.#fire(new Event('error'));
  }

  #show(detail) {
    this.state = detail.state;
    this.#fire(Object.assign(new Event('state'), { detail }));
  }

  #fire(event) {
    this[`on${event.type}`]?.call(this, event);
    this.dispatchEvent(event);
  }
}

Object.assign(LiveEventSource, CONSTANTS);
Object.assign(LiveEventSource.prototype, CONSTANTS);
