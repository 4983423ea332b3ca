import { Arrivals } from './arrivals.js';
import { parseElement } from './html.js';
import { focusOn, morph, place, take } from './morph.js';
import { compare, parseOrder, valuesOf } from './order.js';
import { fill, format } from './rendering.js';
import { isScrolledPast, keepPlace } from './scrolling.js';
import { newItems } from './texts.js';

const BUSY = 100; // ms

/**
 * The items in an element's `[data-live-list]`, each a child with a `data-key`. New ones wait first, each by its key, and
 * come into the page at once, or when the button `[data-live-new]` is pressed: while somebody reads further on.
 */
export class LiveList {
  #feed;
  #arrivals;
  #waiting = new Map();
  #idle;

  constructor(feed) {
    this.#feed = feed;
    this.#arrivals = new Arrivals(feed);
    feed.addEventListener?.('animationend', ({ target }) => target.removeAttribute('data-live-added'));
  }

  get node() {
    return this.#feed.find('[data-live-list]');
  }

  get #items() {
    return [...this.node.children].filter((item) => item.hasAttribute('data-key'));
  }

  #is(name, value) {
    return this.#feed.getAttribute(name) === value;
  }

  get #appends() {
    return this.#is('insert', 'append');
  }

  // Where new items come in.
  get #nearest() {
    return this.#items.at(this.#appends ? -1 : 0);
  }

  get #order() {
    return parseOrder(this.#feed.getAttribute('order'));
  }

  get #limit() {
    return Number(this.#feed.getAttribute('limit')) || Infinity;
  }

  /** Takes what events say: `[{type, data}]`, written together. */
  apply(batch) {
    if (batch.length > 1 || this.#feed.state === 'catching-up') this.#busy();
    keepPlace(this.node, this.#appends, () => this.#apply(batch));
  }

  #apply(batch) {
    const before = this.#waiting.size;
    for (const { type, data } of batch) if (Object(data).pk !== undefined) this.#take(type, data, String(data.pk));
    this.#arrivals.add(Math.max(this.#waiting.size - before, 0), this.node);
    if (this.#waiting.size && !this.#isHeld()) this.#show();
    this.settle();
  }

  #take(type, data, key) {
    const item = this.#items.find((item) => item.getAttribute('data-key') === key);
    if (type === 'deleted') {
      this.#waiting.delete(key);
      if (item) take(item, this.node);
    } else if (type === 'created' || type === 'updated') {
      if (item) this.#change(item, data);
      else if (type === 'created' || this.#waiting.has(key) || this.#isAmongThem(data)) this.#wait(key, data);
    }
  }

  // Of more than the list shows, the first that came would go again.
  #wait(key, data) {
    this.#waiting.set(key, data);
    if (this.#waiting.size > this.#limit) this.#waiting.delete(this.#waiting.keys().next().value);
  }

  #isHeld() {
    const item = this.#nearest;
    if (this.#is('hold', 'always')) return true;
    return item && !this.#is('hold', 'never') && isScrolledPast(this.node, item, this.#appends ? 'bottom' : 'top');
  }

  // Where there is no button, nothing waits for it. A feed has to own articles (ARIA 1.2): without one it is a group.
  settle() {
    const button = this.#feed.find('[data-live-new]');
    if (!button) this.#show();
    const role = this.node.getAttribute('role');
    if (role === 'feed' || role === 'group') this.node.setAttribute('role', this.#nearest ? 'feed' : 'group');
    if (!button) return;
    if (!this.#waiting.size && button === document.activeElement) this.#goToNewest();
    button.hidden = !this.#waiting.size;
    button.textContent = newItems(this.#feed, this.#waiting.size);
  }

  #goToNewest() {
    focusOn(this.#nearest ?? this.node);
  }

  /** Shows the items that wait, and goes there. */
  open() {
    this.#show();
    this.settle();
    this.#goToNewest();
  }

  #show() {
    if (!this.#waiting.size) return;
    for (const [key, data] of this.#waiting) this.#insert(key, data);
    this.#waiting.clear();
    this.#trim();
  }

  // Says to assistive technology that the list is being changed, until shortly after.
  #busy() {
    this.node.ariaBusy = true;
    clearTimeout(this.#idle);
    this.#idle = setTimeout(() => this.node?.removeAttribute('aria-busy'), BUSY);
  }

  /** Takes over fresh items; what didn't change stays, with its focus, selection and animations. */
  adopt(fresh) {
    this.#busy();
    keepPlace(this.node, this.#appends, () => this.#adopt(fresh));
  }

  #adopt(fresh) {
    this.#waiting.clear();
    const old = new Map(this.#items.map((item) => [item.dataset.key, item]));
    let next = this.#items.at(-1)?.nextElementSibling ?? null;
    const items = fresh.map((item) => this.#keep(old.get(item.dataset.key), item));
    for (const item of old.values()) if (!items.includes(item)) take(item, this.node);
    for (const item of items.reverse()) {
      if (item.parentNode !== this.node || item.nextElementSibling !== next) place(this.node, item, next);
      next = item;
    }
    this.settle();
  }

  #keep(known, item) {
    format(item, this.#feed);
    known?.removeAttribute('data-live-added');
    return known ? morph(known, item) : item;
  }

  #insert(key, data) {
    const item = this.#render(data);
    if (!item) return;
    item.dataset.key = key;
    item.dataset.liveAdded = '';
    place(this.node, item, this.#placeOf(item, data));
  }

  #change(item, data) {
    const known = item.dataset.order;
    const fresh = this.#render(data, item);
    const next = this.#placeOf(fresh, data);
    if (fresh.dataset.order !== known && next !== fresh.nextElementSibling) place(this.node, fresh, next);
  }

  // The item as its data says: HTML from the server, or the template with the data in it.
  #render(data, item) {
    if (data.html && this.#is('render', 'html')) return this.#keep(item, parseElement(data.html));
    const template = this.#feed.find('template')?.content.firstElementChild;
    const made = item ?? (template && document.importNode(template, true));
    if (made) fill(made, data, this.#feed);
    return made;
  }

  // What an item stands before: by its values, which are kept with it for those that come later; else at the near end.
  #placeOf(item, data) {
    const values = valuesOf(this.#order, data);
    if (values) item.dataset.order = JSON.stringify(values);
    if (values || this.#appends) return this.#after(values, item);
    return this.#nearest ?? this.node.firstElementChild;
  }

  #after(values, self) {
    const order = this.#order;
    const items = this.#items.filter((item) => item !== self);
    const stands = ({ dataset }) => dataset.order && compare(order, values, JSON.parse(dataset.order)) < 0;
    return (values && items.find(stands)) ?? items.at(-1)?.nextElementSibling ?? null;
  }

  // An item that was further on than the list shows is in it now, unless its place is at the far end.
  #isAmongThem(data) {
    const values = valuesOf(this.#order, data);
    const next = values && this.#after(values);
    const end = this.#appends ? this.#items[0] : this.#items.at(-1)?.nextElementSibling;
    return next && next !== end;
  }

  // From the far end; never the item somebody is in.
  #trim() {
    const items = this.#appends ? this.#items : this.#items.reverse();
    const free = items.filter((item) => !item.matches(':focus-within'));
    for (const item of free.slice(0, Math.max(items.length - this.#limit, 0))) item.remove();
  }
}
