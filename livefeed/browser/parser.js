/** Bytes of an event stream in, events out, as WHATWG HTML 9.2.6 says. */
export class EventStreamParser {
  /** The id of the last finished block: what a reconnect sends. An id of an unfinished block isn't in it. */
  lastEventId;

  /**
   * @param {object} on
   * @param {(event: {type: string, data: string, lastEventId: string, topic: string | null}) => void} on.onEvent
   * @param {(milliseconds: number) => void} [on.onRetry]  called when the line ends, not with its block
   * @param {string} [on.lastEventId]  the id before this stream, which events without one report (as browsers do)
   */
  constructor({ onEvent, onRetry, lastEventId = '' }) {
    const decoder = new TextDecoder(); // UTF-8 whatever the charset says; drops one leading BOM, at the very start only
    let rest = ''; // the line that has begun
    let afterCR; // a CR ended the last line: an LF that follows belongs to it
    let ended;
    let block = {};
    let id = (this.lastEventId = lastEventId);

    const fields = {
      data: (value) => (block.data = block.data === undefined ? value : `${block.data}\n${value}`),
      event: (value) => (block.type = value),
      topic: (value) => (block.topic = value), // ours; every other client skips it
      id: (value) => value.includes('\0') || (id = value),
      retry: (value) => /^[0-9]+$/.test(value) && onRetry?.(Number(value)),
    };
    const dispatch = () => {
      this.lastEventId = id; // also for a block without data
      const { type, data, topic = null } = block;
      block = {};
      if (data !== undefined) onEvent({ type: type || 'message', data, lastEventId: id, topic });
    };
    const take = (line) => {
      if (ended) return;
      if (!line) return dispatch();
      const [, name, value] = /^([^:]*):? ?(.*)$/s.exec(line);
      if (Object.hasOwn(fields, name)) fields[name](value);
    };

    /** Takes the next bytes, cut anywhere. A CR at their end ends the line now, without waiting for an LF. */
    this.push = (bytes) => {
      let text = decoder.decode(bytes, { stream: true });
      if (!text) return;
      if (afterCR && text[0] === '\n') text = text.slice(1);
      afterCR = text.endsWith('\r');
      const lines = (rest + text).split(/\r\n|\r|\n/);
      rest = lines.pop();
      lines.forEach(take);
    };

    /** The stream is over: the block that has begun is dropped, its id too, and nothing is dispatched any more. */
    this.end = () => (ended = true);
  }
}
