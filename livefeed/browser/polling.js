import { judge } from './answers.js';
import { ask } from './asking.js';
import { entriesOf, markOf, numbered } from './cursors.js';

const PATIENCE = 10_000; // ms for one page
const PAUSE = 3000; // ms between pages, about
const TYPE = 'application/json';

/**
 * The same events from pages of history, for where a stream doesn't come through: a page as soon as the last one says
 * that there is more, else every few seconds. Resolves, as a stream does, with why it ended.
 */
export async function readPages(to, run) {
  for (let first = true; !run.signal.aborted; first = false) {
    run.watch(PATIENCE);
    const response = await ask(to, TYPE, run.signal);
    const refusal = judge(response, TYPE);
    if (refusal) return refusal;
    const page = await response.json();
    if (first) run.open({ ...page, cursor: begin(to, page) });
    deliver(page, run.hear);
    to.cursor = page.cursor;
    if (!page.more) await new Promise((done) => setTimeout(done, PAUSE * (0.75 + Math.random() / 2)));
  }
}

// The cursor from which a page was read, in the order of its topics: what was sent holds where it says something.
function begin(to, { cursor }) {
  const sent = entriesOf(to.cursor);
  return cursor.split('.').map((entry) => sent.get(markOf(entry)) ?? entry).join('.');
}

/** Says what a page holds as a stream would have said it; an id is that of the one topic. */
function deliver({ topics, unnamed, events, resets, cursor }, hear) {
  const entryOf = (topic) => cursor.split('.')[topics.indexOf(topic)];
  for (const { topic, reason } of resets) {
    hear({ type: 'livefeed-reset', data: JSON.stringify({ topic, reason }), lastEventId: entryOf(topic), topic });
  }
  for (const { topic, seq, type, data } of events) {
    const plain = unnamed.includes(topic);
    const text = plain && typeof data === 'string' ? data : JSON.stringify(data);
    hear({ type: plain ? 'message' : type, data: text, lastEventId: numbered(entryOf(topic), seq), topic });
  }
  hear({ type: 'livefeed-sync', lastEventId: cursor });
}
