import { languageOf } from './language.js';

/** What an element says: its `data-text-…` attributes, which the tags write in the page's language. */
export const textOf = (element, name) => element.getAttribute(`data-text-${name}`) ?? '';

/** "3 new items": in the form that goes with the number, which stands in the place of "#". */
export function newItems(element, count) {
  const language = languageOf(element);
  const text = textOf(element, `new-${new Intl.PluralRules(language).select(count)}`) || textOf(element, 'new-other');
  return text.replace('#', count.toLocaleString(language));
}
