/**
 * The shared worker: a union whose members are the pages. What is said over a port:
 *
 *     page → worker  {hello: {src, credentials, viewer, transport}, lock, join …}   first; the page holds the lock while it lives
 *                    {join: n, topics, types, cursor}    for what it is here, now; the last one counts
 *                    {call: "reconnect" | "hurry"}
 *                    {headers} or {error}                to {ask}
 *                    {ping}                              I live (where there are no locks)
 *                    {bye}                               into the back/forward cache, frozen, or gone
 *     worker → page  {hello: lock}                       the worker holds the lock while it lives
 *                    {call: "onopen" | "onevent" | "onmove" | "onstate", detail, join: n}   of the connection of all
 *                    {ask: {refused}}                    for the headers of a request
 *                    {away}                              given up for dead: come again, from where you are
 */

import { SYSTEM_CLOCK } from './alarm.js';
import { unionAt } from './union.js';
import { newLock, wait } from './visit.js';

const LINGER = 5000; // ms after the last page: during a navigation there is none
const ANSWER = 2000; // ms for a page to say its headers
const SILENCE = 150_000; // ms; the timers of hidden pages run once a minute

/** Makes this scope the worker that pages visit. */
export function serve(scope, clock = SYSTEM_CLOCK) {
  const { locks } = scope.navigator;
  const lock = newLock();
  const hold = (ready) => () => ready() ?? new Promise(() => {}); // for life
  const ready = new Promise((resolve) => (locks ? locks.request(lock, hold(resolve)) : resolve()));
  const office = { clock, locks, welcome: ready.then(() => ({ hello: lock })), unions: new Map() };
  scope.onconnect = ({ ports: [port] }) => new Visitor(port, office);
}

// Headers are the pages' matter: the last one that has said what it wants is asked first.
async function askPages({ members }, refused) {
  for (const visitor of [...members].reverse()) {
    const answer = await visitor.ask(refused);
    if (answer?.error) throw new Error(answer.error);
    if (answer) return answer.headers;
  }
  throw new Error('No page has said its headers.');
}

/** A page, as the worker sees it: a member of a union. */
class Visitor {
  #port;
  #office;
  #union;
  #join; // the number of the last one
  #answer;
  #silence;
  #stay = new AbortController();

  constructor(port, office) {
    this.#port = port;
    this.#office = office;
    port.onmessage = ({ data }) => this.#take(data);
  }

  hear(call, detail) {
    this.#port.postMessage({ call, detail, join: this.joined && this.#join });
  }

  /** What the page says of headers; nothing where it doesn't answer. */
  ask(refused) {
    return new Promise((resolve) => {
      this.#answer = resolve;
      this.#office.clock.setTimeout(resolve, ANSWER);
      this.#port.postMessage({ ask: { refused } });
    });
  }

  #take({ hello, lock, join, call, ping, bye, ...said }) {
    if (this.#stay.signal.aborted) return bye || this.#port.postMessage({ away: 1 });
    if (hello) this.#welcome(hello, lock);
    if (join) this.#enter(join, said);
    else if (call) this.#union.call(call);
    else if (bye) this.#leave();
    else if (ping) this.#listen();
    else this.#answer?.(said);
  }

  #welcome(address, lock) {
    const { clock, locks, unions, welcome } = this.#office;
    const headers = (refused) => askPages(union, refused);
    const union = (this.#union = unionAt(unions, address, { linger: LINGER, headers, clock }));
    if (lock) wait(lock, this.#stay.signal, () => this.#leave(), locks);
    welcome.then((message) => this.#port.postMessage(message));
  }

  #enter(join, said) {
    this.#union.remove(this); // to be the last
    this.#join = join;
    this.#union.add(Object.assign(this, said));
  }

  #listen() {
    const { clock } = this.#office;
    clock.clearTimeout(this.#silence);
    this.#silence = clock.setTimeout(() => this.#leave(), SILENCE);
  }

  #leave() {
    this.#stay.abort();
    this.#office.clock.clearTimeout(this.#silence);
    this.#union?.remove(this); // it may leave before it was let in
  }
}
