/** What a user of the types writes: it compiles, and what is wrong does not. */

import {
  EventStreamParser,
  LiveEventSource,
  LiveFeedElement,
  configure,
  connect,
  type LiveState,
} from "../../livefeed/static/livefeed/livefeed.js";

configure({ headers: async ({ status }) => (status === null ? { Authorization: "Bearer x" } : undefined) });

const connection = connect("/livefeed/?topic=news.article", {
  cursor: "",
  onevent: ({ type, data, topic }) => console.log(type, JSON.parse(data), topic?.length),
  onstate: ({ state, retryIn, at }) => console.log(state, (retryIn ?? 0) + (at ?? 0)),
  transport: "native",
  types: ["created"],
});
const state: LiveState = connection.state;
connection.pause();
// @ts-expect-error: a state is only read
connection.state = "open";
// @ts-expect-error: no such transport
connect("/livefeed/", { transport: "websocket" });

const source = new LiveEventSource("/livefeed/?topic=a", { withCredentials: true, share: "none", lastEventId: "" });
source.onmessage = ({ data, lastEventId }) => console.log(data.length, lastEventId);
source.addEventListener("state", ({ detail }) => console.log(detail.reason));
source.addEventListener("created", ({ data, topic }) => console.log(JSON.parse(data), topic));
source.addEventListener("open", { handleEvent: (event) => console.log(event.type) });
const drop: EventTarget = source;
const isOpen: boolean = source.readyState === LiveEventSource.OPEN;

const parser = new EventStreamParser({ onEvent: ({ lastEventId }) => console.log(lastEventId) });
parser.push(new Uint8Array([10]));
parser.end();

const feed = document.querySelector("live-feed");
feed?.addEventListener("livefeed:message", (event) => {
  if (event.detail.type === "created") event.preventDefault();
});
feed?.addEventListener("livefeed:state", ({ detail }) => console.log(detail.state));
feed?.reconnect();
const count: number = document.querySelector("live-counter")?.value ?? 0;
// @ts-expect-error: another element has no value
new LiveFeedElement().value;

export { count, drop, isOpen, state };
