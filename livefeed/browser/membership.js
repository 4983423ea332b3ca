import { compare, entriesOf, marksOf } from './cursors.js';
import { plainName } from './endpoint.js';
import { parseJSON } from './json.js';

const LIVE = ['open', 'catching-up', 'polling'];

// A signed name is "name~time~signature", the time in base 62, whose digits sort as ASCII does (django.core.signing): one
// that sorts behind another was signed later, and holds longer.
const isRefused = (topic, { refused }) => refused.some((name) => plainName(name) === plainName(topic) && name >= topic);

/** Of several that members were rendered with the newest is asked for, in the order they came: plain name -> topic. */
export const newestNames = (topics) => new Map([...topics, ...[...topics].sort()].map((topic) => [plainName(topic), topic]));

/** Whether a connection at this place lacks nothing for who stands at `cursor`: all is behind it, or was refused. */
export function covers(place, { topics, cursor }) {
  const [marks, entries, theirs] = [marksOf(place), entriesOf(place.cursor), entriesOf(cursor)];
  return topics.every((topic) => {
    const mark = marks.get(plainName(topic));
    return mark ? !(compare(entries.get(mark), theirs.get(mark)) > 0) : isRefused(topic, place);
  });
}

/**
 * One member of a union, and how far it is: an event is for it where it lies after its position. So nobody gets an event
 * twice or misses one, whoever joins from wherever, and whichever connection brings it.
 */
export class Membership {
  #member;
  #positions; // mark -> entry
  #told = {};

  constructor(member) {
    this.#member = member;
    this.#positions = entriesOf(member.cursor ?? '');
    this.types = member.types ?? [];
    this.topics = [member.topic].flat();
  }

  get cursor() {
    return [...this.#positions.values()].join('.');
  }

  /** What the connection says that stands at `place`. */
  hear(call, detail, place) {
    if (call === 'onstate') this.#tell(detail, place);
    else if (this.joined) this[call](detail, place);
  }

  /** Takes its place in a connection: without a cursor at `head`, which is now. */
  onopen(place) {
    const [entries, heads] = [place.cursor, place.head].map(entriesOf);
    for (const [topic, mark] of marksOf(place)) {
      if (!this.#wants(topic)) continue;
      const [entry, head] = [entries.get(mark), heads.get(mark)];
      if (!this.#positions.has(mark)) this.#positions.set(mark, head ?? entry);
      // Who stands where the server could not go on from, in another epoch or before what is kept, has missed something.
      const followed = compare(entry, head) <= 0; // else the server's own reset follows
      const missed = followed && !(compare(this.#positions.get(mark), entry) >= 0);
      if (missed) this.#reset(mark, entry, { topic, reason: 'behind' });
    }
  }

  onevent({ type, data, id, topic }, place) {
    const [marks, entries, after] = [marksOf(place), entriesOf(place.cursor), entriesOf(id)];
    const reset = type === 'livefeed-reset' && parseJSON(data, {});
    // A connection with one topic need not say it, EventSource can't.
    const [moved] = [...marks].find(([, mark]) => after.get(mark) !== entries.get(mark)) ?? [...marks][0] ?? [];
    const name = (reset ? reset.topic : topic) ?? moved;
    const mark = marks.get(name);
    const entry = after.get(mark);
    if (!this.#wants(name)) return;
    if (reset) this.#reset(mark, entry, reset);
    else this.#take(mark, entry, { type, data, topic: name, fleeting: entry === entries.get(mark) }); // it has no place
    this.onmove(id);
  }

  /** What lies up to here has been seen, or was hidden from this viewer. */
  onmove(id) {
    for (const [mark, entry] of entriesOf(id)) {
      if (compare(entry, this.#positions.get(mark)) > 0) this.#positions.set(mark, entry);
    }
  }

  #wants(name) {
    return this.topics.some((topic) => plainName(topic) === name);
  }

  #take(mark, entry, event) {
    if (!event.fleeting) {
      if (compare(entry, this.#positions.get(mark)) <= 0) return;
      this.#positions.set(mark, entry);
    }
    this.#member.onevent({ ...event, id: this.cursor });
  }

  #reset(mark, cursor, detail) {
    if (this.#positions.get(mark) === cursor) return;
    this.#positions.set(mark, cursor);
    this.#member.onreset({ ...detail, cursor });
  }

  // Another's catching up is not this one's: who is open stays so. And nobody is told twice.
  #tell(change, place) {
    const live = LIVE.includes(change.state);
    if (live && this.topics.every((topic) => isRefused(topic, place))) change = { ...change, state: 'denied', reason: 'refused' };
    else if (live && !this.joined) return;
    const told = this.#told;
    if (told.state === 'open' && change.state === 'catching-up') return;
    if (['state', 'reason', 'attempt'].every((name) => told[name] === change[name])) return;
    this.#told = change;
    this.#member.onstate(change);
  }
}
