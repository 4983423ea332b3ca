/**
 * livefeed in the browser. From here esbuild makes the one file that is shipped: static/livefeed/livefeed.js.
 *
 * Why fetch and not EventSource: any answer but 200 ends an EventSource for good, it can't send a cursor on its first
 * request, can't carry Authorization, and doesn't notice a connection that is dead but open.
 */

import { LiveFeedElement } from './live-feed.js';

export { connect } from './connection.js';
export { EventStreamParser } from './parser.js';
export { configure } from './union.js';
export { LiveFeedElement };

if (globalThis.customElements && !customElements.get('live-feed')) customElements.define('live-feed', LiveFeedElement);
