/** What all elements of a page use: `configure()` sets it. */

export const settings = {};

export const fetchAs = (url, request) => (settings.fetch ?? globalThis.fetch)(url, request);
