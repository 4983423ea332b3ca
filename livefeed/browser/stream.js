import { judge } from './answers.js';
import { ask } from './asking.js';
import { hearing } from './hearing.js';
import { EventStreamParser } from './parser.js';

export const OPENING = 10_000; // ms without a first word: something on the way holds the stream back
const SILENCE = 2500; // ms for each second between keep-alives: so long, and a connection counts as dead
const TYPE = 'text/event-stream';

/**
 * One request for a stream, from its headers to its end. Resolves with why it ended: `{reason}`, with `state` and `wait`
 * where the server said more, and `held` where it never began.
 */
export async function readStream(to, on, run) {
  const watch = (delay, ending) => to.alarm.set(delay, (slept) => run.abort(slept ? { reason: 'sleep' } : ending));
  watch(OPENING, { reason: 'timeout', held: true });
  const response = await ask(to, TYPE, run.signal);
  const refusal = judge(response, TYPE, to.clock.now());
  if (refusal) return refusal;
  const said = {};
  const parser = parse(to, on, run.signal, said);
  for (const reader = response.body.getReader(); ; ) {
    if (said.keepalive) watch(said.keepalive * SILENCE, { reason: 'timeout' });
    else if (said.opened) to.alarm.clear();
    const { done, value } = await reader.read();
    if (done) return { reason: 'end' };
    parser.push(value);
    if (said.farewell) return said.farewell;
    on.moved(parser.lastEventId); // a block without data has an id, too
  }
}

function parse({ cursor, patient }, on, signal, said) {
  const { open, hear } = hearing(on, signal, said);
  const parser = new EventStreamParser({
    lastEventId: cursor,
    onRetry: (milliseconds) => on.retry((said.retry = milliseconds)),
    onComment: () => open({}),
    onEvent(event) {
      hear(event);
      if (said.farewell) parser.end();
    },
  });
  signal.addEventListener('abort', () => parser.end());
  if (patient) open({});
  return parser;
}
