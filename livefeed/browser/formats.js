import { languageOf } from './language.js';
import { write } from './rendering.js';

const UNITS = Object.entries({ day: 86_400, hour: 3600, minute: 60 });

/** Writes how long ago it was into every `<time data-format="relative">` of the page: "5 minutes ago", in its language. */
export function keepTime() {
  for (const element of document.querySelectorAll('time[data-format=relative]')) {
    const seconds = (Date.parse(element.dateTime) - Date.now()) / 1000;
    const [unit, size] = UNITS.find(([, size]) => Math.abs(seconds) >= size) ?? ['second', 60];
    const format = new Intl.RelativeTimeFormat(languageOf(element), { numeric: 'auto' });
    if (seconds) write(element, format.format(Math.trunc(seconds / size), unit));
  }
}
