import { LiveElement } from './element.js';
import { isLeft, take, trim } from './morph.js';
import { make } from './rendering.js';

/** `<live-toasts>`: each event is a message that goes by itself, unless somebody is at it, or when it is dismissed. */
export class LiveToastsElement extends LiveElement {
  take(batch) {
    const region = this.find('[data-live-list]');
    for (const { data } of batch) {
      const toast = make(this, data);
      region.append(toast);
      expire(toast, Number(this.getAttribute('seconds')) * 1000);
    }
    trim([...region.children], this);
  }

  press(button) {
    const toast = button.closest('[data-live-toast]');
    if ('liveDismiss' in button.dataset) take(toast);
  }
}

// Whoever is at a message has the whole time again.
function expire(toast, time) {
  if (time) setTimeout(() => (isLeft(toast) ? toast.remove() : expire(toast, time)), time);
}
