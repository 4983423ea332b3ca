import { entriesOf } from './cursors.js';
import { endpoint } from './endpoint.js';
import { parseJSON } from './json.js';

const OPENING = 10_000;
const OWN = ['livefeed-open', 'livefeed-reset', 'livefeed-sync', 'livefeed-closing', 'livefeed-refused', 'message'];

/**
 * The browser's own EventSource: one for each topic, for it doesn't see the `topic:` of a block, and it hears only the
 * types that it is told. Resolves when one has failed, since after any status but 200 it is dead: the connection makes new
 * ones, from where these were.
 */
export function listen(to, on, run) {
  return new Promise((resolve) => {
    to.alarm.set(OPENING, () => run.abort({ reason: 'timeout', held: true }));
    const shared = { to, on, resolve, opened: new Map(), cursor: entriesOf(to.cursor) };
    for (const topic of to.topics.length ? to.topics : [null]) {
      const source = open(topic, shared);
      run.signal.addEventListener('abort', () => source.close());
    }
  });
}

function open(topic, shared) {
  const { to, on, resolve } = shared;
  const url = endpoint(to.url, topic ? [topic] : [], to.cursor && { since: to.cursor });
  const source = new EventSource(url, { withCredentials: to.credentials === 'include' });
  for (const type of new Set([...OWN, ...(to.types ?? [])])) {
    source.addEventListener(type, (event) => take(topic, event, shared));
  }
  source.onopen = () => to.patient && on.opened({}, to.alarm.clear());
  source.onerror = () => resolve({ reason: 'network' });
  return source;
}

function take(topic, { type, data, lastEventId }, shared) {
  const { to, on, resolve, opened, cursor } = shared;
  const detail = type === 'message' ? null : parseJSON(data, {});
  if (type === 'livefeed-refused') return resolve({ ...detail, state: 'limited', wait: detail.retry });
  if (type === 'livefeed-closing') return resolve(detail);
  for (const [mark, entry] of entriesOf(lastEventId)) cursor.set(mark, entry);
  const id = [...cursor.values()].join('.');
  if (type === 'livefeed-sync') return on.moved(id);
  if (type !== 'livefeed-open') return on.event({ type, data, id, topic: opened.get(topic)?.topics[0] ?? null });
  to.alarm.clear();
  opened.set(topic, detail);
  on.opened(together([...opened.values()], cursor));
}

// What several openings say, as one stream would have said it.
function together(openings, cursor) {
  const all = (name) => openings.flatMap((opening) => opening[name] ?? []);
  const now = [...entriesOf(all('cursor').join('.'))].map(([mark, entry]) => cursor.get(mark) ?? entry);
  const place = { cursor: now.join('.'), head: all('head').join('.') };
  return { topics: all('topics'), refused: all('refused'), ...place, viewer: openings[0].viewer };
}
