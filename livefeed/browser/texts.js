import { relativeTime } from './formats.js';
import { languageOf } from './language.js';
import { settings } from './settings.js';

/** What an element says: its `data-text-…` attributes, which the tags write in the page's language. */

const ENGLISH = { 'new-one': '# new item', 'new-other': '# new items', pause: 'Pause', resume: 'Resume', dismiss: 'Dismiss' };

export const textOf = (element, name) =>
  element.getAttribute(`data-text-${name}`) ?? settings.strings?.[name] ?? ENGLISH[name] ?? '';

/** "3 new items": in the form that goes with the number, which stands in the place of "#". */
export function newItems(element, count) {
  const language = languageOf(element);
  const text = textOf(element, `new-${new Intl.PluralRules(language).select(count)}`) || textOf(element, 'new-other');
  return text.replace('#', count.toLocaleString(language));
}

/** A text with the time until then in the place of "#". */
export const timed = (element, text, at) =>
  text.replace('#', () => relativeTime(Math.max(at || 0, Date.now()), languageOf(element)));
