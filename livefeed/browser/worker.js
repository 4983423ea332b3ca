import { live, token, whenFree } from './locks.js';
import { newUnion } from './union.js';

/** Makes this scope the worker that pages visit: a union for the address that is in its name. visit.js is the other end. */
export function serve(scope) {
  const [address] = JSON.parse(scope.name);
  const enter = newUnion({ ...address, client: token() }, true);
  const { signal } = new AbortController(); // it lives until it dies
  const alive = new Promise((resolve) => live(signal, resolve));
  scope.onconnect = ({ ports: [port] }) => {
    const page = enter((message) => port.postMessage(message));
    port.onmessage = ({ data }) => {
      if (data.bye) page.leave();
      else if ('lock' in data) whenFree(data.lock, signal, page.leave);
      else page.take(data);
    };
    alive.then((lock) => port.postMessage({ lock }));
  };
}
