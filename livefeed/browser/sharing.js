import { endpoint } from './endpoint.js';
import { token } from './locks.js';
import { report } from './reporting.js';
import { settings } from './settings.js';
import { newUnion } from './union.js';
import { visit } from './visit.js';

const hubs = new Map();

/**
 * Who reads events and how it is told of them. Every event reaches a member once, in order, from its cursor on.
 * @typedef {object} Member
 * @property {string[]} topics  signed or plain, as the page has them
 * @property {string} [cursor]  where to begin; without it, now. It is kept up to date
 * @property {string[]} [types]  the types of events that are wanted: only transport "native" asks for them
 * @property {(event: {type: string, data: string, id: string, topic: string, fleeting: boolean}) => void} onevent  `data`
 *   is text still, `topic` the plain name, `id` the member's cursor behind the event, which one that is fleeting didn't move.
 *   After "livefeed-reset" read the state anew: what was missed can't be replayed, and the stream goes on behind the gap
 * @property {(change: {state: string, reason: string, attempt: number, retryIn?: number, at?: number, limit?: number})
 *   => void} onstate  with the present state where there is one, then with each change; `retryIn` in ms, `at` the time
 *   (Date.now()) of the next try
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
 * @param {Function} [address.headers]  instead of the page's, for a connection of this member's own
 * @param {Member} member  gets `leave()` and `reconnect()`
 */
export function follow({ src, credentials, viewer, transport, share, worker, headers }, member) {
  const address = { url: endpoint(src), credentials, viewer, transport };
  const own = headers || !member.topics.length;
  const key = own ? {} : JSON.stringify([address, share]);
  if (!hubs.has(key)) {
    const ask = own ? headers : (refused) => settings.headers?.(refused);
    hubs.set(key, newHub(address, ask, !own && viewer && share !== 'none', worker, () => hubs.delete(key)));
  }
  return hubs.get(key).join(member);
}

/** Sets what all elements of the page use. livefeed.d.ts has its options. */
export function configure(options) {
  Object.assign(settings, options);
  for (const hub of hubs.values()) hub.call('hurry');
}

/**
 * Where the members of a page with one address meet, and from where they go to a union: that of all tabs in the worker, or
 * one of the page's own. While the page is away (in the back/forward cache, where Chromium would keep its socket for a minute,
 * until the site's six are used up; or frozen) they are in none.
 */
export function newHub(address, headers, shared, script, empty) {
  const client = token();
  const members = new Map();
  const lifetime = new AbortController();
  let union = null;
  let away = false;
  let count = 0;

  function enter() {
    if (union || away || !members.size) return;
    try {
      union = shared && visit(address, script, hear, again);
    } catch {
      shared = false;
    }
    union ||= newUnion({ ...address, client })(hear);
    members.forEach(send);
  }

  function send({ topics, types = [], cursor = '' }, n) {
    union?.take({ n, topics, types, cursor });
  }

  function leave() {
    union?.leave();
    union = null;
  }

  function again(works) {
    shared = works;
    leave();
    enter();
  }

  function hear({ ask, n, cursor, event, change }) {
    if (ask) return answer(ask).catch(report); // who fails to say them says nothing, and the request is given up after a while
    const member = members.get(n);
    if (!member) return;
    member.cursor = cursor;
    try {
      if (event) member.onevent({ ...event, id: cursor });
      if (change) member.onstate(change);
    } catch (error) {
      report(error); // one member's mistake is no other's
    }
  }

  async function answer(refused) {
    union.take({ headers: await headers?.(refused) });
  }

  const call = (name) => union?.take({ call: name });
  const on = (target, type, listener) => target?.addEventListener?.(type, listener, lifetime); // for its signal

  function hide() {
    away = true;
    leave();
    members.forEach(({ cursor }, n) => hear({ n, cursor, change: { state: 'paused', reason: 'page', attempt: 0 } }));
  }

  function show() {
    away = false;
    enter();
  }

  on(globalThis, 'pagehide', hide);
  on(globalThis, 'pageshow', show);
  on(globalThis.document, 'freeze', hide);
  on(globalThis.document, 'resume', show);
  on(globalThis, 'online', () => call('hurry'));

  function join(member) {
    const n = ++count;
    members.set(n, member);
    if (union) send(member, n);
    else enter();
    return Object.assign(member, {
      reconnect: () => call('reconnect'),
      leave() {
        members.delete(n);
        if (members.size) return union?.take({ n });
        leave();
        lifetime.abort();
        empty();
      },
    });
  }

  return { join, call };
}
