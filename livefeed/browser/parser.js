export class EventStreamParser {
  #on;
  #decoder = new TextDecoder(); // UTF-8 whatever the charset says; drops one leading BOM, at the very start only
  #rest = ''; // the line that has begun
  #afterCR = false; // a CR ended the last line: an LF that follows belongs to it
  #ended = false;
  #id;
  #type = '';
  #topic = null;
  #data = [];

  /** The id of the last finished block: what a reconnect sends. An id of an unfinished block isn't in it. */
  lastEventId;

  /**
   * @param {object} on
   * @param {(event: {type: string, data: string, lastEventId: string, topic: string | null}) => void} on.onEvent
   * @param {(milliseconds: number) => void} [on.onRetry]  called when the line ends, not with its block
   * @param {(text: string) => void} [on.onComment]
   * @param {string} [on.lastEventId]  the id before this stream, which events without one report (as browsers do)
   */
  constructor({ lastEventId = '', ...on }) {
    this.#on = on;
    this.#id = this.lastEventId = lastEventId;
  }

  /** Takes the next bytes, cut anywhere. A CR at their end ends the line now, without waiting for an LF. */
  push(bytes) {
    let text = this.#decoder.decode(bytes, { stream: true });
    if (!text) return;
    if (this.#afterCR && text[0] === '\n') text = text.slice(1);
    this.#afterCR = text.endsWith('\r');
    const lines = (this.#rest + text).split(/\r\n|\r|\n/);
    this.#rest = lines.pop();
    for (const line of lines) this.#line(line);
  }

  /** The stream is over: the block that has begun is dropped, its id too, and nothing is dispatched any more. */
  end() {
    this.#ended = true;
  }

  #line(line) {
    if (this.#ended) return;
    if (line === '') return this.#dispatch();
    const colon = line.indexOf(':');
    if (colon === 0) return this.#on.onComment?.(line.slice(1));
    if (colon < 0) return this.#field(line, '');
    this.#field(line.slice(0, colon), line.slice(line[colon + 1] === ' ' ? colon + 2 : colon + 1));
  }

  #field(name, value) {
    if (name === 'data') this.#data.push(value);
    else if (name === 'event') this.#type = value;
    else if (name === 'topic') this.#topic = value; // ours; every other client skips it
    else if (name === 'id' && !value.includes('\0')) this.#id = value;
    else if (name === 'retry' && /^[0-9]+$/.test(value)) this.#on.onRetry?.(Number(value));
  }

  #dispatch() {
    this.lastEventId = this.#id; // also for a block without data
    const [type, topic, data] = [this.#type || 'message', this.#topic, this.#data];
    [this.#type, this.#topic, this.#data] = ['', null, []];
    if (data.length) this.#on.onEvent({ type, data: data.join('\n'), lastEventId: this.#id, topic });
  }
}
