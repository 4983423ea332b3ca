import { SYSTEM_CLOCK } from './alarm.js';
import { isRefused } from './answers.js';
import { connect } from './connection.js';
import { entriesOf, marksOf, oldest } from './cursors.js';
import { plainName } from './endpoint.js';
import { covers, newestNames } from './membership.js';

const GATHERING = 30; // ms: the elements of a page that start together share the first request

/**
 * One connection for all members with one address: browsers allow six per origin over HTTP/1.1. It runs in a page, for its
 * elements, and in the worker, for all pages. A member has `topics`, `types` and a `cursor`, and hears all that the
 * connection says. When topics change, or somebody comes from further back, the union asks for a new stream from the place
 * of whoever is furthest back; the old one goes on until that has opened.
 */
export class Union {
  members = new Set();
  #options;
  #clock;
  #place = { topics: [], refused: [], cursor: '' }; // what the connection has opened with, and where it stands
  #asked; // the topics that the newest request was for, as they were asked for
  #connection;
  #change; // the connection's last one
  #arrived = false; // somebody, since the last look
  #timer = null;
  #leaving;

  /**
   * `options` are those of `connect()`, with `src`; `linger` ms after the last member it closes and calls `onempty()`.
   */
  constructor(options) {
    this.#options = options;
    this.#clock = options.clock ?? SYSTEM_CLOCK;
  }

  add(member) {
    member.asked = false; // whether a request was made for it, as it is now
    member.joined = false; // whether the present connection began no later than this member
    this.members.add(member);
    this.#arrived = true;
    this.#gather();
  }

  remove(member) {
    this.members.delete(member);
    this.#gather();
  }

  /** Does with the connection, once there is one, what it is asked to: "reconnect", "hurry", "close". */
  call(name) {
    this.#connection?.[name]();
  }

  retryRefused() {
    if (isRefused(this.#change?.state)) this.call('reconnect');
  }

  get #names() {
    return newestNames([...this.members].flatMap(({ topics }) => topics));
  }

  #gather() {
    this.#timer ??= this.#clock.setTimeout(() => this.#update(), GATHERING);
  }

  #update() {
    this.#timer = null;
    this.#clock.clearTimeout(this.#leaving);
    if (!this.members.size) return this.#leave();
    const place = { ...this.#place, head: this.#place.cursor };
    this.#settle(this.#waiting, place, false);
    // Who has just been rendered may be let in, whatever the others were told.
    const refused = this.#arrived && isRefused(this.#change?.state);
    this.#arrived = false;
    if (!this.#connection) this.#connect();
    else if (refused || this.#waiting.length) this.call('renew');
    else if (place.topics.some((topic) => !this.#names.has(plainName(topic)))) this.#leave();
  }

  get #waiting() {
    return [...this.members].filter(({ joined }) => !joined);
  }

  #leave() {
    this.#leaving = this.#clock.setTimeout(() => this.#shrink(), this.#options.linger ?? 0);
  }

  #shrink() {
    if (this.members.size) return this.call('renew'); // without the topics that nobody wants any more
    this.#clock.clearTimeout(this.#timer);
    this.call('close');
    this.#options.onempty?.();
  }

  #connect() {
    this.#connection = connect(this.#options.src, {
      ...this.#options,
      where: () => this.#where(),
      onopen: (detail) => this.#opened(detail),
      onmove: (id) => this.#moved('onmove', id, id),
      onevent: (event) => this.#moved('onevent', event, event.id),
      onstate: (change) => this.#tell((this.#change = change)),
    });
  }

  #where() {
    if (!this.members.size) return { topics: this.#asked, cursor: this.#place.cursor };
    const cursors = this.#waiting.map((member) => member.cursor);
    if (cursors.length < this.members.size) cursors.unshift(this.#reached);
    for (const member of this.members) member.asked = true;
    const types = [...this.members].flatMap((member) => member.types);
    this.#asked = [...this.#names.values()];
    return { topics: this.#asked, types, cursor: oldest(cursors) };
  }

  // Who has joined stands where the connection does, or further on.
  get #reached() {
    const [marks, entries] = [marksOf(this.#place), entriesOf(this.#place.cursor)];
    return [...this.#names.keys()].map((name) => entries.get(marks.get(name)) ?? '').join('.');
  }

  /** `stale`: more has been asked for since, and is under way. */
  #opened({ topics = [], refused = [], cursor = '', head = cursor, stale }) {
    const place = (this.#place = { topics, refused, cursor, head });
    this.#settle(this.members, place, !stale);
    if (!stale && this.#waiting.length) this.#gather();
  }

  // The request may have been made before somebody came: it has no topic of theirs, or begins behind their place.
  #settle(members, place, isNewest) {
    for (const member of members) {
      member.joined = (isNewest && member.asked) || covers(place, member);
      member.hear('onopen', place, place);
    }
    this.#tell();
  }

  #moved(call, detail, id) {
    for (const member of this.members) member.hear(call, detail, this.#place);
    this.#place.cursor = id;
  }

  #tell() {
    for (const member of this.members) if (this.#change) member.hear('onstate', this.#change, this.#place);
  }
}

/** The one union for all members with this address, of those in `unions`; `more` are its other options, where it is made. */
export function unionAt(unions, address, more) {
  const key = JSON.stringify(address);
  if (!unions.has(key)) unions.set(key, new Union({ ...address, ...more, onempty: () => unions.delete(key) }));
  return unions.get(key);
}
