import { endpoint, plainName } from './endpoint.js';
import { parse } from './html.js';
import { fetchAs, settings } from './settings.js';

const TIMEOUT = 30_000;
const ASKED = ['show', 'limit', 'insert', 'key'];

/** What the server shows now, as an element asks for it: what holds it, and the cursor from before it was read. */
export async function fetchSnapshot(element) {
  const topic = element.getAttribute('topic');
  const asked = ASKED.map((name) => [name, element.getAttribute(name) ?? element[name]]).filter(([, value]) => value);
  const response = await fetchAs(endpoint(element.getAttribute('src'), [topic], Object.fromEntries(asked)), {
    headers: { ...(await settings.headers?.({ status: null })), Accept: 'text/html' },
    credentials: element.getAttribute('credentials') ?? 'same-origin',
    cache: 'no-store',
    signal: AbortSignal.timeout(TIMEOUT),
  });
  const root = parse(await response.text()).querySelector('[data-live-snapshot]');
  if (!response.ok || !root) throw new Error(`No snapshot of "${plainName(topic)}": status ${response.status}.`);
  return { root, cursor: root.dataset.cursor ?? '' };
}
