import { parseJSON } from './json.js';

/**
 * How what a server says is heard: its own events are about the stream, all others are for whoever listens. `said` takes
 * what there is to know of the stream: `opened`, `keepalive` (seconds), `retry` (ms) and, at its end, the `farewell`.
 */
export function hearing(on, signal, said) {
  const open = (detail) => {
    if (said.opened) return;
    said.opened = true;
    on.opened(detail);
  };
  const own = {
    'livefeed-open'(detail) {
      said.keepalive = detail.keepalive;
      open(detail);
    },
    'livefeed-refused'({ reason, limit, retry }) {
      said.farewell = { state: 'limited', reason, limit, wait: said.retry ?? retry };
    },
    'livefeed-closing'({ reason }) {
      said.farewell = { reason };
    },
    'livefeed-sync': (_, id) => on.moved(id),
  };
  const hear = ({ type, data, lastEventId: id, topic = null }) => {
    if (Object.hasOwn(own, type)) return own[type](parseJSON(data, {}), id);
    open({}); // a server that isn't ours begins with anything
    if (!signal.aborted) on.event({ type, data, id, topic });
  };
  return { open, hear, own: Object.keys(own) };
}
