import { LiveElement } from './element.js';
import { languageOf } from './language.js';
import { write } from './rendering.js';

const STEPS = { created: 1, deleted: -1 };

/** `<live-counter>`: how many there are. `data-live-changed`, "up" or "down", is there for an animation to begin with. */
export class LiveCounterElement extends LiveElement {
  show = 'count';

  get value() {
    return Number(this.getAttribute('value'));
  }

  set value(count) {
    if (count !== this.value) this.dataset.liveChanged = count > this.value ? 'up' : 'down';
    this.setAttribute('value', count);
  }

  ready() {
    write(this.find('[data-field]') ?? this, this.value.toLocaleString(languageOf(this)));
  }

  take(batch) {
    this.value = batch.reduce((count, { type }) => Math.max(count + (STEPS[type] ?? 0), 0), this.value);
  }

  adopt(root) {
    this.value = Number(root.getAttribute('value'));
  }
}
