import { LiveElement } from './element.js';
import { LiveList } from './list.js';

/** `<live-feed>`: a list that follows its topic. The markup is rendered by the template tag. */
export class LiveFeedElement extends LiveElement {
  #list = new LiveList(this);

  // Without a list it is a stream for the page's own scripts.
  get show() {
    return this.#list.node && 'items';
  }

  ready() {
    if (this.show) this.#list.settle();
  }

  press({ dataset }) {
    if ('liveNew' in dataset) this.#list.open();
  }

  take(batch) {
    if (this.show) this.#list.apply(batch);
  }

  adopt(root) {
    this.#list.adopt([...(root.content ?? root).children]); // a <template> where items can't stand in a <div>, as rows
  }
}
