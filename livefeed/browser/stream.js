import { judge } from './answers.js';
import { ask } from './asking.js';
import { parseJSON } from './json.js';
import { EventStreamParser } from './parser.js';

const OPENING = 10_000; // ms without a first byte: something on the way holds the stream back
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
  const parser = listen(to, on, run.signal, said);
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

// `said` is what the server has said of the stream itself: whether it is open, its keep-alive, how it ends.
function listen({ cursor, patient }, on, signal, said) {
  const open = (detail) => said.opened || on.opened(detail, (said.opened = true));
  const own = {
    'livefeed-open': (detail) => open(detail, (said.keepalive = detail.keepalive)),
    'livefeed-refused': ({ reason, limit, retry }) => end({ state: 'limited', reason, limit, wait: said.retry ?? retry }),
    'livefeed-closing': ({ reason }) => end({ reason }),
    'livefeed-sync': () => {}, // its id says it
  };
  const parser = new EventStreamParser({
    lastEventId: cursor,
    onRetry: (milliseconds) => on.retry((said.retry = milliseconds)),
    onComment: () => open({}),
    onEvent({ type, data, lastEventId: id, topic }) {
      if (Object.hasOwn(own, type)) return own[type](parseJSON(data, {}));
      open({}); // a server that isn't ours begins with anything
      if (!signal.aborted) on.event({ type, data, id, topic });
    },
  });
  const end = (farewell) => parser.end((said.farewell = farewell));
  signal.addEventListener('abort', () => parser.end());
  if (patient) open({});
  return parser;
}
