/** A server, a clock and a listener for the connection, all in the test's hand. */

import { connect } from '../../livefeed/browser/connect.js';

const GATHERING = 30;

/** Puts these in the place of the platform's own; each test brings its own. */
export function put({ now = Date.now, random = Math.random, ...own }) {
  Object.assign(globalThis, own);
  Date.now = now;
  Math.random = random;
}

const encoder = new TextEncoder();
export const settle = () => new Promise((resolve) => setImmediate(resolve));

export class FakeClock {
  time = Date.UTC(2030, 0, 1) - GATHERING;
  timers = new Map();
  #next = 1;

  constructor() {
    const { now, setTimeout, clearTimeout } = this;
    put({ now, setTimeout, clearTimeout });
  }

  now = () => this.time;
  setTimeout = (callback, delay) => {
    this.timers.set(this.#next, { callback, at: this.time + delay });
    return this.#next++;
  };
  clearTimeout = (timer) => void this.timers.delete(timer);

  /** The machine sleeps: the wall clock goes on, its timers don't. */
  async sleep(milliseconds) {
    this.time += milliseconds;
    for (const timer of this.timers.values()) timer.at += milliseconds;
    await settle();
  }

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

/**
 * A server that answers as `answers` say, the last one again and again; by default a stream. An answer is what a response
 * is made of (`body` where it is no stream), or "refused", or "hangs". `answers` may also be a function of the request.
 */
export class FakeServer {
  requests = [];
  streams = [];

  constructor(clock, answers = []) {
    this.clock = clock;
    this.answers = answers;
  }

  fetch = async (url, request) => {
    this.requests.push({ url: new URL(url), at: this.clock.time, ...request });
    return this.#respond(request, this.#next(request));
  };

  #next(request) {
    if (typeof this.answers === 'function') return this.answers(request);
    return this.answers.length > 1 ? this.answers.shift() : this.answers[0];
  }

  get stream() {
    return this.streams.at(-1);
  }

  get topics() {
    return this.requests.map(({ url }) => url.searchParams.getAll('topic'));
  }

  get cursors() {
    return this.requests.map(({ headers }) => headers['Last-Event-ID'] ?? '');
  }

  #respond(request, answer = {}) {
    if (answer === 'refused') throw new TypeError('Failed to fetch');
    if (answer === 'hangs') return new Promise(() => {});
    const { status = 200, type = 'text/event-stream', headers = {}, redirected = false, body } = answer;
    const head = { status, redirected, headers: new Headers({ 'Content-Type': type, ...headers }) };
    if (body) return { ...head, json: async () => body };
    const stream = new FakeStream(request);
    this.streams.push(stream);
    return { ...head, body: stream.body };
  }
}

/** A connection to such a server, and all that it says. */
export async function setUp({ answers = [], random = () => 0.5, topics = ['t'], ...options } = {}) {
  const clock = new FakeClock();
  const server = new FakeServer(clock, answers);
  put({ random, fetch: server.fetch });
  const it = { clock, server, requests: server.requests, streams: server.streams, events: [], states: [] };
  it.connection = connect(`https://site.test/livefeed/?${new URLSearchParams(topics.map((topic) => ['topic', topic]))}`, {
    headers: () => undefined, // one of its own has a connection of its own
    onevent: (event) => it.events.push(event),
    onstate: (change) => it.states.push(change),
    ...options,
  });
  Object.defineProperties(it, {
    stream: { get: () => it.streams.at(-1) },
    state: { get: () => it.states.at(-1) },
  });
  await clock.advance(GATHERING);
  return it;
}

/** A place in a topic as the server writes it: a mark made of the topic's name, an epoch, a number in base 36. */
export const at = (topic, seq, epoch = 'epoch0') => topic.padEnd(4, '_').slice(0, 4) + epoch + seq.toString(36);

/** What a stream of these topics begins with: `places` are entries, in their order. */
export const opening = (topics, places, { head = places, ...more } = {}) =>
  block('livefeed-open', { topics, refused: [], cursor: places.join('.'), head: head.join('.'), keepalive: 15, ...more }, places.join('.'));

/** What a stream of the topic "t" begins with, where nobody says from where. */
export const OPEN = opening(['t'], [at('t', 0)]);

/** One event of a topic; its id is all places. */
export const event = (topic, data, ...places) => `topic: ${topic}\n${block('created', data, places.join('.'))}`;
