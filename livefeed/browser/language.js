/** The language of an element, as Intl takes it; the browser's own where the page's is none, as "en_US". */
export function languageOf(element) {
  try {
    return Intl.getCanonicalLocales(element.closest('[lang]')?.lang)[0];
  } catch {
    return undefined;
  }
}
