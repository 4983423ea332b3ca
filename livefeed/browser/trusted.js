/** This file once it is built, which is the worker's script, too. */
export const OWN_URL = import.meta.url;

let policy;

/**
 * Marks text for a page that enforces Trusted Types and allows the policy "livefeed": `createHTML` for what our server has
 * rendered, `createScriptURL` for our own script, and nothing that markup names. Throws where the page does not allow it.
 */
export function trusted(kind, text) {
  policy ??= globalThis.trustedTypes?.createPolicy('livefeed', { createHTML: asItIs, createScriptURL: asItIs });
  return policy ? policy[kind](text) : text;
}

const asItIs = (text) => text;
