/** The formats of Intl in the language of the page. */

const made = new Map();

/** The language of an element; of `host` where the element is not in the page yet. */
export const languageOf = (element, host = element) => (element.closest('[lang]') ?? host.closest('[lang]'))?.lang;

/** `new Intl[name](language, options)`, made once. */
export function intl(name, language, options) {
  const key = JSON.stringify([name, language, options]);
  if (!made.has(key)) made.set(key, new Intl[name](languageTag(language), options));
  return made.get(key);
}

function languageTag(language) {
  try {
    return Intl.getCanonicalLocales(language || undefined);
  } catch {
    return undefined; // "en_US" is no language tag
  }
}
