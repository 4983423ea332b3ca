import { connect } from './connect.js';
import { endpoint } from './endpoint.js';

const READY = { open: 1, 'catching-up': 1, polling: 1, denied: 2, failed: 2, closed: 2 };
const CONSTANTS = { CONNECTING: 0, OPEN: 1, CLOSED: 2 };

/** EventSource's interface over `connect()`. */
export class LiveEventSource extends EventTarget {
  onopen = null;
  onmessage = null;
  onerror = null;
  onstate = null;
  readyState = 0;
  #connection;

  constructor(url, { withCredentials, lastEventId: cursor, ...options } = {}) {
    super();
    this.url = endpoint(url);
    this.withCredentials = Boolean(withCredentials);
    const { origin } = new URL(this.url);
    this.#connection = connect(url, {
      ...options,
      cursor,
      credentials: withCredentials ? 'include' : undefined,
      onevent: ({ type, data, id: lastEventId, topic }) =>
        this.#fire(new MessageEvent(type, { data, lastEventId, origin }), { topic }),
      onstate: (change) => this.#become(change),
    });
  }

  get state() {
    return this.#connection.state;
  }

  get cursor() {
    return this.#connection.cursor;
  }

  reconnect() {
    this.#connection.reconnect();
  }

  close() {
    this.#connection.close();
  }

  // As a browser's: `open` whenever it has opened, `error` whenever it is not open any more, or not yet again.
  #become(change) {
    const before = this.readyState;
    this.readyState = READY[change.state] ?? 0;
    this.#fire(new Event('state'), { detail: change });
    if (this.readyState === 1) before === 1 || this.#fire(new Event('open'));
    else if (change.reason !== 'user' && (before === 1 || change.state !== 'connecting')) this.#fire(new Event('error'));
  }

  #fire(event, more) {
    Object.assign(event, more);
    this[`on${event.type}`]?.call(this, event);
    this.dispatchEvent(event);
  }
}

Object.assign(LiveEventSource, CONSTANTS);
Object.assign(LiveEventSource.prototype, CONSTANTS);
