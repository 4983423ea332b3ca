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
import { keepTime } from './formats.js';
import { serve } from './worker.js';

export { connect } from './connect.js';
export { LiveEventSource } from './event-source.js';
export { EventStreamParser } from './parser.js';
export { configure } from './sharing.js';
export { LiveFeedElement };

const TICK = 30_000; // ms until "5 minutes ago" is looked at again

const ELEMENTS = {
  'live-feed': LiveFeedElement,
  'live-value': LiveValueElement,
  'live-counter': LiveCounterElement,
  'live-toasts': LiveToastsElement,
};

if (globalThis.customElements) {
  for (const [name, element] of Object.entries(ELEMENTS)) customElements.get(name) ?? customElements.define(name, element);
  setInterval(keepTime, TICK);
}
if (globalThis.SharedWorkerGlobalScope) serve(globalThis);
