import { isRefused } from './answers.js';
import { connect } from './connection.js';
import { joinCursors } from './cursors.js';
import { endpoint, plainName } from './endpoint.js';
import { parseJSON } from './json.js';
import { fetchAs, settings } from './settings.js';

const GATHERING = 30; // ms: the elements of a page that start together share the first request

/**
 * One connection for all members with one address: browsers allow six per origin over HTTP/1.1. A member is
 * `{topic, cursor, onevent, onreset, onstate}`; what another needs to share it between tabs fits behind add and remove.
 */
export class SharedStream {
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

/**
 * Sets what all elements of the page use.
 * @param {{headers?: Function, fetch?: typeof fetch}} options  as of `connect()`
 */
export function configure(options) {
  Object.assign(settings, options);
  SharedStream.retryRefused();
}
