import { endpoint } from './endpoint.js';

/**
 * Sends one request, as the page wants it sent: its headers are asked for each time, and once more where the answer is
 * 401 or 403, for a token may have expired meanwhile.
 */
export async function ask({ url, topics, cursor, client, credentials, headers }, accept, signal) {
  const own = { ...(cursor && { 'Last-Event-ID': cursor }), Accept: accept };
  const send = (given) =>
    fetch(endpoint(url, topics, { client }), { headers: { ...given, ...own }, credentials, cache: 'no-store', signal });
  const response = await send(await headers?.({ status: null }));
  const { status } = response;
  const fresh = (status === 401 || status === 403) && (await headers?.({ status }));
  return fresh ? send(fresh) : response;
}
