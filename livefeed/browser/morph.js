/**
 * Makes an element like another, in place: what is the same stays, with its focus, its selection and what was typed.
 * Returns the one that is in the page then.
 */
export function morph(old, fresh) {
  if (old.isEqualNode(fresh)) return old;
  if (old.nodeName !== fresh.nodeName || !old.attributes) {
    old.replaceWith(fresh);
    return fresh;
  }
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) old.setAttribute(name, value);
  const before = [...old.childNodes];
  const after = [...fresh.childNodes];
  after.forEach((node, index) => (before[index] ? morph(before[index], node) : old.append(node)));
  for (const node of before.slice(after.length)) node.remove();
  return old;
}

/** Puts a node before another, or at the end: with what is focused in it, and with what plays. */
export function place(parent, node, before) {
  const active = document.activeElement;
  parent[parent.moveBefore && node.parentNode === parent ? 'moveBefore' : 'insertBefore'](node, before);
  if (node.contains(active)) active.focus({ preventScroll: true });
}

/** Removes a node; whoever was in it finds themselves at the next one then, or at what held it. */
export function take(node) {
  const near = node.nextElementSibling ?? node.parentNode;
  const focused = node.matches(':focus-within');
  node.remove();
  if (focused) focusOn(near, { preventScroll: true });
}

/** Removes what is more than the host's `limit`, from the first on; never what somebody is at. */
export function trim(nodes, host) {
  const limit = Number(host.getAttribute('limit')) || Infinity;
  for (const node of nodes.filter(isLeft).slice(0, Math.max(nodes.length - limit, 0))) node.remove();
}

export const isLeft = (node) => !node.matches(':hover, :focus-within');

export function focusOn(node, options) {
  if (node.tabIndex < 0) node.tabIndex = -1; // now it can have the focus
  node.focus(options);
}
