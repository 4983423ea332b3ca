/** Cursors: a dot-joined list of entries, one per topic. */

// A cursor is a dot-joined list of entries, one per topic; the server skips those of topics not asked for.
export const joinCursors = (cursors) => [...new Set(cursors.join('.').split('.'))].filter(Boolean).join('.');

const PLACE = 10; // characters that say which topic, and which of its epochs: "mark(4) epoch(6) seq"

/** Whether the place `id` (a cursor of any topics) is not behind `cursor`, one topic's; false where nobody can tell. */
export function isCovered(id, cursor) {
  const entry = (id ?? '').split('.').find((entry) => entry.slice(0, PLACE) === cursor.slice(0, PLACE)) ?? '';
  const [a, b] = [entry.slice(PLACE), cursor.slice(PLACE)];
  return a !== '' && (a.length < b.length || (a.length === b.length && a <= b));
}
