/**
 * livefeed in the browser. From here esbuild makes the one file that is shipped: static/livefeed/livefeed.js. It is the
 * module that pages load, and the worker that they share.
 *
 * Why fetch and not EventSource: any answer but 200 ends an EventSource for good, it can't send a cursor on its first
 * request, can't carry Authorization, and doesn't notice a connection that is dead but open.
 */

import { LiveCounterElement } from './live-counter.js';
import { LiveFeedElement } from './live-feed.js';
import { LiveToastsElement } from './live-toasts.js';
import { LiveValueElement } from './live-value.js';
import { serve } from './worker.js';

export { connect } from './connection.js';
export { LiveEventSource } from './event-source.js';
export { EventStreamParser } from './parser.js';
export { configure } from './sharing.js';
export { LiveCounterElement, LiveFeedElement, LiveToastsElement, LiveValueElement };

const ELEMENTS = {
  'live-feed': LiveFeedElement,
  'live-value': LiveValueElement,
  'live-counter': LiveCounterElement,
  'live-toasts': LiveToastsElement,
};

for (const [name, element] of Object.entries(ELEMENTS)) {
  if (globalThis.customElements && !customElements.get(name)) customElements.define(name, element);
}
if (globalThis.SharedWorkerGlobalScope) serve(globalThis);
