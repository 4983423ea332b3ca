/** The formats of Intl in the language of the page. */

const made = new Map();

/** The language of an element; of `host` where the element is not in the page yet. */
export const languageOf = (element, host = element) => (element.closest('[lang]') ?? host.closest('[lang]'))?.lang;

/** `new Intl[name](language, options)`, made once; in the browser's language where the page's is none, as "en_US". */
export function intl(name, language, options) {
  const key = JSON.stringify([name, language, options]);
  if (!made.has(key)) made.set(key, make(name, language, options));
  return made.get(key);
}

function make(name, language, options) {
  try {
    return new Intl[name](language || undefined, options);
  } catch {
    return new Intl[name](undefined, options);
  }
}
