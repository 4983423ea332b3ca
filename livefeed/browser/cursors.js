/**
 * Cursors: dot-joined entries, one per topic. An entry is mark (4), epoch (6) and number (base 36), or a mark alone:
 * before the topic's first event. Only numbers of one epoch have an order.
 */

const MARK = 4;
const MARK_AND_EPOCH = 10;

const split = (cursor) => cursor.split('.').filter(Boolean);

export const markOf = (entry) => entry.slice(0, MARK);

const isEntry = ({ length }) => length === MARK || length > MARK_AND_EPOCH;

/** What a cursor says, by mark; what can't be an entry says nothing. */
export const entriesOf = (cursor) => new Map(split(cursor).filter(isEntry).map((entry) => [markOf(entry), entry]));

const numberOf = (entry) => parseInt(entry.slice(MARK_AND_EPOCH) || 0, 36);

/** The entry that follows in the epoch of `entry`, by its number. */
export const numbered = (entry, seq) => entry.slice(0, MARK_AND_EPOCH) + seq.toString(36);

/** Above 0 where `a` lies after `b`, 0 at the same place; NaN in two epochs, or where either is missing. */
export function compare(a, b) {
  if (!a || !b) return NaN;
  const [epoch, other] = [a, b].map((entry) => entry.slice(MARK, MARK_AND_EPOCH));
  return epoch && other && epoch !== other ? NaN : numberOf(a) - numberOf(b);
}

/**
 * One cursor from which nobody who stands at these misses anything: of several places in an epoch, the first. Before the
 * first event is before them all, and says it alone. A single one stays as it is, for it may not be ours.
 */
export function oldest(cursors) {
  if (cursors.length < 2) return cursors[0];
  const found = {};
  for (const entry of cursors.flatMap(split)) {
    const key = entry.slice(0, MARK_AND_EPOCH);
    if (!(compare(found[key], entry) <= 0)) found[key] = entry;
  }
  const isFirst = (entry) => entry.length === MARK || !found[markOf(entry)];
  return Object.values(found).filter(isFirst).join('.');
}

/** Whether an event with this id is in what was read at `cursor`, one topic's; false where nobody can tell. */
export const isCovered = (id, cursor) =>
  [...entriesOf(cursor)].some(([mark, entry]) => id && compare(entriesOf(id).get(mark), entry) <= 0);
