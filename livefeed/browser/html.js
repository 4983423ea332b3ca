import { trusted } from './trusted.js';

/**
 * HTML from the server, parsed where nothing runs and nothing loads. Before it comes into the page it is disarmed: a
 * feed's template escapes its data, and where one forgot to, there is still no script in it.
 */

const REMOVED = 'script, base, link, meta, object, embed';
const HANDLERS = /^(?:on.*|srcdoc)$/i;
const SCRIPT = /^javascript:/i;
const IGNORED = /[\0- ]/g; // WHATWG URL 4.4: by browsers too, in and before the scheme

export function parse(html) {
  const page = new DOMParser().parseFromString(trusted('createHTML', html), 'text/html');
  disarm(page);
  return page;
}

/** The first element of a piece of HTML, also of one that can't stand alone in a document, as a table's row. */
export const parseElement = (html) =>
  parse(`<template>${html}</template>`).querySelector('template').content.firstElementChild;

function disarm(root) {
  for (const element of root.querySelectorAll('*')) {
    if (element.matches(REMOVED)) element.remove();
    for (const { name, value } of [...element.attributes]) {
      if (HANDLERS.test(name) || SCRIPT.test(value.replace(IGNORED, ''))) element.removeAttribute(name);
    }
    if (element.localName === 'template') disarm(element.content);
  }
}
