/**
 * The shared worker: a union whose members are the pages. What is said over a port:
 *
 *     page → worker  {hello: {src, credentials, viewer, transport}, lock}   first; the page holds the lock while it lives
 *                    {join: n, topics, types, cursor}    for what it is here, now; the last one counts
 *                    {call: "reconnect" | "hurry"}
 *                    {answer: n, headers | error}        to {ask: n}
 *                    {taken: count}                      of the messages with `call`: who leaves too many is given up
 *                    {}                                  I live (where there are no locks)
 *                    {bye: 1}                            into the back/forward cache, frozen, or gone
 *     worker → page  {hello: lock}                       the worker holds the lock while it lives
 *                    {call: "onopen" | "onevent" | "onmove" | "onstate", detail, open: n}   as of a connection
 *                    {ask: n, detail}                    for the headers of a request
 *                    {away: 1}                           given up: come again, from where you are
 */

import { SYSTEM_CLOCK } from './alarm.js';
import { unionAt } from './union.js';
import { newLock } from './visit.js';

const LINGER = 5000; // ms after the last page: during a navigation there is none
const MOST_WAITING = 1024; // messages that a page has not taken; one that is frozen takes none
const ANSWER = 2000; // ms for a page to say its headers
const SILENCE = 150_000; // ms; the timers of hidden pages run once a minute

/** Makes this scope the worker that pages visit. */
export function serve(scope, clock = SYSTEM_CLOCK) {
  const { locks } = scope.navigator;
  const office = { clock, locks, lock: newLock(), unions: new Map(), visitors: new Set() };
  const hold = (ready) => () => ready() ?? new Promise(() => {}); // for life
  const ready = new Promise((resolve) => (locks ? locks.request(office.lock, hold(resolve)) : resolve()));
  scope.onconnect = ({ ports: [port] }) => new Visitor(port, office, ready);
}

// Headers are the pages' matter: of those at one address the last one heard of is asked first.
async function askPages(visitors, address, refused) {
  for (const visitor of [...visitors].reverse().filter((visitor) => visitor.address === address)) {
    const answer = await visitor.ask(refused);
    if (answer?.error) throw new Error(answer.error);
    if (answer) return answer.headers;
  }
  throw new Error('No page has said its headers.');
}

/** A page, as the worker sees it. */
class Visitor {
  address = '';
  #port;
  #office;
  #ready;
  #membership = null; // that events come for
  #next = null; // for more, or from further back: it takes the other's place once the union has got there
  #waiting = 0;
  #answers = [];
  #stay = new AbortController();
  #limit = SILENCE;
  #silence;

  constructor(port, office, ready) {
    this.#port = port;
    this.#office = office;
    this.#ready = ready;
    port.onmessage = ({ data }) => this.#hear(data);
  }

  /** What the page says of headers; nothing where it doesn't answer. */
  ask(detail) {
    return new Promise((resolve) => {
      this.#office.clock.setTimeout(resolve, ANSWER);
      this.#port.postMessage({ ask: this.#answers.push(resolve), detail });
    });
  }

  get #union() {
    const { address } = this;
    const { clock, unions, visitors } = this.#office;
    const headers = (refused) => askPages(visitors, address, refused);
    return unionAt(unions, JSON.parse(address), { linger: LINGER, headers, clock });
  }

  #hear(message) {
    const { hello, join, answer, taken, call, bye } = message;
    if (hello) return this.#welcome(message);
    if (this.#stay.signal.aborted) return;
    this.#listen();
    if (join) this.#join(message);
    else if (answer) this.#answers[answer - 1](message);
    else if (taken) this.#waiting -= taken;
    else if (call) this.#union.call(call);
    else if (bye) this.#leave();
  }

  async #welcome({ hello, lock: theirs }) {
    const { signal } = this.#stay;
    this.address = JSON.stringify(hello);
    await this.#ready;
    if (signal.aborted) return;
    if (theirs) {
      this.#limit = 0;
      this.#office.locks.request(theirs, { signal }, () => this.#leave()).catch(() => {}); // it has left
    }
    this.#listen();
    this.#port.postMessage({ hello: this.#office.lock });
  }

  #listen() {
    const { clock, visitors } = this.#office;
    visitors.delete(this);
    visitors.add(this); // at the end
    clock.clearTimeout(this.#silence);
    if (this.#limit) this.#silence = clock.setTimeout(() => this.#giveUp(), this.#limit);
  }

  #join({ join: open, topics: topic, types, cursor }) {
    const send = (call) => (detail) => this.#send({ call, detail, open });
    const onevent = send('onevent');
    this.#drop(this.#next);
    const next = (this.#next = this.#union.add({
      ...{ topic, types, cursor, onevent, onmove: send('onmove') },
      onreset: (reset) => onevent({ type: 'livefeed-reset', data: JSON.stringify(reset), id: next.cursor }),
      onstate: (change) => next === (this.#next ?? this.#membership) && send('onstate')(change),
      onopen: (detail) => this.#replace(next) ?? send('onopen')(detail),
    }));
  }

  #replace(next) {
    if (next !== this.#next) return;
    this.#drop(this.#membership);
    this.#membership = next;
    this.#next = null;
  }

  #drop(membership) {
    if (membership) this.#union.remove(membership);
  }

  #send(message) {
    if (++this.#waiting > MOST_WAITING) this.#giveUp();
    else this.#port.postMessage(message);
  }

  #giveUp() {
    this.#leave();
    this.#port.postMessage({ away: 1 });
  }

  #leave() {
    this.#stay.abort();
    this.#office.clock.clearTimeout(this.#silence);
    this.#office.visitors.delete(this);
    this.#drop(this.#membership);
    this.#drop(this.#next);
  }
}
