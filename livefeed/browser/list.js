import { say } from './announcer.js';
import { parseElement } from './html.js';
import { focusOn, morph, place, take } from './morph.js';
import { compare, parseOrder, valuesOf } from './order.js';
import { fill, format, make } from './rendering.js';
import { isScrolledPast, keepPlace } from './scrolling.js';
import { newItems } from './texts.js';

const BUSY = 100; // ms
const APART = 5000; // ms between two summaries
const SOON = 500; // what comes together is said together
const FEW = 3; // items in that time that a log reads out by itself

/**
 * The items in an element's `[data-live-list]`, each a child with a `data-key`. New ones wait first, each by its key, and
 * come into the page at once, or when the button `[data-live-new]` is pressed: while somebody reads further on.
 */
export class LiveList {
  #feed;
  #waiting = new Map();
  #idle;
  #unsaid = 0;
  #silentUntil = 0;

  constructor(feed) {
    this.#feed = feed;
  }

  get node() {
    return this.#feed.find('[data-live-list]');
  }

  get #items() {
    return [...this.node.children].filter((item) => item.dataset.key !== undefined);
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
    this.#write(batch.length > 1 || this.#feed.state === 'catching-up', () => {
      const before = this.#waiting.size;
      for (const { type, data } of batch) if (data?.pk !== undefined) this.#take(type, data, String(data.pk));
      this.#announce(this.#waiting.size - before);
      if (!this.#isHeld()) this.#show();
    });
  }

  /** Takes over fresh items; what didn't change stays, with its focus, selection and animations. */
  adopt(fresh) {
    this.#write(true, () => {
      this.#waiting.clear();
      const items = fresh.map((item) => this.#keep(this.#find(item.dataset.key), item));
      for (const item of this.#items) if (!items.includes(item)) take(item, this.node);
      items.reduceRight((next, item) => this.#put(item, next), null);
    });
  }

  /** Shows the items that wait, and goes there. */
  open() {
    this.#show();
    this.settle();
    this.#goToNewest();
  }

  #goToNewest() {
    focusOn(this.#nearest ?? this.node);
  }

  // Of a batch, assistive technology is told that the list is being changed, until shortly after.
  #write(isBatch, change) {
    if (isBatch) {
      this.node.ariaBusy = true;
      clearTimeout(this.#idle);
      this.#idle = setTimeout(() => this.node?.removeAttribute('aria-busy'), BUSY);
    }
    keepPlace(this.node, this.#appends, () => this.settle(change()));
  }

  // Where there is no button, nothing waits for it. A feed has to own articles (ARIA 1.2): without one it is a group.
  settle() {
    const button = this.#feed.find('[data-live-new]');
    if (!button) this.#show();
    const role = this.node.getAttribute('role');
    if (role === 'feed' || role === 'group') this.node.setAttribute('role', this.#nearest ? 'feed' : 'group');
    if (!button) return;
    if (!this.#waiting.size && button === document.activeElement) this.#goToNewest(); // hidden, it would lose the focus
    button.hidden = !this.#waiting.size;
    button.textContent = newItems(this.#feed, this.#waiting.size);
  }

  #isHeld() {
    if (this.#is('hold', 'always')) return true;
    const item = this.#nearest;
    return item && !this.#is('hold', 'never') && isScrolledPast(this.node, item, this.#appends ? 'bottom' : 'top');
  }

  #find(key) {
    return this.#items.find((item) => item.dataset.key === key);
  }

  #take(type, data, key) {
    const item = this.#find(key);
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

  // An item that was further on than the list shows is in it now, unless its place is at the far end.
  #isAmongThem(data) {
    const values = valuesOf(this.#order, data);
    const next = values && this.#after(values);
    return next && (!this.#appends || next !== this.#items[0]);
  }

  #show() {
    for (const [key, data] of this.#waiting) this.#insert(key, data);
    if (this.#waiting.size) this.#trim();
    this.#waiting.clear();
  }

  #insert(key, data) {
    const item = this.#render(data);
    if (!item) return;
    item.dataset.key = key;
    item.dataset.liveAdded = '';
    const values = this.#mark(item, data);
    this.#put(item, values || this.#appends ? this.#after(values) : this.#nearest);
  }

  #change(item, data) {
    const known = item.dataset.order;
    const fresh = this.#render(data, item);
    const values = this.#mark(fresh, data);
    if (fresh.dataset.order !== known) this.#put(fresh, this.#after(values, fresh));
  }

  // The item as its data says: HTML from the server, or the template with the data in it.
  #render(data, item) {
    if (data.html && this.#is('render', 'html')) return this.#keep(item, parseElement(data.html));
    return item ? fill(item, data, this.#feed) : make(this.#feed, data);
  }

  #keep(known, item) {
    format(item, this.#feed);
    return known ? morph(known, item) : item;
  }

  // What an item stands by is kept with it, for those that come later.
  #mark(item, data) {
    const values = valuesOf(this.#order, data);
    if (values) item.dataset.order = JSON.stringify(values);
    return values;
  }

  // The item before which these values stand; none where that is the end.
  #after(values, self) {
    const order = this.#order;
    const stands = (item) =>
      item !== self && item.dataset.order && compare(order, values, JSON.parse(item.dataset.order)) < 0;
    return values && this.#items.find(stands);
  }

  #put(item, next = null) {
    if (item.parentNode !== this.node || item.nextElementSibling !== next) place(this.node, item, next);
    return item;
  }

  // From the far end; never the item somebody is in.
  #trim() {
    const items = this.#appends ? this.#items : this.#items.reverse();
    const free = items.filter((item) => !item.matches(':focus-within'));
    for (const item of free.slice(0, Math.max(items.length - this.#limit, 0))) item.remove();
  }

  // Before the items are written: a log reads a few of them by itself, of many it keeps silent. Then their number is said.
  #announce(count) {
    if (count <= 0) return;
    const few = this.node.getAttribute('role') === 'log' ? FEW : 0;
    if (!this.#unsaid) setTimeout(() => this.#summarize(few), few ? APART : Math.max(SOON, this.#silentUntil - Date.now()));
    this.#unsaid += count;
    if (few && this.#unsaid > few) this.node.ariaLive = 'off';
  }

  #summarize(few) {
    if (this.#unsaid > few) say(newItems(this.#feed, this.#unsaid));
    if (few) this.node?.removeAttribute('aria-live');
    this.#unsaid = 0;
    this.#silentUntil = Date.now() + APART;
  }
}
