const LOOK = 5000;

/**
 * Rings at a time of the wall clock. A timer alone stands still while the machine sleeps, and would ring as much later; so
 * this one looks every five seconds.
 */
export function newAlarm() {
  let timer;
  const clear = () => clearTimeout(timer);
  const set = (delay, ring) => {
    const at = Date.now() + delay;
    const look = () => {
      const left = at - Date.now();
      if (left > 0) timer = setTimeout(look, Math.min(left, LOOK));
      else ring();
    };
    clear();
    look();
  };
  return { set, clear };
}
