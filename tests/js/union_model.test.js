/** A union against a model of the server, with members that come and go from anywhere, and streams that are cut anywhere. */

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { newUnion } from '../../livefeed/browser/union.js';
import { FakeClock, FakeServer, at, event, opening, put } from './fakes.js';

const TOPICS = ['a', 'b', 'c'];
const STEPS = 300;

/** Numbers that follow from a seed: Park and Miller's generator. */
function chances(seed) {
  let state = seed;
  const random = () => (state = (state * 48_271) % 2_147_483_647) / 2_147_483_647;
  return { random, below: (number) => Math.floor(random() * number) };
}

// The browser may have left.
const say = (stream, text) => stream.send(text).catch(() => (stream.over = true));

/** The server: how far each topic is, and streams that begin where they were asked to, and are written to bit by bit. */
class Model {
  heads = { a: 5, b: 5, c: 5 };
  #streams = [];

  constructor(clock) {
    this.server = new FakeServer(clock);
  }

  #begin(stream, request) {
    const topics = request.url.searchParams.getAll('topic');
    const claims = (request.headers['Last-Event-ID'] ?? '').split('.');
    const placeOf = (topic) => claims.find((claim) => claim.startsWith(at(topic, 0).slice(0, 4)))?.slice(10);
    const places = Object.fromEntries(topics.map((topic) => [topic, parseInt(placeOf(topic) ?? this.heads[topic].toString(36), 36)]));
    const cursor = () => topics.map((topic) => at(topic, places[topic]));
    this.#streams.push({ stream, topics, places, cursor });
    return say(stream, opening(topics, cursor(), { head: topics.map((topic) => at(topic, this.heads[topic])) }));
  }

  /** Lets new streams open, some of them later, and each that is open say the next event of one of its topics. */
  async speak(below) {
    while (this.#streams.length < this.server.streams.length && below(3)) {
      const index = this.#streams.length;
      await this.#begin(this.server.streams[index], this.server.requests[index]);
    }
    for (const { stream, topics, places, cursor } of this.#streams.filter(({ stream }) => !stream.over)) {
      const behind = topics.filter((topic) => places[topic] < this.heads[topic]);
      const topic = behind[below(behind.length)];
      if (!topic) continue;
      places[topic] += 1;
      await say(stream, event(topic, places[topic], ...cursor()));
    }
  }

  cut(below) {
    const alive = this.server.streams.filter(({ over }) => !over);
    const stream = alive[below(alive.length)];
    if (stream) stream.fail((stream.over = true));
  }
}

async function run(seed) {
  const { random, below } = chances(seed);
  const clock = new FakeClock();
  const model = new Model(clock);
  put({ fetch: model.server.fetch, random });
  const members = [];
  const page = newUnion({ url: 'https://site.test/', client: 'model' }, true)(({ n, ask, cursor, event }) => {
    if (ask) return page.take({ headers: undefined });
    const member = Object.assign(members[n - 1], { cursor });
    if (event) member.told.push(event.type === 'created' ? Number(event.data) : event.data);
  });
  const come = () => {
    const topic = TOPICS[below(TOPICS.length)];
    const from = below(model.heads[topic] + 1);
    const member = { topic, from, isHere: true, told: [] };
    page.take({ n: members.push(member), topics: [topic], types: [], cursor: at(topic, from) });
  };
  const go = (member) => {
    if (member) page.take({ n: members.indexOf(member) + 1 }, (member.isHere = false));
  };
  const here = () => members.filter(({ isHere }) => isHere);
  const publish = () => (model.heads[TOPICS[below(TOPICS.length)]] += 1);
  const deeds = [
    () => members.length < 40 && come(),
    () => go(here()[below(2 * here().length)]),
    publish,
    publish,
    publish,
    () => below(5) || model.cut(below),
    () => clock.advance(below(100)),
    () => clock.advance(below(1000)),
  ];
  come();
  for (let step = 0; step < STEPS; step += 1) {
    await deeds[below(deeds.length)]();
    await model.speak(below);
  }
  for (let step = 0; step < 200; step += 1) {
    await clock.advance(1000);
    await model.speak(below);
  }
  return { model, members };
}

test('whoever comes, goes and is cut off, each member is told each event behind its place once, in order', async () => {
  for (let seed = 1; seed <= 20; seed += 1) {
    const { model, members } = await run(seed);
    assert.ok(members.length > 10);
    for (const [index, { topic, from, isHere, told }] of members.entries()) {
      const last = isHere ? model.heads[topic] : from + told.length;
      const all = Array.from({ length: last - from }, (_, number) => from + number + 1);
      assert.deepEqual(told, all, `seed ${seed}, member ${index + 1} of ${topic}`);
    }
  }
});
