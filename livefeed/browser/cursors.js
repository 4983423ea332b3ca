/**
 * Cursors: dot-joined entries, one per topic. An entry is mark (4), epoch (6) and number (base 36), or a mark alone:
 * before the topic's first event. Only numbers of one epoch have an order. An id that isn't ours is one entry without
 * a mark, and any other one counts as later.
 */

const ENTRY = /^([\w-]{4})(?:([\w-]{6})([0-9a-z]{1,12}))?$/;

const split = (cursor) => cursor.split('.').filter(Boolean);

function read(entry) {
  const [, mark = '', epoch = '', seq = ''] = ENTRY.exec(entry) ?? [];
  return { mark, epoch, seq };
}

/** What a cursor says, by mark. */
export const entriesOf = (cursor) => new Map(split(cursor).map((entry) => [read(entry).mark, entry]));

/** The marks of topics: these and the entries of their cursor have one order. */
export function marksOf({ topics, cursor }) {
  const entries = split(cursor);
  return new Map(topics.map((topic, index) => [topic, read(entries[index]).mark]));
}

/** Above 0 where `a` lies after `b`, 0 at the same place; NaN in two epochs, or where either is missing. */
export function compare(a, b) {
  if (a === b) return 0;
  if (!a || !b) return NaN;
  const [x, y] = [read(a), read(b)];
  if (!x.mark || !y.mark) return 1;
  if (x.epoch && y.epoch && x.epoch !== y.epoch) return NaN;
  return x.seq.length - y.seq.length || (x.seq < y.seq ? -1 : 1);
}

/**
 * One cursor from which nobody who stands at these misses anything: of several places in an epoch, the first. Before the
 * first event is before them all, and says it alone: a member of a union has one place in a topic.
 */
export function oldest(cursors) {
  const found = new Map();
  for (const entry of cursors.flatMap(split)) {
    const { mark, epoch } = read(entry);
    if (!(compare(found.get(mark + epoch), entry) <= 0)) found.set(mark + epoch, entry);
  }
  const isFirst = ([key]) => key.length <= 4 || !found.has(key.slice(0, 4));
  return [...found].filter(isFirst).map(([, entry]) => entry).join('.');
}

/** Whether who stands at `cursor` has all up to `head`; what has no order counts as reached, for a reset follows. */
export function reaches(cursor, head) {
  const entries = entriesOf(cursor);
  return [...entriesOf(head)].every(([mark, entry]) => !(compare(entries.get(mark), entry) < 0));
}

/** The entry that follows in the epoch of `entry`, by its number. */
export const numbered = (entry, seq) => entry.slice(0, 10) + seq.toString(36);

/** Whether an event with this id is in what was read at `cursor`, one topic's; false where nobody can tell. */
export const isCovered = (id, cursor) =>
  [...entriesOf(cursor)].some(([mark, entry]) => id && compare(entriesOf(id).get(mark), entry) <= 0);
