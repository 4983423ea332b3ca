import { newAlarm } from './alarm.js';
import { live, whenFree } from './locks.js';
import { OWN_URL, trusted } from './trusted.js';

const VERSION = 1; // of what is said: pages that differ in it don't share
const PATIENCE = 5000; // ms for the worker's first word: a browser that restores its tabs takes long

/**
 * This page's visit at the union that all tabs share, in the worker: as `enter()` of a union of its own. Beside the union's
 * messages there are `{lock}`, which each side holds while it lives, and `{bye}`. `gone(again)` is called when there is no
 * worker any more; `again` where there has been one. Throws where a policy forbids it.
 */
export function visit(address, script, hear, gone) {
  const stay = new AbortController();
  const { signal } = stay;
  const alarm = newAlarm();
  const url = script || trusted('createScriptURL', OWN_URL); // what an attribute names is just text
  // Its life goes on over navigations, where it can.
  const worker = new SharedWorker(url, { type: 'module', name: JSON.stringify([address, VERSION]), extendedLifetime: true });
  const { port } = worker;
  const take = (message) => port.postMessage(message);
  worker.onerror = () => gone();
  alarm.set(PATIENCE, gone);
  port.onmessage = ({ data }) => {
    if (signal.aborted) return;
    if (!('lock' in data)) return hear(data);
    alarm.clear();
    whenFree(data.lock, signal, () => gone(true));
  };
  live(signal, (lock) => take({ lock }));
  return {
    take,
    leave() {
      take({ bye: true });
      port.close();
      alarm.clear();
      stay.abort();
    },
  };
}
