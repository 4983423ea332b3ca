/**
 * What assistive technology is told: by one polite live region for all elements of the page, so that each thing is said
 * once. It is there, and empty, before anything is said: what comes with its text, or is the same again, is often not read.
 */

const PAUSE = 100; // ms
const STAYS = 5000; // ms: what was said is not there to be found later
const UNSEEN = 'position:fixed;clip-path:inset(50%)'; // takes no place, catches no pointer, and is read all the same

const texts = new Set();
let region;
let timer;

export function prepareToSay() {
  if (region?.isConnected) return;
  region = document.createElement('div');
  region.role = 'status';
  region.dataset.liveAnnouncer = '';
  region.style.cssText = UNSEEN; // which every policy allows, other than the attribute
  document.body.append(region);
}

export function say(text) {
  prepareToSay();
  region.textContent = '';
  texts.add(text);
  clearTimeout(timer);
  timer = setTimeout(speak, PAUSE);
}

// And when it has been read, nothing.
function speak() {
  region.textContent = [...texts].join(' ');
  if (texts.size) timer = setTimeout(speak, STAYS);
  texts.clear();
}
