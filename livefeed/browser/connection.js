import { newAlarm } from './alarm.js';
import { SHORTEST_WAIT, backOff, isRefused } from './answers.js';
import { listen } from './native.js';
import { readPages } from './polling.js';
import { readStream } from './stream.js';

const OPENING = 10_000; // ms without a first word: something on the way holds the stream back
const STEADY = 10_000; // open for so long: the next failure is the first again
const MINUTE = 60_000; // while pages are read a stream is tried so often

/**
 * Keeps an event stream open: retried for ever, and resumed. The state machine over at most two sources of events (requests
 * for a stream, or pages): the current one, and the next, which takes its place when it has opened, and not before.
 *
 * `where()` says what to ask for, `{topics, types, cursor, headers}`; `on` hears what comes: `open(detail)`, `event(block)`,
 * and `state(change)`.
 */
export function newConnection({ url, credentials, viewer, transport, client }, where, on) {
  const stream = transport === 'native' ? listen : readStream;
  const timer = newAlarm(); // until the next request
  let current = null;
  let next = null;
  let state;
  let attempt = 0; // failures in a row
  let retry = 3000; // until the server says otherwise
  let openedAt = Infinity;
  let waiting = ''; // for the next try: "named" where the server said how long

  function become(now, detail) {
    state = now;
    on.state({ state, attempt, ...detail });
  }

  function stop() {
    timer.clear();
    current?.end();
    next?.end();
    current = next = null;
    waiting = '';
  }

  function start(reason) {
    stop();
    open(stream);
    become('connecting', { reason });
  }

  function open(read) {
    timer.clear();
    next?.end();
    waiting = '';
    const to = { ...where(), url, credentials };
    const isOurs = to.topics[0]; // who names no topic talks to another kind of server
    if (isOurs) to.client = client; // lets a request take over the place of the one before, and only that
    const run = (next = newRun(read));
    run.watch(OPENING, { reason: 'timeout', held: isOurs && read !== readPages });
    read(to, run).catch(() => ({ reason: 'network' })).then(run.end);
  }

  /** One source's time. When it has ended, nothing is heard from it any more. */
  function newRun(read) {
    const abort = new AbortController();
    const { signal } = abort;
    const alarm = newAlarm();
    const alive = (take) => (said, more) => signal.aborted || take(run, said, more);
    const run = {
      read,
      signal,
      retry: (milliseconds) => (retry = milliseconds),
      unwatch: alarm.clear,
      open: alive(opened),
      hear: alive(hear),
      watch: alive((_, delay, ending = { reason: 'timeout' }) => alarm.set(delay, () => run.end(ending))),
      end: alive((_, ending) => {
        abort.abort();
        alarm.clear();
        if (ending) ended(run, ending);
      }),
    };
    return run;
  }

  // What the server says about the stream itself is not for whoever listens.
  function hear(run, block) {
    const said = () => JSON.parse(block.data);
    if (block.type === 'livefeed-open') return opened(run, said());
    if (block.type === 'livefeed-closing') return run.end(said());
    if (block.type === 'livefeed-refused') return run.end({ ...said(), state: 'limited', wait: said().retry });
    if (!waiting) attempt = 0;
    on.event(block);
  }

  function opened(run, detail) {
    if (viewer && detail.viewer && detail.viewer !== viewer) return run.end({ state: 'denied', reason: 'viewer' });
    current?.end();
    current = run;
    next = null;
    openedAt = Date.now();
    run.keepalive = detail.keepalive;
    run.unwatch();
    const isPage = run.read === readPages;
    if (isPage) timer.set(MINUTE, () => open(stream));
    on.open(detail);
    if (run === current) become(isPage ? 'polling' : 'open', { reason: isPage ? 'held' : 'open' });
  }

  function ended(run, { state: now = 'waiting', reason, held, wait, limit }) {
    const wasCurrent = run === current;
    if (wasCurrent) current = null;
    else next = null;
    if (wasCurrent && next) return; // its successor has taken its place on the server already
    if (held && !current) return open(readPages);
    if (now === 'closed' || now === 'denied' || (now === 'failed' && !current)) {
      stop();
      return become(now, { reason });
    }
    const retryIn = pause(run, wait);
    timer.set(retryIn, () => open(current ? run.read : stream));
    // Where only the successor failed, all is well for who is here.
    if (!current) become(now, { reason, retryIn, at: Date.now() + retryIn, limit });
  }

  function pause({ read }, wait) {
    if (current && current.read !== read) return MINUTE;
    if (Date.now() - openedAt >= STEADY) attempt = 0;
    openedAt = Infinity;
    waiting = Number.isFinite(wait) ? 'named' : 'own';
    const own = backOff(retry, attempt++);
    return waiting === 'named' ? Math.max(wait, SHORTEST_WAIT) + Math.random() * 1000 : own;
  }

  return {
    start,
    close: stop,
    /** Connects anew at once. */
    reconnect() {
      attempt = 0;
      start('reconnect');
    },
    /** Asks anew where to begin, by a request that replaces the present one when it has opened. Returns one that it cut short. */
    renew() {
      const before = next;
      if (current) open(current.read);
      else if (!waiting && state !== 'closed') start('topics');
      return before;
    },
    /** The network is back: soon, but not all in the same moment. */
    hurry() {
      if (waiting === 'own' || isRefused(state)) timer.set(Math.random() * 1000, () => open(current?.read ?? stream));
    },
  };
}
