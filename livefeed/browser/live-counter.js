import { languageOf } from './language.js';
import { LiveValueElement } from './live-value.js';
import { write } from './rendering.js';

/** `<live-counter>`: how many there are. */
export class LiveCounterElement extends LiveValueElement {
  show = 'count';

  settle() {
    if (this.hasAttribute('value')) write(this, this.value.toLocaleString(languageOf(this)));
  }

  take(batch) {
    this.value = batch.reduce((count, { type }) => count + (type === 'created') - (type === 'deleted'), this.value);
  }
}
