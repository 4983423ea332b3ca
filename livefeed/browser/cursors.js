/** Cursors: a dot-joined list of entries, one per topic. */

// A cursor is a dot-joined list of entries, one per topic; the server skips those of topics not asked for.
export const joinCursors = (cursors) => [...new Set(cursors.join('.').split('.'))].filter(Boolean).join('.');
