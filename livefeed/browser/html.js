import { trusted } from './trusted.js';

/**
 * HTML from the server, parsed where nothing runs and nothing loads. Before it comes into the page it is disarmed: a
 * feed's template escapes its data, and where one forgot to, there is still no script in it.
 */

export const LOADS_CODE = 'script, base, link, meta, object, embed';

const ARMED = /^(?:on|srcdoc)|^[^=]+=javascript:/i;
const IGNORED = /[\0- ]/g; // WHATWG URL 4.4: by browsers too, in and before the scheme

/** A piece of HTML, also one that can't stand alone in a document, as a table's row. */
export function parse(html) {
  const page = new DOMParser().parseFromString(trusted('createHTML', `<template>${html}</template>`), 'text/html');
  disarm(page);
  return page.querySelector('template').content;
}

function disarm(root) {
  for (const element of root.querySelectorAll('*')) {
    if (element.matches(LOADS_CODE)) element.remove();
    for (const { name, value } of [...element.attributes]) {
      if (ARMED.test(`${name}=${value}`.replace(IGNORED, ''))) element.removeAttribute(name);
    }
    if (element.matches('template')) disarm(element.content);
  }
}
