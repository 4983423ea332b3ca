/** Reads JSON that may be none. */
export function parseJSON(text, otherwise) {
  try {
    return JSON.parse(text);
  } catch {
    return otherwise;
  }
}
