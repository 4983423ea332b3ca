/** Tells the console, and nobody else. */
export const report = (error) => (globalThis.reportError ?? console.error)(error);
export const warn = (error) => console.warn(`livefeed: ${error.message}`);
