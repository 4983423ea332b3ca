/** A server, a clock and a listener for the connection, all in the test's hand. */

import { connect } from '../../livefeed/browser/connection.js';

const encoder = new TextEncoder();
export const settle = () => new Promise((resolve) => setImmediate(resolve));

export class FakeClock {
  time = Date.UTC(2030, 0, 1);
  timers = new Map();
  #next = 1;

  now = () => this.time;
  setTimeout = (callback, delay) => {
    this.timers.set(this.#next, { callback, at: this.time + delay });
    return this.#next++;
  };
  clearTimeout = (timer) => void this.timers.delete(timer);

  /** Lets time pass, timer by timer, with everything that follows from each. */
  async advance(milliseconds) {
    const end = this.time + milliseconds;
    await settle();
    for (;;) {
      const [timer, due] = [...this.timers].sort(([, a], [, b]) => a.at - b.at)[0] ?? [];
      if (timer === undefined || due.at > end) break;
      this.timers.delete(timer);
      this.time = due.at;
      due.callback();
      await settle();
    }
    this.time = end;
  }
}

/** One answer: a stream the test writes to, which fails when its request is aborted. */
class FakeStream {
  constructor(request) {
    this.body = new ReadableStream({ start: (controller) => (this.controller = controller) });
    request.signal.addEventListener('abort', () => this.fail());
  }
  async send(text) {
    this.controller.enqueue(encoder.encode(text));
    await settle();
  }
  async end() {
    this.controller.close();
    await settle();
  }
  fail() {
    try {
      this.controller.error(new TypeError('network'));
    } catch {
      // it has ended already
    }
  }
}

export const block = (type, data, id) =>
  `${id === undefined ? '' : `id: ${id}\n`}event: ${type}\ndata: ${JSON.stringify(data)}\n\n`;
export const OPEN = block('livefeed-open', { topics: ['t'], refused: [], resumed: null, keepalive: 15 }, 'c0');

/** A connection to a server that answers as `answers` say, the last one again and again; by default a stream. */
export function setUp({ answers = [], random = () => 0.5, ...options } = {}) {
  const clock = new FakeClock();
  const it = { clock, requests: [], streams: [], events: [], states: [], opens: [] };
  const respond = (request, answer = {}) => {
    if (answer === 'refused') throw new TypeError('Failed to fetch');
    if (answer === 'hangs') return new Promise(() => {});
    const { status = 200, type = 'text/event-stream', headers = {}, redirected = false } = answer;
    const stream = new FakeStream(request);
    it.streams.push(stream);
    return { status, redirected, headers: new Headers({ 'Content-Type': type, ...headers }), body: stream.body };
  };
  it.connection = connect('https://site.test/livefeed/', {
    topics: ['t'],
    clock,
    random,
    onevent: (event) => it.events.push(event),
    onstate: (change) => it.states.push(change),
    onopen: (detail) => it.opens.push(detail),
    fetch: async (url, request) => {
      it.requests.push({ url: new URL(url), at: clock.time, ...request });
      return respond(request, answers.length > 1 ? answers.shift() : answers[0]);
    },
    ...options,
  });
  Object.defineProperties(it, {
    stream: { get: () => it.streams.at(-1) },
    state: { get: () => it.states.at(-1) },
  });
  return it;
}
