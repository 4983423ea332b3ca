/** Data into markup, as text: fields, and attributes on a short list. */

import { LOADS_CODE } from './html.js';

const ATTRIBUTES = /^(?:href|src|datetime|title|alt|class|hidden|value|max|(?:data|aria)-.+)$/;
const ADDRESSES = /^(?:href|src)$/;
const SAFE = /^(?:(?:https?|mailto):|[^:]*(?:[/?#]|$))/i; // these schemes, or none
const LIVE = 'live-feed, live-value, live-counter, live-toasts';

/** The field of this name, or the one that a path such as "author.name" leads to; "" is the data itself. */
const lookUp = (data, path) => (path ? path.split('.').reduce((value, name) => value?.[name], data) : data);

const asText = (value) => (value && typeof value === 'object' ? JSON.stringify(value) : String(value ?? ''));

export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** The host's `<template>` with the data in it, or nothing where there is none. */
export function make(host, data) {
  const template = host.find('template')?.content.firstElementChild;
  return template && fill(template.cloneNode(true), data);
}

/** Puts data into an element and what is in it: `data-field` and `data-attr-*`. A live element inside has its own data. */
export function fill(root, data) {
  for (const element of [root, ...root.querySelectorAll('*')]) {
    if (element.matches(LOADS_CODE) || !isOf(root, element)) continue;
    for (const { name, value } of [...element.attributes]) {
      if (name === 'data-field') write(element, asText(lookUp(data, value)));
      if (name.startsWith('data-attr-')) bind(element, name.slice(10), lookUp(data, value));
    }
  }
  return root;
}

/** Whether an element inside belongs to this one, and not to another live element between them. */
export const isOf = (root, element) => element.closest(LIVE) === root.closest(LIVE);

function bind(element, name, value) {
  if (!ATTRIBUTES.test(name)) return;
  const text = asText(value);
  const isGone = name === 'hidden' ? !value : value == null;
  if (isGone || (ADDRESSES.test(name) && !SAFE.test(text))) element.removeAttribute(name);
  else element.setAttribute(name, text);
}
