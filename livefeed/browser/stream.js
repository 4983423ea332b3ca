import { judge } from './answers.js';
import { ask } from './asking.js';
import { EventStreamParser } from './parser.js';

const SILENCE = 2500; // ms for each second between keep-alives: so long, and a connection counts as dead
const TYPE = 'text/event-stream';

/** One request for a stream, from its headers to its end. Resolves with why it ended. */
export async function readStream(to, run) {
  const response = await ask(to, TYPE, run.signal);
  const refusal = judge(response, TYPE);
  if (refusal) return { ...refusal, held: response.status === 501 }; // a site under WSGI has pages, but no streams
  if (!to.topics[0]) run.open({});
  const parser = new EventStreamParser({ lastEventId: to.cursor, onRetry: run.retry, onEvent: run.hear });
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) return { reason: 'end' };
    parser.push(value);
    if (run.keepalive) run.watch(run.keepalive * SILENCE);
  }
}
