/** What all elements of a page use: `configure()` sets it. */

export const settings = {};
