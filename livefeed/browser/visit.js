import { settings } from './settings.js';
import { absolute, OWN_URL, trusted } from './trusted.js';

const PATIENCE = 5000; // ms for the worker's first word: a browser that restores its tabs takes long
const PING = 20_000; // where there are no locks (an insecure origin)

/** A name for a lock that nobody else has. */
export const newLock = () => `livefeed:${crypto.getRandomValues(new Uint32Array(4)).join('-')}`;

/**
 * This page's visit at the worker that all share: a source of events that says what the worker's connection says. Resolves
 * when there is no worker, `again` where there has been one. worker.js has what is said.
 */
export function visit(to, on, { signal }, source) {
  return new Promise((resolve) => {
    const port = knock(to, resolve);
    const say = (message) => port.postMessage(message);
    const gone = () => resolve({ again: true });
    let joins = 0;
    signal.addEventListener('abort', () => port.close(say({ bye: 1 })));
    port.onmessage = ({ data: { call, detail, join, ask, hello, away } }) => {
      if (signal.aborted) return;
      if (call) on.pass(call, call === 'onopen' ? { ...detail, stale: join !== joins } : detail);
      else if (ask) answer(to, ask, say);
      else if (away) gone();
      else to.alarm.clear(hello && wait(hello, signal, gone));
    };
    to.alarm.set(PATIENCE, () => resolve({}));
    const { src, credentials, viewer, transport } = to;
    live(to.clock, signal, say, (lock) => {
      const join = () => ({ join: ++joins, ...to.where() });
      say({ hello: { src, credentials, viewer, transport }, lock, ...join() });
      source.call = (call) => say(call === 'renew' ? join() : { call });
    });
  });
}

function knock({ viewer, worker }, resolve) {
  const own = settings.worker ? absolute(settings.worker) : OWN_URL;
  const url = worker ? absolute(worker) : trusted('createScriptURL', own); // what an attribute names is just text
  // Its life goes on over navigations, where it can.
  const shared = new SharedWorker(url, { type: 'module', name: `livefeed:1:${viewer}`, extendedLifetime: true });
  shared.onerror = () => resolve({}); // a policy forbids it
  return shared.port;
}

// The worker waits for our lock, and has it when this page has died. Where there are no locks we say that we live.
function live(clock, signal, say, enter) {
  const { locks } = navigator;
  const lock = locks && newLock();
  const hold = (release) => enter(lock, signal.addEventListener('abort', release));
  if (locks) return wait(lock, signal, () => new Promise(hold));
  const ping = () => signal.aborted || clock.setTimeout(ping, PING, say({ ping: 1 }));
  enter();
  ping();
}

/** Calls back with a lock in hand, for as long as that takes; not where the signal came first. */
export const wait = (lock, signal, callback, locks = navigator.locks) =>
  locks?.request(lock, { signal }, callback).catch(() => {});

async function answer({ headers }, { refused }, say) {
  try {
    say({ headers: await headers?.(refused) });
  } catch (error) {
    say({ error: String(error) });
  }
}
