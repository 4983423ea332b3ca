/**
 * The order of a feed's items, top to bottom: `order="-published_at pk"` names the fields, `-` before what descends. As
 * the databases do it: numbers by size, times by time, other text by its characters, and nothing before everything.
 */

const TIME = /^\d{4}-\d\d-\d\dT/; // Django leaves out what is zero: "…:05Z" comes before "…:05.5Z"

/** The values that an item stands by, as JSON, or null where the data lacks one of them. */
export function valuesOf(order, data) {
  const values = order?.split(' ').map((name) => data[name.replace('-', '')]);
  return values && !values.includes(undefined) ? JSON.stringify(values) : null;
}

/** Less than 0 where an item with the values `a` stands before one with `b`. */
export function compare(order, a, b) {
  const [x, y] = [a, b].map((text) => JSON.parse(text).map(comparable));
  const differences = order.split(' ').map((name, index) => (name[0] === '-' ? -1 : 1) * compareValues(x[index], y[index]));
  return differences.find(Boolean) ?? 0;
}

const comparable = (value) => (TIME.test(value) ? Date.parse(value) : value);

const compareValues = (a, b) => (a !== null) - (b !== null) || (a > b) - (a < b);
