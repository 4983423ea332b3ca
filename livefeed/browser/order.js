/**
 * The order of a feed's items, top to bottom: `order="-published_at pk"` names the fields, `-` before what descends. As
 * the databases do it: numbers by size, times by time, other text by its characters, and nothing before everything.
 */

const TIME = /^\d{4}-\d\d-\d\dT/; // Django leaves out what is zero: "…:05Z" comes before "…:05.5Z"

export const parseOrder = (text) => text?.split(' ') ?? [];

/** The values that an item stands by, or null where the data lacks one of them. */
export function valuesOf(order, data) {
  const values = order.map((name) => data[name.replace(/^-/, '')]);
  return order.length && !values.includes(undefined) ? values : null;
}

/** Less than 0 where an item with the values `a` stands before one with `b`. */
export function compare(order, a, b) {
  for (const [index, name] of order.entries()) {
    const difference = compareValues(a[index], b[index]);
    if (difference) return name[0] === '-' ? -difference : difference;
  }
  return 0;
}

function compareValues(a, b) {
  if (a === null || b === null) return (a !== null) - (b !== null);
  if (TIME.test(a) && TIME.test(b)) return Date.parse(a) - Date.parse(b);
  return (a > b) - (a < b);
}
