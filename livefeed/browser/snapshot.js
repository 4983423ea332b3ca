import { endpoint, plainName } from './endpoint.js';
import { fetchAs, settings } from './settings.js';

let policy;

// Trusted Types: a page that enforces them allows the policy "livefeed". Only the server's snapshot goes through it.
function trusted(html) {
  policy ??= globalThis.trustedTypes?.createPolicy('livefeed', { createHTML: (text) => text }) ?? null;
  return policy ? policy.createHTML(html) : html;
}

/** The items as the server renders them now, and the cursor from before they were read. Nothing in them runs. */
export async function fetchSnapshot({ src, topic, credentials, limit, insert }) {
  const headers = { ...(await settings.headers?.({ status: null })), Accept: 'text/html' };
  const url = endpoint(src, [topic], { ...(limit && { limit }), ...(insert && { insert }) });
  const response = await fetchAs(url, { headers, credentials, cache: 'no-store' });
  const page = new DOMParser().parseFromString(trusted(await response.text()), 'text/html');
  const root = page.querySelector('[data-live-snapshot]');
  if (!response.ok || !root) throw new Error(`No snapshot of "${plainName(topic)}": status ${response.status}.`);
  const content = root.content ?? root; // a <template> where the items can't stand in a <div>, as table rows
  for (const script of content.querySelectorAll('script')) script.remove();
  return { items: [...content.children], cursor: root.dataset.cursor ?? '' };
}
