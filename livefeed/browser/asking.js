import { endpoint } from './endpoint.js';

/**
 * Sends one request, as the page wants it sent: its headers are asked for each time, and once more where the answer is
 * 401 or 403, for a token may have expired meanwhile.
 */
export async function ask(to, accept, signal) {
  const response = await send(to, accept, signal, await to.headers?.({ status: null }));
  if (![401, 403].includes(response.status)) return response;
  const fresh = await to.headers?.({ status: response.status });
  return fresh ? send(to, accept, signal, fresh) : response;
}

function send({ url, topics, cursor, client, fetch, credentials }, accept, signal, headers) {
  signal.throwIfAborted();
  const own = { ...(cursor && { 'Last-Event-ID': cursor }), Accept: accept };
  const request = { headers: { ...headers, ...own }, credentials, cache: 'no-store', signal };
  return fetch(endpoint(url, topics, client && { client }), request);
}
