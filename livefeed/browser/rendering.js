/** Data into markup, as text: fields, attributes on a short list, times in the reader's language. */

const ATTRIBUTES = /^(?:href|src|datetime|title|alt|class|hidden|data-.+|aria-.+)$/;
const URL_ATTRIBUTES = ['href', 'src'];
const LOADS_CODE = 'script, link, base, iframe, frame, object, embed';

export const lookUp = (data, path) =>
  Object.hasOwn(data, path) ? data[path] : path.split('.').reduce((value, name) => value?.[name], data);

export const asText = (value) => (value && typeof value === 'object' ? JSON.stringify(value) : String(value ?? ''));

export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function bindAttribute(element, name, value) {
  if (!ATTRIBUTES.test(name)) return;
  const gone = name === 'hidden' ? !value : value === null || value === undefined;
  if (gone || (URL_ATTRIBUTES.includes(name) && !isSafe(element, value))) return element.removeAttribute(name);
  const text = name === 'hidden' ? '' : asText(value);
  if (element.getAttribute(name) !== text) element.setAttribute(name, text);
}

function isSafe(element, value) {
  if (element.matches(LOADS_CODE)) return false;
  try {
    return ['http:', 'https:', 'mailto:'].includes(new URL(value, document.baseURI).protocol);
  } catch {
    return false;
  }
}

const TIMES = {
  time: { timeStyle: 'short' },
  date: { dateStyle: 'medium' },
  datetime: { dateStyle: 'medium', timeStyle: 'short' },
  relative: { numeric: 'auto' },
};
const UNITS = { year: 31_536_000, month: 2_592_000, week: 604_800, day: 86_400, hour: 3600, minute: 60, second: 1 };
const formats = new Map();

/** The time in `datetime` as `data-format` says, or null where there is none. */
export function formatTime(element, language) {
  const { format } = element.dataset;
  const text = element.getAttribute('datetime') ?? '';
  const time = Date.parse(text);
  if (!Object.hasOwn(TIMES, format ?? '') || Number.isNaN(time)) return null;
  if (format === 'relative') return relativeTime((time - Date.now()) / 1000, intl(format, language));
  return intl(format, language, text.length === 10 ? 'UTC' : undefined).format(time); // a bare date has no time zone
}

function relativeTime(seconds, format) {
  const [unit, size] = Object.entries(UNITS).find(([, size]) => Math.abs(seconds) >= size) ?? ['second', 1];
  return format.format(Math.trunc(seconds / size), unit);
}

function intl(format, language, timeZone) {
  const key = [format, language, timeZone].join();
  if (!formats.has(key)) {
    const Format = format === 'relative' ? Intl.RelativeTimeFormat : Intl.DateTimeFormat;
    formats.set(key, new Format(languageTag(language), { ...TIMES[format], timeZone }));
  }
  return formats.get(key);
}

function languageTag(language) {
  try {
    return Intl.getCanonicalLocales(language || undefined);
  } catch {
    return undefined; // "en_US" is no language tag
  }
}
