import { endpoint } from './endpoint.js';
import { hearing } from './hearing.js';
import { OPENING } from './stream.js';

/**
 * The browser's own EventSource, which hears only the types that it is told, and no `topic:` (a union knows it by whose
 * place an id moves). Resolves when it fails: it is dead after any status but 200, and knows no back-off. The connection
 * makes a new one, from where this was.
 */
export function listen(to, on, { signal }) {
  return new Promise((resolve) => {
    const more = { ...(to.client && { client: to.client }), ...(to.cursor && { since: to.cursor }) };
    const source = new EventSource(endpoint(to.url, to.topics, more), { withCredentials: to.credentials === 'include' });
    const said = {};
    const { open, hear, own } = hearing(on, signal, said);
    const take = (event) => {
      if (!signal.aborted) hear(event);
      to.alarm.clear();
      if (said.farewell) resolve(said.farewell);
    };
    const types = new Set([...own, 'livefeed-reset', 'message', ...(to.types ?? [])]);
    types.forEach((type) => source.addEventListener(type, take));
    source.onopen = () => to.patient && open({}, to.alarm.clear());
    source.onerror = () => resolve({ reason: 'network' });
    signal.addEventListener('abort', () => source.close());
    to.alarm.set(OPENING, () => resolve({ reason: 'timeout', held: true }));
  });
}
