/** Time that passes. */

export const sleep = (delay) => new Promise((resolve) => setTimeout(resolve, delay));
export const within = (delay, promise) =>
  Promise.race([promise, sleep(delay).then(() => Promise.reject(new Error(`No answer in ${delay} ms.`)))]);
