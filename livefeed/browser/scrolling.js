const SLACK = 8; // px by which one may miss the end
const ANCHORS = globalThis.CSS?.supports('overflow-anchor', 'auto');

// What scrolls a list: itself, something around it, or the page, which has what <body> says about scrolling.
function scrollerOf(list) {
  for (let box = list; box && box !== document.body; box = box.parentElement) {
    if (/auto|scroll/.test(getComputedStyle(box).overflowY)) return box;
  }
  return document.scrollingElement;
}

const isPage = (box) => box === document.scrollingElement;

/** How far an item's edge, the upper or the lower, is below that of what scrolls the list (px). */
function distance(list, item, edge) {
  const box = scrollerOf(list);
  const view = isPage(box) ? { top: 0, bottom: innerHeight } : box.getBoundingClientRect();
  return item.getBoundingClientRect()[edge] - view[edge];
}

/** Whether an item's edge, the upper or the lower, is scrolled out of view. */
export const isScrolledPast = (list, item, edge) => distance(list, item, edge) * (edge === 'top' ? -1 : 1) > SLACK;

/**
 * Changes a list, and what is in view stays where it is: most browsers see to that, WebKit doesn't. Or it `follows`:
 * whoever was at its end before is there afterwards, as in a chat.
 */
export function keepPlace(list, follows, change) {
  const box = scrollerOf(list);
  const atEnd = box.scrollHeight - box.scrollTop - box.clientHeight <= SLACK && (box.scrollTop || !isPage(box));
  const seen = [...list.children].find((item) => item.getBoundingClientRect().bottom > 0);
  const top = () => seen.getBoundingClientRect().top;
  const before = seen && top();
  change();
  if (follows && atEnd) box.scrollTop = box.scrollHeight;
  else if (!ANCHORS && box.scrollTop && seen?.isConnected) box.scrollTop += top() - before;
}
