/**
 * What assistive technology is told: by one polite live region for all elements of the page, so that each thing is said
 * once. It is there, and empty, before anything is said: what comes with its text is often not read.
 */

const STAYS = 5000; // ms: what was said is not there to be found later
const UNSEEN = 'position:fixed;clip-path:inset(50%)'; // takes no place, catches no pointer, and is read all the same

let region;

export function prepareToSay() {
  if (region?.isConnected) return;
  region = document.createElement('div');
  region.role = 'status';
  region.ariaAtomic = false;
  region.style.cssText = UNSEEN; // which every policy allows, other than the attribute
  document.body.append(region);
}

export function say(text) {
  if (!text || [...region.children].some((line) => line.textContent === text)) return;
  const line = document.createElement('p');
  line.textContent = text;
  region.append(line);
  setTimeout(() => line.remove(), STAYS);
}
