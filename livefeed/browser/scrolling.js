const SLACK = 8; // px by which one may miss the end

// What scrolls a list: itself, something around it, or the page, which has what <body> says about scrolling.
function scrollerOf(list) {
  for (let box = list; box && box !== document.body; box = box.parentElement) {
    if (/auto|scroll/.test(getComputedStyle(box).overflowY)) return box;
  }
  return document.scrollingElement;
}

const isPage = (box) => box === document.scrollingElement;

/** Whether an item's edge, the upper or the lower, is scrolled out of view. */
export function isScrolledPast(list, item, edge) {
  const box = scrollerOf(list);
  const view = isPage(box) ? { top: 0, bottom: innerHeight } : box.getBoundingClientRect();
  const distance = item.getBoundingClientRect()[edge] - view[edge];
  return edge === 'top' ? distance < -SLACK : distance > SLACK;
}

/** Changes a list; whoever was at its end before is there afterwards, as in a chat. */
export function atEnd(list, change) {
  const box = scrollerOf(list);
  const follows = box.scrollHeight - box.scrollTop - box.clientHeight <= SLACK && (box.scrollTop || !isPage(box));
  change();
  if (follows) box.scrollTop = box.scrollHeight;
}
