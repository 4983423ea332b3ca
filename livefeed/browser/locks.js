/** How pages and their worker notice that the other has died: each holds a lock while it lives, and waits for the other's. */

/** A name that nobody else has. */
export const token = () => crypto.getRandomValues(new Uint32Array(4)).join('-');

/** Holds a lock until the signal comes, and says its name; none where there are no locks (an insecure origin). */
export function live(signal, say) {
  const name = token();
  const hold = () => new Promise((release) => say(name, signal.addEventListener('abort', release)));
  if (navigator.locks) whenFree(name, signal, hold);
  else say();
}

/** Calls back when whoever holds this lock has died, unless the signal comes first. */
export const whenFree = (name, signal, callback) => navigator.locks?.request(name, { signal }, callback).catch(() => {});
