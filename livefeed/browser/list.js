import { asText, bindAttribute, formatTime, lookUp, write } from './rendering.js';

/** The items in an element's `[data-live-list]`, each a child with a `data-key`. */
export class LiveList {
  #feed;

  constructor(feed) {
    this.#feed = feed;
    feed.addEventListener?.('animationend', ({ target }) => target.removeAttribute('data-live-added'));
  }

  get node() {
    return this.#feed.querySelector('[data-live-list]');
  }

  get #items() {
    return [...this.node.children].filter((item) => 'key' in item.dataset);
  }

  apply(type, data) {
    if (!this.node || data?.pk === undefined) return;
    const item = this.#items.find(({ dataset }) => dataset.key === String(data.pk));
    if (type === 'deleted') item?.remove();
    else if (item && ['created', 'updated'].includes(type)) this.#fill(item, data);
    else if (type === 'created') this.#insert(data);
  }

  /** Says to assistive technology that the list is being changed, until shortly after. */
  busy() {
    this.node?.setAttribute('aria-busy', 'true');
    setTimeout(() => this.node?.removeAttribute('aria-busy'), 100);
  }

  /** Takes over fresh items; who didn't change stays, with its focus, selection and animations. */
  adopt(fresh) {
    const old = new Map(this.#items.map((item) => [item.dataset.key, item]));
    const items = fresh.map((item) => {
      this.#format(item);
      const known = old.get(item.dataset.key);
      known?.removeAttribute('data-live-added');
      return known?.isEqualNode(item) ? known : item;
    });
    for (const child of [...this.node.children]) if (!items.includes(child)) child.remove();
    items.forEach((item, index) => {
      if (this.node.children[index] !== item) this.node.insertBefore(item, this.node.children[index] ?? null);
    });
  }

  /** Shows the times in the reader's language: all, or those of one format. */
  format(style) {
    if (this.node) this.#format(this.node, style);
  }

  #format(root, style) {
    for (const element of root.querySelectorAll(style ? `[data-format="${style}"]` : '[data-format]')) {
      write(element, this.#time(element) ?? element.textContent);
    }
  }

  #time(element) {
    return formatTime(element, (element.closest('[lang]') ?? this.#feed.closest('[lang]'))?.lang);
  }

  #insert(data) {
    const template = this.#feed.querySelector('template')?.content.firstElementChild;
    if (!template) return;
    const item = document.importNode(template, true);
    item.dataset.key = data.pk;
    item.dataset.liveAdded = '';
    this.#fill(item, data);
    this.node[this.#appends ? 'append' : 'prepend'](item);
    this.#trim();
  }

  get #appends() {
    return this.#feed.getAttribute('insert') === 'append';
  }

  // From the far end; never the item somebody is in.
  #trim() {
    const limit = Number(this.#feed.getAttribute('limit')) || Infinity;
    const items = this.#appends ? this.#items : this.#items.reverse();
    const spare = items.length - limit;
    if (spare <= 0) return;
    for (const item of items.filter((item) => !item.matches(':focus-within')).slice(0, spare)) item.remove();
  }

  #fill(item, data) {
    for (const element of [item, ...item.querySelectorAll('*')]) {
      for (const { name, value } of [...element.attributes]) {
        if (name.startsWith('data-attr-')) bindAttribute(element, name.slice(10), lookUp(data, value));
      }
      const { field } = element.dataset;
      if (field !== undefined) write(element, this.#time(element) ?? asText(lookUp(data, field)));
    }
  }
}
