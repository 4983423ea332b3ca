import { ask } from './asking.js';
import { endpoint } from './endpoint.js';
import { parse } from './html.js';
import { settings } from './settings.js';

const TIMEOUT = 30_000;
const ASKED = ['show', 'limit', 'insert', 'key'];

/** What the server shows now, as an element asks for it; its `data-cursor` is from before it was read. */
export async function fetchSnapshot(element) {
  const given = (name) => element.getAttribute(name) ?? element[name];
  const to = {
    url: endpoint(given('src'), [], Object.fromEntries(ASKED.map((name) => [name, given(name)]))),
    topics: [given('topic')],
    credentials: given('credentials'),
    headers: settings.headers,
  };
  const response = await ask(to, 'text/html', AbortSignal.timeout(TIMEOUT));
  const root = parse(await response.text()).querySelector('[data-live-snapshot]');
  if (!response.ok || !root) throw new Error(`No snapshot: ${response.status}`);
  return root;
}
