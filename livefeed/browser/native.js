import { endpoint } from './endpoint.js';

const OWN = ['open', 'sync', 'reset', 'closing', 'refused'].map((type) => `livefeed-${type}`);

/**
 * The browser's own EventSource, which hears only the types that it is told, and no `topic:` (a union knows it by whose
 * place an id moves). Resolves when it fails: it is dead after any status but 200, and knows no back-off. The connection
 * makes a new one, from where this was.
 */
export const listen = ({ url, topics, types, cursor: since, client, credentials }, run) =>
  new Promise((resolve) => {
    const source = new EventSource(endpoint(url, topics, { client, since }), { withCredentials: credentials === 'include' });
    const all = new Set([...OWN, 'message', 'created', 'updated', 'deleted', ...types]);
    all.forEach((type) => source.addEventListener(type, run.hear));
    source.onopen = () => topics[0] || run.open({});
    source.onerror = () => resolve({ reason: 'network' });
    run.signal.addEventListener('abort', () => source.close());
  });
