/** What an answer means for a client that would be live, and when it may come back. */

export const SHORTEST_WAIT = 500;
const LONGEST_WAIT = 60_000;

export const isRefused = (state) => state === 'denied' || state === 'failed';

const STATES = { 204: 'closed', 401: 'denied', 403: 'denied', 404: 'denied', 408: 'waiting', 425: 'waiting', 429: 'limited' };

/** What an answer means, or null for one of the type asked for. `wait` (ms) where the server names it. */
export function judge({ status, redirected, headers }, wanted) {
  if (status !== 200) {
    const state = STATES[status] ?? (status < 500 ? 'failed' : 'waiting');
    return { state, reason: `http-${status}`, wait: retryAfter(headers.get('retry-after')) };
  }
  const type = headers.get('content-type')?.split(';')[0].trim().toLowerCase();
  if (type === wanted) return null;
  return redirected ? { state: 'denied', reason: 'login' } : { state: 'failed', reason: 'type' };
}

// RFC 9110, 10.2.3: seconds, or a date.
const retryAfter = (text) => text && (text > 0 ? text * 1000 : Date.parse(text) - Date.now());

// Doubles from `first`; half of it is chance, so that those who were cut off together don't come back together.
export function backOff(first, attempt) {
  const full = Math.min(Math.max(first, SHORTEST_WAIT) * 2 ** attempt, LONGEST_WAIT);
  return (full + Math.random() * full) / 2;
}
