import { LiveElement } from './element.js';
import { asText, make } from './rendering.js';
import { textOf } from './texts.js';

const SECONDS = 8;
const LIMIT = 3;
const TOAST = '[data-live-toast]';
const DISMISS = '[data-live-dismiss]';

/** `<live-toasts>`: each event is a message that goes by itself, unless somebody is at it, or when it is dismissed. */
export class LiveToastsElement extends LiveElement {
  #cameFrom;

  constructor() {
    super();
    this.addEventListener?.('keydown', ({ key, target }) => key === 'Escape' && this.#dismiss(target.closest(TOAST)));
    this.addEventListener?.('focusin', ({ relatedTarget }) => {
      if (relatedTarget && !this.contains(relatedTarget)) this.#cameFrom = relatedTarget;
    });
  }

  get #region() {
    return this.find('[data-live-list]') ?? this;
  }

  get #toasts() {
    return [...this.#region.querySelectorAll(TOAST)];
  }

  // A live region is there before what it is to say, and says only what is new.
  ready() {
    this.#region.role = 'status';
    this.#region.ariaAtomic = false;
  }

  take(batch) {
    for (const { data } of batch) this.#add(data);
  }

  #add(data) {
    const spare = this.#toasts.length + 1 - Number(this.getAttribute('limit') ?? LIMIT);
    for (const toast of this.#toasts.filter(isLeft).slice(0, Math.max(spare, 0))) toast.remove();
    const toast = document.createElement('div');
    toast.dataset.liveToast = '';
    toast.append(make(this, data) ?? asText(data?.text ?? data));
    if (!toast.querySelector(DISMISS)) toast.append(this.#button());
    this.#region.append(toast);
    this.#expire(toast, Number(this.getAttribute('seconds') ?? SECONDS) * 1000);
  }

  #button() {
    const button = document.createElement('button');
    Object.assign(button, { type: 'button', textContent: '×', ariaLabel: textOf(this, 'dismiss') });
    button.dataset.liveDismiss = '';
    return button;
  }

  // Whoever is at a message has the whole time again.
  #expire(toast, time) {
    if (time) setTimeout(() => (isLeft(toast) ? toast.remove() : this.#expire(toast, time)), time);
  }

  press(button) {
    if (button.matches(DISMISS)) this.#dismiss(button.closest(TOAST));
  }

  // Whoever was at it is at the next one then, or where they came from.
  #dismiss(toast) {
    const near = toast?.nextElementSibling ?? toast?.previousElementSibling;
    toast?.remove();
    (near?.querySelector(DISMISS) ?? this.#cameFrom)?.focus({ preventScroll: true });
  }
}

const isLeft = (toast) => !toast.matches(':hover, :focus-within');
