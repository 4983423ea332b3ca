import { endpoint } from './endpoint.js';
import { Membership } from './membership.js';
import { report } from './reporting.js';
import { fetchAs, settings } from './settings.js';
import { unionAt } from './union.js';

const unions = new Map();

/**
 * Who reads events and how it is told of them. Every event reaches a member once, in order, from its cursor on.
 * @typedef {object} Member
 * @property {string | string[]} topic  signed or plain, as the page has it
 * @property {string} [cursor]  where to begin; without it, now
 * @property {string[]} [types]  the types of events that are wanted: only transport "native" asks for them
 * @property {(event: {type: string, data: string, id: string, topic: string, fleeting: boolean}) => void} onevent  `data`
 *   is text still, `topic` the plain name, `id` the member's cursor behind the event, which one that is fleeting didn't move
 * @property {(reset: {topic: string, reason: string, cursor: string}) => void} onreset  what was missed can't be
 *   replayed: read the state anew. The stream goes on from behind the gap meanwhile
 * @property {(change: {state: string, reason: string, attempt: number, retryIn?: number, at?: number, limit?: number})
 *   => void} onstate  at once with the present state where there is one, then with each change; `retryIn` in ms, `at`
 *   the time (Date.now()) of the next try
 */

/**
 * Makes a member part of the one connection that all with the same address share: over the page, and between tabs where
 * `viewer` says for whom the page was rendered.
 * @param {object} address
 * @param {string} address.src
 * @param {RequestCredentials} [address.credentials]
 * @param {string} [address.viewer]
 * @param {string} [address.share]  "none": a connection of this page's own
 * @param {string} [address.transport]  "native": the browser's EventSource
 * @param {string} [address.worker]  the URL of the shared worker's script, where static files are of another origin
 * @param {Member} member
 * @returns {{leave: () => string, reconnect: () => void, readonly cursor: string}}  `leave()` ends it, and returns the
 *   cursor to come back with
 */
export function follow(address, member) {
  const { src, credentials = 'same-origin', viewer = '', transport = 'fetch', share = '', worker } = address;
  const options = { worker, fetch: fetchAs, headers: (refused) => settings.headers?.(refused), mayShare: () => mayShare(address) };
  const union = unionAt(unions, { src: endpoint(src, []), credentials, viewer, transport, share }, options);
  const membership = new Membership(guarded(member));
  union.add(membership);
  return {
    leave: () => union.remove(membership) ?? membership.cursor,
    reconnect: () => union.call('reconnect'),
    get cursor() {
      return membership.cursor;
    },
  };
}

// Who doesn't know its viewer knows not whom to share with; a page that fetches in its own way can't let a worker do it.
const mayShare = ({ viewer, share }) =>
  Boolean(viewer && ![share, settings.share].includes('none') && !settings.fetch && globalThis.SharedWorker);

// One member's mistake is no other's.
function guarded({ topic, cursor, types, ...member }) {
  const guard = (listener) => (detail) => {
    try {
      member[listener](detail);
    } catch (error) {
      report(error);
    }
  };
  return { topic, cursor, types, onevent: guard('onevent'), onreset: guard('onreset'), onstate: guard('onstate') };
}

/** Sets what all elements of the page use. livefeed.d.ts has its options. */
export function configure(options) {
  Object.assign(settings, options);
  for (const union of unions.values()) union.retryRefused();
}
