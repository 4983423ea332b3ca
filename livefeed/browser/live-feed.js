import { say } from './announcer.js';
import { LiveElement } from './element.js';
import { parse } from './html.js';
import { focusOn, morph, place, take, trim } from './morph.js';
import { compare, valuesOf } from './order.js';
import { fill, make } from './rendering.js';
import { followTo, isOutOfSight } from './scrolling.js';
import { newItems } from './texts.js';

const BUSY = 100; // ms
const APART = 5000; // ms between two summaries
const FEW = 3; // items in that time that a log reads out by itself

/**
 * `<live-feed>`: a list that follows its topic. Its items are in `[data-live-list]`, each with a `data-key`. New ones wait
 * first, each by its key, and come into the page at once, or when the button `[data-live-new]` is pressed: while somebody
 * reads further on. The markup is rendered by the template tag.
 */
export class LiveFeedElement extends LiveElement {
  #waiting = document.createElement('div');
  #unsaid = 0;

  get #list() {
    return this.find('[data-live-list]');
  }

  get #button() {
    return this.find('[data-live-new]');
  }

  get #items() {
    return [...this.#list.children];
  }

  get #appends() {
    return this.getAttribute('insert') === 'append';
  }

  // Where new items come in.
  get #nearest() {
    return this.#items.at(this.#appends ? -1 : 0);
  }

  get #order() {
    return this.getAttribute('order');
  }

  // Without a list it is a stream for the page's own scripts.
  get show() {
    return this.#list && 'items';
  }

  // A feed has to own articles (ARIA 1.2): without one it is a group. A button that is hidden would lose the focus.
  settle() {
    const list = this.#list;
    const button = this.#button;
    const count = this.#waiting.children.length;
    if (/feed|group/.test(list?.role)) list.role = this.#nearest ? 'feed' : 'group';
    if (!button) return;
    if (!count && button === document.activeElement) focusOn(this.#nearest ?? list);
    button.hidden = !count;
    button.textContent = newItems(this, count);
  }

  /** Shows the items that wait, and goes there. */
  press(button) {
    if (button !== this.#button) return;
    button.focus(); // which not every browser does
    this.#show();
  }

  take(batch) {
    const list = this.#list;
    if (!list) return;
    const before = this.#waiting.children.length;
    const isHeld = this.#button && this.#nearest && isOutOfSight(list, this.#nearest, this.#appends);
    if (batch.length > 1 || this.state === 'catching-up') this.#beBusy();
    for (const { type, data } of batch) if (data?.pk !== undefined) this.#hear(type, data, String(data.pk));
    this.#announce(this.#waiting.children.length - before);
    if (!isHeld) this.#show();
    if (!isHeld && this.#appends && this.#nearest) followTo(list, this.#nearest);
  }

  /** Takes over fresh items; what didn't change stays, with its focus, selection and animations. */
  adopt(root) {
    const fresh = [...(root.content ?? root).children]; // a <template> where items can't stand in a <div>, as rows
    this.#beBusy();
    this.#waiting.textContent = '';
    const items = fresh.map((item) => this.#keep(this.#find(item.dataset.key), item));
    for (const item of this.#items) if (!items.includes(item)) take(item);
    items.reduceRight((next, item) => this.#put(item, next), null);
  }

  // Of a batch, assistive technology is told that the list is being changed, until shortly after.
  #beBusy() {
    const list = this.#list;
    list.ariaBusy = true;
    setTimeout(() => (list.ariaBusy = null), BUSY);
  }

  #find(key) {
    return [...this.#items, ...this.#waiting.children].find((item) => item.dataset.key === key);
  }

  #hear(type, data, key) {
    const item = this.#find(key);
    if (type === 'deleted') {
      if (item) take(item);
    } else if (type === 'created' || (type === 'updated' && (item || this.#after(valuesOf(this.#order, data))))) {
      this.#write(key, data, item);
    }
  }

  // Writes an item. What its place in the order depends on stays with it; where that is another now, it goes there.
  #write(key, data, known) {
    const item = this.#render(data, known);
    if (!item) return;
    const place = item.dataset.order;
    const order = valuesOf(this.#order, data);
    item.dataset.key = key;
    if (order) item.dataset.order = order;
    if (!known) this.#waiting.append(item);
    else if (item.dataset.order !== place && item.parentNode !== this.#waiting) this.#place(item);
    trim([...this.#waiting.children], this);
  }

  #show() {
    if (!this.#waiting.children.length) return;
    for (const item of [...this.#waiting.children]) this.#place(item).dataset.liveAdded = '';
    trim(this.#appends ? this.#items : this.#items.reverse(), this);
  }

  #place(item) {
    const { order } = item.dataset;
    return this.#put(item, order || this.#appends ? this.#after(order, item) : this.#nearest);
  }

  // The item as its data says: HTML from the server, or the template with the data in it.
  #render(data, known) {
    if (data.html && this.getAttribute('render') === 'html') return this.#keep(known, parse(data.html).firstElementChild);
    return known ? fill(known, data) : make(this, data);
  }

  #keep(known, item) {
    return known ? morph(known, item) : item;
  }

  // The item before which an order stands; none where that is the end.
  #after(order, self) {
    const stands = (item) => item !== self && item.dataset.order && compare(this.#order, order, item.dataset.order) < 0;
    return order && this.#items.find(stands);
  }

  #put(item, next = null) {
    if (item.parentNode !== this.#list || item.nextElementSibling !== next) place(this.#list, item, next);
    return item;
  }

  // A log reads a few new items by itself, of many it keeps silent. Then their number is said.
  #announce(count) {
    const list = this.#list;
    const few = list.role === 'log' ? FEW : 0;
    if (count <= 0) return;
    if (!this.#unsaid) setTimeout(() => this.#summarize(list, few), APART);
    this.#unsaid += count;
    if (few && this.#unsaid > few) list.ariaLive = 'off';
  }

  #summarize(list, few) {
    if (this.#unsaid > few) say(newItems(this, this.#unsaid));
    list.ariaLive = null;
    this.#unsaid = 0;
  }
}
