const LATEST = 100; // ms: a hidden page has no frames, nor has one in a frame out of view

/** Calls back with the next frame of the page and once more shortly after, which is the first time where there is none. */
export function nextFrame(callback) {
  requestAnimationFrame(callback);
  setTimeout(callback, LATEST);
}
