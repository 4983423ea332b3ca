import { warn } from './reporting.js';

/** `data-format`: numbers and times as the page's language writes them. */

const NUMBERS = { number: {}, percent: { style: 'percent', maximumFractionDigits: 1 }, currency: { style: 'currency' } };
const TIMES = {
  time: { timeStyle: 'short' },
  date: { dateStyle: 'medium' },
  datetime: { dateStyle: 'medium', timeStyle: 'short' },
};
const UNITS = { year: 31_536_000, month: 2_592_000, week: 604_800, day: 86_400, hour: 3600, minute: 60, second: 1 };

/**
 * What an element with `data-format` shows, or nothing where there is nothing to format. The value is what `datetime` or
 * `value` say, as of `<time>` and `<data>`; else the given one, which is kept in `data-value`; else the text.
 */
export function formatted(element, language, given) {
  const named = element.getAttribute('datetime') ?? element.getAttribute('value');
  const value = (named ?? given ?? element.dataset.value ?? element.textContent).trim();
  const text = value && write(element.dataset.format ?? '', value, language);
  if (text && named === null) element.dataset.value = value;
  return text;
}

function write(style, value, language) {
  const [format, currency] = style.split(':');
  const known = NUMBERS[format] ? Number(value) : new Date(value);
  if (isNaN(known)) return '';
  if (format === 'relative') return relativeTime(known, language);
  const timeZone = value.length === 10 ? 'UTC' : undefined; // a bare date has no time zone
  const options = NUMBERS[format] ?? TIMES[format];
  try {
    return options && known.toLocaleString(language, { ...options, currency, timeZone });
  } catch (error) {
    warn(error); // no such currency
  }
}

/** "in 5 minutes", for a time (ms). */
export function relativeTime(time, language) {
  const seconds = Math.round((time - Date.now()) / 1000);
  const [unit, size] = Object.entries(UNITS).find(([, size]) => Math.abs(seconds) >= size) ?? ['second', 1];
  return new Intl.RelativeTimeFormat(language, { numeric: 'auto' }).format(Math.trunc(seconds / size), unit);
}
