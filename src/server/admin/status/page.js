// Puts each section that has changed in the place of the one before, every few seconds. What somebody has opened stays
// open, what has the focus keeps it, what is selected is left alone, and nothing moves under the reader's eyes.
const INTERVAL = 5000;
const live = document.getElementById('live');
const sources = new Map(sections(document).map((section) => [section.id, section.outerHTML]));

function sections(root) {
  return [...root.querySelectorAll('main > section')];
}

function isSelected(section) {
  const selection = getSelection();
  return !selection.isCollapsed && selection.containsNode(section, true);
}

function replace(old, fresh) {
  for (const details of old.querySelectorAll('details[open]')) {
    const same = fresh.querySelector(`#${details.id}`);
    if (same) same.open = true;
  }
  const focused = old.contains(document.activeElement) && document.activeElement.id;
  old.replaceWith(fresh);
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

function show(page) {
  document.title = page.title;
  const read = () => sections(document).find((section) => section.getBoundingClientRect().bottom > 0);
  const anchor = read();
  const top = anchor?.getBoundingClientRect().top;
  for (const fresh of sections(page)) {
    const old = document.getElementById(fresh.id);
    const source = fresh.outerHTML;
    if (old && sources.get(fresh.id) !== source && !isSelected(old)) {
      sources.set(fresh.id, source);
      replace(old, document.adoptNode(fresh));
    }
  }
  if (anchor) scrollBy(0, document.getElementById(anchor.id).getBoundingClientRect().top - top);
}

function say(words) {
  if (live.textContent !== words) live.textContent = words;
}

async function update() {
  if (document.hidden) return;
  try {
    const response = await fetch(location.href, { cache: 'no-store', signal: AbortSignal.timeout(2 * INTERVAL) });
    if (!response.ok) throw new Error(`status ${response.status}`);
    show(new DOMParser().parseFromString(await response.text(), 'text/html'));
    say('This page keeps itself up to date.');
  } catch {
    say('The gateway does not answer: what you see is of the time that stands above.');
  }
}

async function keepUpToDate() {
  for (;;) {
    await new Promise((resolve) => { setTimeout(resolve, INTERVAL); });
    await update();
  }
}

document.addEventListener('visibilitychange', update);
say('This page keeps itself up to date.');
keepUpToDate();
