import { formatted } from './formats.js';

/** Data into markup, as text: fields, attributes on a short list, numbers and times in the page's language. */

const ATTRIBUTES = /^(?:href|src|datetime|title|alt|class|hidden|value|max|min|low|high|optimum|(?:data|aria)-.+)$/;
const ADDRESSES = /^(?:href|src)$/;
const SAFE = /^(?:https?|mailto):/;
const LOADS_CODE = 'script, style, link, meta, base, iframe, frame, object, embed';
const LIVE = 'live-feed, live-value, live-counter, live-toasts';

/** The field of this name, or the one that a path such as "author.name" leads to; "" is the data itself. */
const lookUp = (data, path) => {
  if (path === '') return data;
  return Object.hasOwn(Object(data), path) ? data[path] : path.split('.').reduce((value, name) => value?.[name], data);
};

export const asText = (value) => (value && typeof value === 'object' ? JSON.stringify(value) : String(value ?? ''));

export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Puts data into an element and what is in it: `data-field` and `data-attr-*`. A live element inside has its own data. */
export function fill(root, data, host = root) {
  for (const element of bound(root, '*')) {
    for (const { name, value } of [...element.attributes]) {
      if (name.startsWith('data-attr-')) bindAttribute(element, name.slice(10), lookUp(data, value));
    }
    const { field } = element.dataset;
    if (field !== undefined) show(element, host, asText(lookUp(data, field)));
  }
}

/** Shows numbers and times in the page's language: those of this selector. */
export function format(root, host = root, selector = '[data-format]') {
  for (const element of bound(root, selector)) show(element, host);
}

function show(element, host, given) {
  const text = formatted(element, host, given) || given;
  if (text !== undefined) write(element, text);
}

/** Writes how long ago things were, in all live elements. */
export function keepTime() {
  for (const element of document.querySelectorAll(LIVE)) format(element, element, '[data-format=relative]');
}

const bound = (root, selector) =>
  [root, ...root.querySelectorAll(selector)].filter(
    (element) => element.matches(selector) && !element.matches(LOADS_CODE) && isOf(root, element),
  );

/** Whether an element inside belongs to this one, and not to another live element between them. */
export function isOf(root, element) {
  const owner = element.closest(LIVE);
  return !owner || owner === root || !root.contains(owner);
}

function bindAttribute(element, name, value) {
  if (!ATTRIBUTES.test(name)) return;
  const gone = name === 'hidden' ? !value : value === null || value === undefined;
  const text = name === 'hidden' ? '' : asText(value);
  if (gone || (ADDRESSES.test(name) && !isSafe(text))) element.removeAttribute(name);
  else if (element.getAttribute(name) !== text) element.setAttribute(name, text);
}

function isSafe(url) {
  try {
    return SAFE.test(new URL(url, document.baseURI));
  } catch {
    return false;
  }
}
