import { judge } from './answers.js';
import { ask } from './asking.js';
import { entriesOf, marksOf, numbered } from './cursors.js';

const PATIENCE = 10_000; // ms for one page
const JSON_TYPE = 'application/json';

/**
 * The same events from pages of history, for where a stream doesn't come through: a page as soon as the last one says
 * that there is more, else about every retry interval. Resolves, as a stream does, with why it ended.
 */
export async function readPages(to, on, run) {
  let { cursor } = to;
  for (let first = true; ; first = false) {
    to.alarm.set(PATIENCE, () => run.abort({ reason: 'timeout' }));
    const response = await ask({ ...to, cursor }, JSON_TYPE, run.signal);
    const refusal = judge(response, JSON_TYPE, to.clock.now());
    if (refusal) return { ...refusal, held: false };
    const page = await response.json();
    run.signal.throwIfAborted();
    if (first) on.opened({ ...page, cursor: begin(cursor, page) });
    deliver(page, cursor, on, run.signal);
    cursor = page.cursor;
    if (page.more) continue;
    await new Promise((done) => to.alarm.set(on.retry() * (0.75 + to.random() / 2), done));
  }
}

// The cursor from which a page was read, in the order of its topics: what was sent holds where it says something.
function begin(cursor, { cursor: end }) {
  const sent = entriesOf(cursor);
  return [...entriesOf(end)].map(([mark, entry]) => sent.get(mark) ?? entry).join('.');
}

/** Says what a page holds as a stream would have said it. */
function deliver({ topics, unnamed = [], events, resets, cursor: end }, cursor, on, signal) {
  const marks = marksOf({ topics, cursor: end });
  const after = entriesOf(end);
  const position = new Map([...after, ...entriesOf(cursor)]);
  const say = (topic, entry, event) => {
    if (signal.aborted) return;
    position.set(marks.get(topic), entry);
    const id = [...after.keys()].map((mark) => position.get(mark)).join('.');
    on.event({ ...event(id), id, topic });
  };
  for (const { topic, reason } of resets) {
    const reset = (id) => ({ type: 'livefeed-reset', data: JSON.stringify({ topic, reason, cursor: id }) });
    say(topic, after.get(marks.get(topic)), reset);
  }
  for (const { topic, seq, type, data } of events) {
    const plain = unnamed.includes(topic);
    const text = plain && typeof data === 'string' ? data : JSON.stringify(data);
    say(topic, numbered(after.get(marks.get(topic)), seq), () => ({ type: plain ? 'message' : type, data: text }));
  }
  if (!signal.aborted) on.moved(end);
}
