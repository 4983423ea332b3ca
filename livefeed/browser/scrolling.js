const SLACK = 8; // px by which one may miss the end

// What scrolls a list: itself, something around it, or the page, which has what <body> says about scrolling.
function scrollerOf(list) {
  for (let box = list; box && box !== document.body; box = box.parentElement) {
    if (/auto|scroll/.test(getComputedStyle(box).overflowY)) return box;
  }
  return document.scrollingElement;
}

/** How far (px) an item's edge, the upper or the lower, is below that of what scrolls the list. */
function distance(list, item, edge) {
  const box = scrollerOf(list);
  const view = box === document.scrollingElement ? { top: 0, bottom: innerHeight } : box.getBoundingClientRect();
  return item.getBoundingClientRect()[edge] - view[edge];
}

/** Whether the newest item is out of sight: above, or in a list that appends below. */
export const isOutOfSight = (list, item, appends) =>
  appends ? distance(list, item, 'bottom') > SLACK : distance(list, item, 'top') < -SLACK;

/** Scrolls so that an item at the end is seen. */
export function followTo(list, item) {
  scrollerOf(list).scrollTop += Math.max(distance(list, item, 'bottom'), 0);
}
