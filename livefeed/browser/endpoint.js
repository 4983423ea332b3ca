/** The one URL that a feed is asked for, and the names in it. */

export function endpoint(base, topics = [], more = {}) {
  const url = new URL(base, globalThis.document?.baseURI);
  for (const topic of topics) url.searchParams.append('topic', topic);
  for (const [name, value] of Object.entries(more)) if (value) url.searchParams.set(name, value);
  return url.href;
}

// A signed topic is "name~timestamp~signature"; blocks and `livefeed-open` say the name.
export const plainName = (topic) => topic.split('~')[0];
