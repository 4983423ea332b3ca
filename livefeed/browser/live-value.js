import { LiveElement } from './element.js';
import { parseJSON } from './json.js';
import { fill } from './rendering.js';

/**
 * `<live-value>`: the newest data of a topic, or of the one object with this `key`, in whatever markup is inside. What it
 * shows stands in `value`, as JSON.
 */
export class LiveValueElement extends LiveElement {
  show = 'value';

  get value() {
    return parseJSON(this.getAttribute('value'), null);
  }

  set value(data) {
    this.setAttribute('value', JSON.stringify(data));
  }

  settle() {
    if (this.hasAttribute('value')) fill(this, this.value);
  }

  take(batch) {
    const key = this.getAttribute('key');
    const last = batch.filter(({ data }) => !key || String(data?.pk) === key).at(-1);
    if (last) this.value = last.type === 'deleted' ? null : last.data;
  }

  adopt({ dataset }) {
    this.value = parseJSON(dataset.value, null);
  }
}
