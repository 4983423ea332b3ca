import { SYSTEM_CLOCK } from './alarm.js';
import { isRefused } from './answers.js';
import { connect } from './connection.js';
import { entriesOf, marksOf, oldest } from './cursors.js';
import { parseJSON } from './json.js';
import { Membership } from './membership.js';
import { visit } from './visit.js';

const GATHERING = 30; // ms: the elements of a page that start together share the first request
const LIVE = ['open', 'catching-up', 'polling'];

/**
 * One connection for all members with one address: browsers allow six per origin over HTTP/1.1. It runs in a page, for its
 * elements, and in the worker, for all pages. When its members' topics change, or somebody comes from further back, it asks
 * for a new stream from the place of whoever is furthest back; the old one goes on until that has opened.
 */
export class Union {
  #options;
  #clock;
  #members = new Set();
  #asked = []; // the members that the newest request was for
  #names = new Map(); // plain name -> topic as it was last asked for
  // Where the connection stands: plain name -> mark, mark -> entry, and the topics, as asked for, that it was refused.
  #place = { marks: new Map(), entries: new Map(), head: new Map(), refused: [] };
  #connection = null;
  #change = null; // the connection's last one
  #arrived = false; // somebody, since the last look
  #timer = null;
  #leaving = null;

  /**
   * `options` are those of `connect()`, with `src`; `linger` ms after the last member it closes and calls `onempty()`.
   * `mayShare()` says whether the connection may be the worker's.
   */
  constructor(options) {
    this.#options = options;
    this.#clock = options.clock ?? SYSTEM_CLOCK;
  }

  add(member) {
    const membership = new Membership(member);
    this.#members.add(membership);
    this.#arrived = true;
    this.#gather();
    return membership;
  }

  /** Returns the cursor to come back with. */
  remove(membership) {
    this.#members.delete(membership);
    this.#gather();
    return membership.cursor;
  }

  /** Does with the connection, once there is one, what it is asked to: "reconnect", "hurry", "close". */
  call(name) {
    this.#connection?.[name]();
  }

  retryRefused() {
    if (isRefused(this.#change?.state)) this.call('reconnect');
  }

  #gather() {
    this.#timer ??= this.#clock.setTimeout(() => this.#update(), GATHERING);
  }

  #update() {
    this.#timer = null;
    this.#clock.clearTimeout(this.#leaving);
    if (!this.#members.size) return this.#leave();
    // Who has just been rendered may be let in, whatever the others were told.
    if (this.#arrived && isRefused(this.#change?.state)) this.call('renew');
    this.#arrived = false;
    this.#names = newestNames(this.#members);
    for (const membership of this.#members) this.#admit(membership);
    this.#tellAll();
    if (!this.#connection) this.#connect();
    else if ([...this.#members].some(({ joined }) => !joined)) this.call('renew');
    else if ([...this.#place.marks.keys()].some((topic) => !this.#names.has(topic))) this.#leave();
  }

  // Who is no further back than the connection is part of it at once, and who asks for what was refused knows.
  #admit(membership) {
    const known = this.#isRefused(membership) || membership.isCoveredBy(this.#place);
    if (!membership.joined && known) membership.join({ ...this.#place, head: this.#place.entries });
  }

  #leave() {
    this.#leaving = this.#clock.setTimeout(() => this.#shrink(), this.#options.linger ?? 0);
  }

  #shrink() {
    if (this.#members.size) return this.call('renew'); // without the topics that nobody wants any more
    this.#clock.clearTimeout(this.#timer);
    this.call('close');
    this.#options.onempty?.();
  }

  #connect() {
    this.#connection = this.#options.mayShare?.() ? this.#make(visit) : this.#make(connect);
  }

  // Until the worker answers, or where it can't, the page has a connection of its own; each goes on from the members' places.
  #onwork(works, visit) {
    if (works) this.call('close');
    this.#connection = works ? visit : this.#make(connect);
    if (works) this.call('renew');
  }

  #make(kind) {
    const mine = (listener) => (detail) => connection === this.#connection && listener(detail);
    const connection = kind(this.#options.src, {
      ...this.#options,
      where: () => this.#where(),
      onopen: mine((detail) => this.#opened(detail)),
      onmove: mine((id) => this.#moved(id)),
      onevent: mine((event) => this.#route(event)),
      onstate: mine((change) => this.#changed(change)),
      onwork: (works) => this.#onwork(works, connection),
    });
    return connection;
  }

  #where() {
    if (!this.#members.size) return { topics: [...this.#names.values()], cursor: [...this.#place.entries.values()].join('.') };
    this.#names = newestNames(this.#members);
    this.#asked = [...this.#members];
    const types = [...new Set(this.#asked.flatMap(({ types }) => types))];
    return { topics: [...this.#names.values()], types, cursor: oldest(this.#asked.map(({ cursor }) => cursor)) };
  }

  /** `stale`: more has been asked for since, and is under way. */
  #opened({ topics = [], refused = [], cursor = '', head = cursor, stale }) {
    this.#place = { marks: marksOf(topics, cursor), entries: entriesOf(cursor), head: entriesOf(head), refused };
    const asked = stale ? [] : this.#asked;
    for (const membership of this.#members) this.#settle(membership, asked);
    if (!stale && [...this.#members].some(({ joined }) => !joined)) this.#gather();
    this.#tellAll();
  }

  // The request may have been made before somebody came: it has no topic of theirs, or begins behind their place.
  #settle(membership, asked) {
    if (asked.includes(membership)) return membership.join(this.#place);
    membership.joined &&= membership.isCoveredBy(this.#place);
    return this.#admit(membership);
  }

  #moved(id) {
    const entries = (this.#place.entries = entriesOf(id));
    for (const membership of this.#joined) membership.move(entries);
  }

  #route({ type, data, id, topic, ...event }) {
    const { marks, entries } = this.#place;
    const reset = type === 'livefeed-reset' ? parseJSON(data, {}) : null;
    const after = entriesOf(id);
    const moved = [...marks].find(([, mark]) => after.get(mark) !== entries.get(mark)) ?? [...marks][0];
    const name = reset?.topic ?? topic ?? moved?.[0]; // a connection with one topic need not say it, EventSource can't
    const mark = marks.get(name);
    const entry = after.get(mark);
    const { fleeting = entry === entries.get(mark) } = event; // it has no place of its own
    for (const membership of this.#joined.filter(({ topics }) => topics.has(name))) {
      if (reset) membership.reset(mark, entry, { ...reset, cursor: entry });
      else membership.take(mark, fleeting ? null : entry, { type, data, topic: name });
    }
    this.#moved(id);
  }

  get #joined() {
    return [...this.#members].filter(({ joined }) => joined);
  }

  #changed(change) {
    this.#change = change;
    this.#tellAll();
  }

  #tellAll() {
    for (const membership of this.#members) this.#tell(membership);
  }

  #tell(membership) {
    const change = this.#change;
    if (!change) return;
    const live = LIVE.includes(change.state);
    if (live && this.#isRefused(membership)) membership.tell({ ...change, state: 'denied', reason: 'refused' });
    else if (!live || membership.joined) membership.tell(change);
  }

  #isRefused({ topics }) {
    return [...topics.keys()].every((name) => this.#place.refused.includes(this.#names.get(name)));
  }
}

// A signed name is "name~time~signature", the time in base 62, whose digits sort as ASCII does (django.core.signing): of
// several that members were rendered with the newest holds longest.
function newestNames(members) {
  const names = new Map();
  const time = (topic) => topic?.split('~')[1] ?? '';
  for (const [name, topic] of [...members].flatMap(({ topics }) => [...topics])) {
    if (!names.has(name) || time(topic) > time(names.get(name))) names.set(name, topic);
  }
  return names;
}

/** The one union for all members with this address, of those in `unions`; `more` are its other options, where it is made. */
export function unionAt(unions, address, more) {
  const key = JSON.stringify(address);
  if (!unions.has(key)) unions.set(key, new Union({ ...address, ...more, onempty: () => unions.delete(key) }));
  return unions.get(key);
}
