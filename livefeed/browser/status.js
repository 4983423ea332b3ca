import { say } from './announcer.js';
import { write } from './rendering.js';
import { textOf } from './texts.js';

const LASTS = 1000; // ms a state must last to be written: blips are nobody's business
const NEWS = 5000; // ms it must last to be said
const PASSING = ['connecting', 'catching-up', 'waiting']; // from one to the next is no news

/** What writes the state of an element into its line `[data-live-status]`, in words. */
export function statusOf(element) {
  let timers = [];
  let said = 'open';

  return (state) => {
    const text = textOf(element, state);
    const news = PASSING.includes(state) ? 'waiting' : state;
    timers.forEach(clearTimeout);
    timers = [
      setTimeout(() => {
        const line = element.find('[data-live-status]');
        if (line) write(line, text);
        if (line) line.hidden = !text;
      }, LASTS),
      setTimeout(() => news !== said && say(text, (said = news)), NEWS),
    ];
  };
}
