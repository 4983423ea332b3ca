const LATEST = 100; // ms: a hidden page has no frames, nor has one in a frame out of view

/** Calls back once, with the next frame of the page, or shortly where there is none. */
export function nextFrame(callback) {
  let frame = 0;
  const run = () => {
    clearTimeout(timer);
    cancelAnimationFrame(frame);
    callback();
  };
  const timer = setTimeout(run, LATEST);
  frame = requestAnimationFrame(run);
}
