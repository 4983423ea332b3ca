import { isRefused } from './answers.js';
import { newConnection } from './connection.js';
import { compare, entriesOf, markOf, oldest } from './cursors.js';
import { plainName } from './endpoint.js';

const GATHERING = 30; // ms: the elements of a page that start together share the first request
const LINGER = 5000; // ms after the last member: during a navigation there is none

// A signed name is "name~time~signature", the time in base 62, whose digits sort as ASCII does (django.core.signing): one
// that sorts behind another was signed later, and holds longer. So of several the newest is asked for.
const newest = (topics) => [...new Map([...topics, ...[...topics].sort()].map((topic) => [plainName(topic), topic])).values()];

/**
 * One connection for all members with one address: browsers allow six per origin over HTTP/1.1. It runs in a page, for its
 * elements, and in the worker, where it `lingers`, for all pages; both talk with it in messages:
 *
 *     to it    {n, topics, types, cursor}    a member comes, its number among those of this page
 *              {n}                           it leaves
 *              {call: "reconnect" | "hurry"}
 *              {headers}                     to {ask}
 *     from it  {n, cursor, event, change}    to a member: how far it is, and what there is to tell
 *              {ask}                         for the headers of a request
 *
 * Every member has its own place in each topic, and an event is for whoever stands where the connection stood before it:
 * nobody gets one twice or misses one, whoever joins from wherever, and whichever request brings it. Who stands further back
 * makes the union ask for a new stream from there; the old one goes on until that has opened.
 *
 * Returns `enter(post)`, which lets a page in: `take` is for its messages, and `post` for those to it.
 */
export function newUnion(address, lingers) {
  const members = new Set();
  let connection = null;
  let change = {}; // the connection's last one
  let granted = []; // topics, their marks in the same order, and what was refused, of the last opening
  let marks = [];
  let refused = [];
  let places = new Map(); // where the connection stands, by mark
  let heads = new Map(); // and where the topics stood when it opened
  let gathering = 0;
  let pace = GATHERING; // with each request that is cut short by who came meanwhile, the next ones are gathered for longer
  let leaving = 0;
  const waiting = []; // for headers

  const some = (test) => [...members].some(test);
  const markAt = (name) => marks[granted.indexOf(name)];
  const isRefusedTopic = (topic) => refused.some((name) => plainName(name) === plainName(topic) && name >= topic);
  const say = (member, message) => member.post({ n: member.n, cursor: member.cursor, ...message });

  // Whether the connection has not what this member is to get next: its topic, or what lies between them.
  const lacks = (member) =>
    member.topics.some((topic, index) => {
      const mark = markAt(member.names[index]);
      return mark ? compare(member.places.get(mark), places.get(mark)) < 0 : !isRefusedTopic(topic);
    });

  function place(member, mark, entry) {
    member.places.set(mark, entry);
    member.cursor = [...member.places.values()].join('.');
    return true;
  }

  /** Gives a member its place: without a cursor at `now`. */
  function seat(member, now, wasAsked) {
    for (const topic of member.names) {
      const mark = markAt(topic);
      const [theirs, own, head] = [member.places, places, now].map((map) => map.get(mark));
      // Who stands in another epoch has missed something, or further back than this began for it; unless the connection
      // itself is in another epoch: then a reset follows.
      const isLost = isNaN(compare(own, head));
      const ahead = compare(theirs, own);
      if (!mark || (theirs && (isLost || ahead >= 0 || (ahead < 0 && !wasAsked)))) continue;
      place(member, mark, isLost ? own : head);
      if (theirs) say(member, { event: { type: 'livefeed-reset', data: JSON.stringify({ topic, reason: 'behind' }), topic } });
    }
  }

  // Whoever stands no further back than the connection goes on with it, and has seen all up to there.
  function step(member, mark, entry) {
    const theirs = member.places.get(mark);
    return compare(theirs, places.get(mark)) >= 0 && compare(entry, theirs) > 0 && place(member, mark, entry);
  }

  function move(entries) {
    for (const [mark, entry] of entries) {
      for (const member of members) if (step(member, mark, entry)) say(member);
      places.set(mark, entry);
    }
    members.forEach(tell);
  }

  function take({ type, data, lastEventId: id, topic }) {
    if (!marks.length) return members.forEach((member) => say(member, { event: { type, data, topic } }, (member.cursor = id)));
    const after = entriesOf(id);
    const moved = [...after].filter(([mark, entry]) => places.get(mark) !== entry);
    const isReset = type === 'livefeed-reset';
    // A connection with one topic need not say it, EventSource can't.
    const name = (isReset ? JSON.parse(data).topic : topic) || granted[Math.max(marks.indexOf(moved[0]?.[0]), 0)];
    const mark = markAt(name);
    const entry = after.get(mark);
    const fleeting = !moved.length; // it has no place
    for (const member of type === 'livefeed-sync' ? [] : members) {
      if (!member.names.includes(name)) continue;
      const isNew = isReset ? member.places.get(mark) !== entry && place(member, mark, entry) : step(member, mark, entry);
      if (isNew || fleeting) say(member, { event: { type, data, topic: name, fleeting } });
    }
    move(moved);
  }

  function opened({ topics = [], refused: names = [], cursor = '', head = cursor }) {
    granted = topics;
    refused = names;
    marks = cursor.split('.').map(markOf).slice(0, topics.length);
    places = entriesOf(cursor);
    heads = entriesOf(head);
    members.forEach((member) => seat(member, heads, member.asked));
    if (some((member) => !member.asked && lacks(member))) gather(); // they came when the request had been made
  }

  // Another's catching up is not this one's: who is open stays so. And nobody is told twice.
  function tell(member) {
    let { state, reason, attempt } = change;
    const isBehind = ([mark, entry]) => compare(entry, heads.get(mark)) < 0;
    if (state === 'open' || state === 'polling') {
      if (member.topics[0] && member.topics.every(isRefusedTopic)) [state, reason] = ['denied', 'refused'];
      else if (lacks(member)) return;
      else if (state === 'open' && !member.told?.startsWith(state) && [...member.places].some(isBehind)) state = 'catching-up';
    }
    const told = [state, reason, attempt].join();
    if (!state || member.told === told) return;
    member.told = told;
    say(member, { change: { ...change, state, reason } });
  }

  function gather() {
    gathering ||= setTimeout(update, pace);
  }

  function update() {
    gathering = 0;
    clearTimeout(leaving);
    if (!members.size) return (leaving = setTimeout(close, LINGER));
    if (!connection) {
      connection = newConnection(address, where, { open: opened, event: take, state: became });
      return connection.start('start');
    }
    members.forEach((member) => seat(member, places));
    members.forEach(tell);
    // Who has just been rendered may be let in, whatever the others were told.
    if (isRefused(change.state) || some(lacks)) pace = connection.renew() ? 2 * pace : GATHERING;
    else if (!granted.every((name) => some(({ names }) => names.includes(name)))) leaving = setTimeout(connection.renew, LINGER);
  }

  function where() {
    const all = [...members];
    for (const member of all) member.asked = true;
    const topics = newest(all.flatMap((member) => member.topics));
    return { topics, types: all.flatMap(({ types }) => types), cursor: oldest(all.map(({ cursor }) => cursor)), headers: ask };
  }

  function became(now) {
    change = now;
    if (!members.size) return close(); // it is opened again when somebody comes
    members.forEach(tell);
    if (now.state === 'connecting') return;
    pace = GATHERING;
    if (!gathering) return;
    clearTimeout(gathering);
    gathering = 0;
    gather();
  }

  function close() {
    clearTimeout(leaving);
    connection?.close();
    connection = null;
    change = {};
    granted = [];
    pace = GATHERING;
  }

  // Headers are the pages' matter: any of them is asked, and another next time.
  const ask = (refusal) =>
    new Promise((resolve) => {
      waiting.push(resolve);
      [...members].at(-Math.ceil(Math.random() * members.size)).post({ ask: refusal });
    });

  return (post) => {
    const remove = (n) => members.forEach((member) => member.post === post && (!n || member.n === n) && members.delete(member));
    return {
      take({ n, call, headers, ...member }) {
        if (call) return connection?.[call]();
        if (!n) return waiting.splice(0).forEach((resolve) => resolve(headers));
        remove(n);
        const { topics, cursor } = member;
        if (topics) members.add({ ...member, n, post, names: topics.map(plainName), places: entriesOf(cursor) });
        gather();
      },
      leave() {
        remove();
        if (lingers) gather();
        else close();
      },
    };
  };
}
