import { compare, entriesOf } from './cursors.js';
import { plainName } from './endpoint.js';

/**
 * One member of a union, and how far it is: an event is for it where it lies after its position. So nobody gets an event
 * twice or misses one, whoever joins from wherever, and whichever connection brings it.
 */
export class Membership {
  /** Whether the present connection began no later than this member. */
  joined = false;
  #member;
  #positions; // mark -> entry
  #told = {};

  constructor(member) {
    this.#member = member;
    this.#positions = entriesOf(member.cursor ?? '');
    this.types = member.types ?? [];
    this.topics = new Map([member.topic].flat().map((topic) => [plainName(topic), topic]));
  }

  get cursor() {
    return [...this.#positions.values()].join('.');
  }

  /** Whether a connection that stands at this place has nothing behind it that this member lacks. */
  isCoveredBy({ marks, entries }) {
    return [...this.topics.keys()].every((topic) => {
      const mark = marks.get(topic);
      return entries.has(mark) && !(compare(entries.get(mark), this.#positions.get(mark)) > 0);
    });
  }

  /** Takes its place in a connection that begins at `entries`: without a cursor at `head`, which is now. */
  join(place) {
    const { marks, entries, head } = place;
    const topics = [...this.topics.keys()].filter((topic) => marks.has(topic));
    for (const mark of topics.map((topic) => marks.get(topic))) {
      if (!this.#positions.has(mark)) this.#positions.set(mark, head.get(mark) ?? entries.get(mark));
    }
    this.joined = true;
    this.#open(topics, place);
    for (const topic of topics) this.#check(topic, marks.get(topic), place);
  }

  // What `livefeed-open` would have said to this member alone: the worker passes it on to a tab.
  #open(topics, { marks, head, refused }) {
    const cursor = (entries) => topics.map((topic) => entries.get(marks.get(topic))).join('.');
    this.#member.onopen?.({ topics, refused, cursor: cursor(this.#positions), head: cursor(head) });
  }

  // Who stands where the server could not go on from, in another epoch or before what is kept, has missed something.
  #check(topic, mark, { entries, head }) {
    const entry = entries.get(mark);
    const followed = mark && compare(entry, head.get(mark)) <= 0; // else the server's own reset follows
    const missed = followed && !(compare(this.#positions.get(mark), entry) >= 0);
    if (missed) this.reset(mark, entry, { topic, reason: 'behind', cursor: entry });
  }

  take(mark, entry, event) {
    if (entry) {
      if (compare(entry, this.#positions.get(mark)) <= 0) return;
      this.#positions.set(mark, entry);
    }
    this.#member.onevent({ ...event, id: this.cursor, fleeting: !entry });
  }

  reset(mark, entry, detail) {
    if (this.#positions.get(mark) === entry) return;
    this.#positions.set(mark, entry);
    this.#member.onreset(detail);
  }

  /** What lies up to here has been seen, or was hidden from this viewer. */
  move(entries) {
    const before = this.cursor;
    for (const [mark, position] of this.#positions) {
      if (compare(entries.get(mark), position) > 0) this.#positions.set(mark, entries.get(mark));
    }
    if (this.cursor !== before) this.#member.onmove?.(this.cursor);
  }

  /** Another's catching up is not this one's: who is open stays so. And nobody is told twice. */
  tell(change) {
    const { state, reason, attempt } = this.#told;
    if (state === 'open' && ['open', 'catching-up'].includes(change.state)) return;
    if (state === change.state && reason === change.reason && attempt === change.attempt) return;
    this.#told = change;
    this.#member.onstate(change);
  }
}
