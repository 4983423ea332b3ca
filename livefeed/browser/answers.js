/** What an answer means for a client that would be live, and when it may come back. */

export const SHORTEST_WAIT = 500;
export const LONGEST_WAIT = 60_000;

export const isRefused = (state) => state === 'denied' || state === 'failed';

const STATES = { 204: 'closed', 401: 'denied', 403: 'denied', 404: 'denied', 408: 'waiting', 425: 'waiting', 429: 'limited' };

/** What an answer means, or null for one of the type asked for. `wait` (ms) where the server names it. */
export function judge({ status, redirected, headers }, wanted, now) {
  const type = (headers.get('content-type') ?? '').split(';')[0].trim().toLowerCase();
  const reason = `http-${status}`;
  if (status === 501) return { reason, held: true }; // a site under WSGI has pages, but no streams
  const state = STATES[status] ?? (status >= 500 ? 'waiting' : 'failed');
  if (status !== 200) return { state, reason, wait: retryAfter(headers, now) };
  if (type === wanted) return null;
  return redirected && type === 'text/html' ? { state: 'denied', reason: 'login' } : { state, reason: 'type' };
}

// RFC 9110, 10.2.3: seconds, or a date.
function retryAfter(headers, now) {
  const text = headers.get('retry-after')?.trim() ?? '';
  const wait = /^[0-9]+$/.test(text) ? Number(text) * 1000 : Date.parse(text) - now;
  return Number.isNaN(wait) ? undefined : wait;
}

// Doubles from `first`; half of it is chance, so that those who were cut off together don't come back together.
export function backOff(first, attempt, random) {
  const full = Math.min(clamp(first, SHORTEST_WAIT, LONGEST_WAIT) * 2 ** attempt, LONGEST_WAIT);
  return full / 2 + (random() * full) / 2;
}

export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
