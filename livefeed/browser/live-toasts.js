import { LiveElement } from './element.js';
import { asText, fill } from './rendering.js';
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
    this.addEventListener?.('keydown', ({ key, target }) => key === 'Escape' && this.#remove(target.closest(TOAST)));
    this.addEventListener?.('focusin', ({ relatedTarget }) => {
      if (relatedTarget && !this.contains(relatedTarget)) this.#cameFrom = relatedTarget;
    });
  }

  get #region() {
    return this.find('[data-live-list]') ?? this;
  }

  // A live region is there before what it is to say, and says only what is new.
  ready() {
    this.#region.setAttribute('role', 'status');
    this.#region.ariaAtomic = false;
  }

  press(button) {
    if (button.matches(DISMISS)) this.#remove(button.closest(TOAST));
  }

  take(batch) {
    for (const { data } of batch) this.#add(data);
  }

  #add(data) {
    const others = [...this.#region.querySelectorAll(TOAST)];
    const spare = others.length + 1 - Number(this.getAttribute('limit') ?? LIMIT);
    for (const toast of others.filter(isLeft).slice(0, Math.max(spare, 0))) toast.remove();
    const toast = this.#render(data);
    this.#region.append(toast);
    this.#expire(toast, Number(this.getAttribute('seconds') ?? SECONDS) * 1000);
  }

  #render(data) {
    const template = this.find('template')?.content.firstElementChild;
    const content = template && document.importNode(template, true);
    if (content) fill(content, data, this);
    const toast = document.createElement('div');
    toast.dataset.liveToast = '';
    toast.append(content ?? asText(data?.text ?? data));
    if (!toast.querySelector(DISMISS)) toast.append(this.#button());
    return toast;
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

  // Whoever was at it is at the next one then, or where they came from.
  #remove(toast) {
    const next = (toast?.nextElementSibling ?? toast?.previousElementSibling)?.querySelector(DISMISS);
    toast?.remove();
    (next ?? this.#cameFrom)?.focus({ preventScroll: true });
  }
}

const isLeft = (toast) => !toast.matches(':hover, :focus-within');
