/** livefeed in the browser: the types of livefeed.js, which lies beside this file. docs/javascript.md has the explanations. */

/** How a connection is. */
export type LiveState =
  | "connecting"
  | "catching-up"
  | "open"
  | "waiting"
  | "polling"
  | "limited"
  | "paused"
  | "denied"
  | "failed"
  | "closed";

/** A change of state. */
export interface LiveStateChange {
  state: LiveState;
  /** Why: "start", "open", "end", "timeout", "network", "http-503", "viewer", … */
  reason: string;
  /** Failures in a row. */
  attempt: number;
  /** Milliseconds until the next try, while "waiting" or "limited". */
  retryIn?: number;
  /** The time of the next try, as of `Date.now()`. */
  at?: number;
  /** How many connections are allowed, where the server says so. */
  limit?: number;
}

/** One event. */
export interface LiveEvent {
  /** "created", "updated", "deleted", a type of your own, "message", or "livefeed-reset". */
  type: string;
  /** JSON, or a plain text where the feed sends those. */
  data: string;
  /** The cursor behind it: what a page can come back with. */
  id: string;
  /** Its topic's own name; none from a server of another kind. */
  topic?: string | null;
  /** Whether it is none that is kept: its `id` is that of the last one that is. */
  fleeting?: boolean;
}

/** The status of the answer that was refused, or null where the request is a first one. */
export interface Refused {
  status: number | null;
}

/** Asked before each request, and once more where its answer was 401 or 403. */
export type Headers = (refused: Refused) => Record<string, string> | undefined | Promise<Record<string, string> | undefined>;

/** "fetch", or "native" for the browser's own EventSource. */
export type Transport = "fetch" | "native";

export interface ConnectOptions {
  /** Where to begin, instead of `since` in the URL; without both, now. */
  cursor?: string;
  /** For whom the page was rendered, instead of `viewer` in the URL: a stream that is for somebody else is denied. */
  viewer?: string;
  /** Headers of its own, for a connection of its own. */
  headers?: Headers;
  /** "same-origin" unless given. */
  credentials?: RequestCredentials;
  /** "none": a connection of this page's own. */
  share?: "none";
  transport?: Transport;
  /** The types of events that `transport: "native"` listens to, besides "message" and those of models. */
  types?: string[];
  /** The URL of the shared worker's script, where static files are of another origin. */
  worker?: string;
  onevent?: (event: LiveEvent) => void;
  onstate?: (change: LiveStateChange) => void;
}

export interface LiveConnection {
  readonly state: LiveState;
  /** What to come back with. */
  readonly cursor: string;
  /** Ends it for good. */
  close(): void;
  /** Hears nothing until `resume()`. */
  pause(): void;
  /** Goes on from the cursor. */
  resume(): void;
  /** Connects anew at once, from every state but "paused" and after `close()`: for all who share the connection. */
  reconnect(): void;
}

/** Follows the topics of a URL, as `{% livefeed_url %}` writes it. Throws a TypeError for an address that is none. */
export function connect(url: string | URL, options?: ConnectOptions): LiveConnection;

export interface LiveEventSourceInit extends Omit<ConnectOptions, "credentials" | "cursor" | "onevent" | "onstate"> {
  withCredentials?: boolean;
  /** Instead of `since` in the URL. */
  lastEventId?: string;
}

export interface LiveMessageEvent extends MessageEvent<string> {
  readonly topic?: string | null;
}

export interface LiveStateEvent extends Event {
  readonly detail: LiveStateChange;
}

/** `EventSource` over one connection for all tabs. */
export class LiveEventSource extends EventTarget {
  static readonly CONNECTING: 0;
  static readonly OPEN: 1;
  static readonly CLOSED: 2;
  constructor(url: string | URL, options?: LiveEventSourceInit);
  readonly CONNECTING: 0;
  readonly OPEN: 1;
  readonly CLOSED: 2;
  readonly url: string;
  readonly withCredentials: boolean;
  readonly readyState: 0 | 1 | 2;
  readonly state: LiveState;
  readonly cursor: string;
  onopen: ((this: LiveEventSource, event: Event) => unknown) | null;
  onmessage: ((this: LiveEventSource, event: LiveMessageEvent) => unknown) | null;
  onerror: ((this: LiveEventSource, event: Event) => unknown) | null;
  onstate: ((this: LiveEventSource, event: LiveStateEvent) => unknown) | null;
  close(): void;
  reconnect(): void;
  addEventListener(
    type: "open" | "error",
    listener: (this: LiveEventSource, event: Event) => unknown,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: "state",
    listener: (this: LiveEventSource, event: LiveStateEvent) => unknown,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: (this: LiveEventSource, event: LiveMessageEvent) => unknown,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
}

export interface EventStreamParserInit {
  onEvent: (event: { type: string; data: string; lastEventId: string; topic: string | null }) => void;
  /** Called when the line ends, not with its block. */
  onRetry?: (milliseconds: number) => void;
  /** The id before this stream. */
  lastEventId?: string;
}

/** Bytes of an event stream in, events out, as the HTML standard says. */
export class EventStreamParser {
  constructor(init: EventStreamParserInit);
  /** The id of the last finished block. */
  lastEventId: string;
  /** Takes the next bytes, cut anywhere. */
  push(bytes: Uint8Array): void;
  /** The stream is over: the block that has begun is dropped, and nothing is dispatched any more. */
  end(): void;
}

export interface Configuration {
  headers?: Headers;
}

/** Sets what all elements and all LiveEventSources of the page use. Call it right after the import. */
export function configure(options: Configuration): void;

/** What `<live-feed>` and the other elements have in common. */
declare class LiveElement extends HTMLElement {
  readonly state: LiveState;
  readonly cursor: string;
  pause(): void;
  resume(): void;
  reconnect(): void;
}

/** `<live-feed>`: a list that follows its topic. */
export class LiveFeedElement extends LiveElement {}

/** `<live-value>`: the newest data of a topic. */
export interface LiveValueElement extends LiveElement {
  value: unknown;
}

/** `<live-counter>`: how many there are. */
export interface LiveCounterElement extends LiveElement {
  value: number;
}

/** `<live-toasts>`: each event as a message that goes away. */
export interface LiveToastsElement extends LiveElement {}

declare global {
  interface HTMLElementTagNameMap {
    "live-feed": LiveFeedElement;
    "live-value": LiveValueElement;
    "live-counter": LiveCounterElement;
    "live-toasts": LiveToastsElement;
  }

  interface HTMLElementEventMap {
    "livefeed:state": CustomEvent<LiveStateChange>;
    /** Cancel it to render the event yourself. `data` is what its JSON says. */
    "livefeed:message": CustomEvent<{ type: string; data: unknown; id: string; topic: string }>;
    "livefeed:gap": CustomEvent<{ topic: string; reason: string }>;
    "livefeed:limit": CustomEvent<LiveStateChange>;
  }
}
