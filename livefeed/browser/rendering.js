import { formatted } from './formats.js';
import { languageOf } from './language.js';

/** Data into markup, as text: fields, attributes on a short list, numbers and times in the page's language. */

const ATTRIBUTES = /^(?:href|src|datetime|title|alt|class|hidden|value|max|min|low|high|optimum|(?:data|aria)-.+)$/;
const ADDRESSES = /^(?:href|src)$/;
const SAFE = /^(?:https?|mailto):$/;
const LOADS_CODE = 'script, style, link, meta, base, iframe, frame, object, embed';
const LIVE = 'live-feed, live-value, live-counter, live-toasts';

/** The field of this name, or the one that a path such as "author.name" leads to; "" is the data itself. */
const lookUp = (data, path) => (path ? path.split('.').reduce((value, name) => value?.[name], data) : data);

export const asText = (value) => (value && typeof value === 'object' ? JSON.stringify(value) : String(value ?? ''));

export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** The host's `<template>` with the data in it, or nothing where there is none. */
export function make(host, data) {
  const template = host.find('template')?.content.firstElementChild;
  return template && fill(document.importNode(template, true), data, host);
}

/** Puts data into an element and what is in it: `data-field` and `data-attr-*`. A live element inside has its own data. */
export function fill(root, data, host = root) {
  for (const element of ownIn(root)) {
    for (const { name, value } of [...element.attributes]) {
      if (name.startsWith('data-attr-')) bindAttribute(element, name.slice(10), lookUp(data, value));
    }
    const { field } = element.dataset;
    if (field !== undefined) show(element, host, asText(lookUp(data, field)));
  }
  return root;
}

/** Shows numbers and times in the language of the host, for what is not in the page yet has none. */
export function format(root, host = root) {
  for (const element of ownIn(root)) if (element.dataset.format) show(element, host);
}

function show(element, host, given) {
  const text = formatted(element, languageOf(host), given) || given;
  if (text !== undefined) write(element, text);
}

/** Writes anew how long ago things were, in all live elements. */
export function keepTime() {
  for (const element of document.querySelectorAll(LIVE)) format(element);
}

const ownIn = (root) =>
  [root, ...root.querySelectorAll('*')].filter((element) => !element.matches(LOADS_CODE) && isOf(root, element));

/** Whether an element inside belongs to this one, and not to another live element between them. */
export function isOf(root, element) {
  const owner = element.closest(LIVE);
  return !owner || owner === root || !root.contains(owner);
}

function bindAttribute(element, name, value) {
  if (!ATTRIBUTES.test(name)) return;
  const text = asText(value);
  const isGone = name === 'hidden' ? !value : value == null;
  const isUnsafe = ADDRESSES.test(name) && !SAFE.test(URL.parse(text, document.baseURI)?.protocol);
  if (isGone || isUnsafe) element.removeAttribute(name);
  else if (element.getAttribute(name) !== text) element.setAttribute(name, text);
}
