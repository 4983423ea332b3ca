import { settings } from './settings.js';

/** This file once it is built, which is the worker's script, too. */
export const OWN_URL = import.meta.url;

let policy;

/**
 * Marks text for a page that enforces Trusted Types and allows the policy "livefeed": `createHTML` for what our server has
 * rendered, `createScriptURL` for our own script. Throws where the page does not allow it.
 */
export function trusted(kind, text) {
  policy ??= globalThis.trustedTypes?.createPolicy('livefeed', { createHTML: (html) => html, createScriptURL });
  return policy ? policy[kind](text) : text;
}

// Where Trusted Types are enforced, a script may name the worker's script, and an attribute may not.
function createScriptURL(url) {
  if ([OWN_URL, settings.worker && absolute(settings.worker)].includes(url)) return url;
  throw new TypeError(`"${url}" is not livefeed's script. Name the worker by configure({worker}).`);
}

export const absolute = (url) => new URL(url, globalThis.document?.baseURI).href;
