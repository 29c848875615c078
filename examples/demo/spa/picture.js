// The picture: plays hops one after the other, much slower than they were.
import { hasFailed, meaning, name, outcome } from "./words.js";

const SLOW = 800; // milliseconds a hop
const MOST_WAITING = 24;

const picture = document.getElementById("picture");
const dot = document.getElementById("dot");
const carriedText = document.getElementById("carried");
const caption = document.getElementById("caption");
const calm = matchMedia("(prefers-reduced-motion: reduce)");

const waiting = [];
let isPlaying = false;

export function play(hop, hops) {
  waiting.push([hop, hops]);
  // Who keeps calling wants to see what happens now.
  if (waiting.length > MOST_WAITING) waiting.splice(0, waiting.length - MOST_WAITING / 2);
  if (!isPlaying) playAll();
}

// Who does the next thing wants to see that.
export function skip() {
  waiting.length = 0;
}

async function playAll() {
  isPlaying = true;
  while (waiting.length) await playOne(...waiting.shift());
  for (const lit of picture.querySelectorAll(".lit")) lit.classList.remove("lit", "failed");
  isPlaying = false;
}

async function playOne(hop, hops) {
  const line = picture.querySelector(`[data-way="${hop.from} ${hop.to}"], [data-way="${hop.to} ${hop.from}"]`);
  const [what, carried] = meaning(hop, hops);
  const lit = [line, part(hop.from), part(hop.to)];
  for (const other of picture.querySelectorAll(".lit")) other.classList.remove("lit", "failed");
  for (const element of lit) element.classList.add("lit");
  line.classList.toggle("failed", hasFailed(hop));
  caption.textContent = `${name(hop.from)} → ${name(hop.to)}: ${what}: ${outcome(hop)}`;
  await move(line, line.dataset.way.startsWith(hop.from), carried || (hasFailed(hop) ? "✕" : ""));
}

async function move(line, isForward, text) {
  const [x1, y1, x2, y2] = ["x1", "y1", "x2", "y2"].map((side) => line[side].baseVal.value);
  const ends = [`translate(${x1}px, ${y1}px)`, `translate(${x2}px, ${y2}px)`];
  const [from, to] = isForward ? ends : ends.reverse();
  const isAtRight = Math.max(x1, x2) > 250;
  carriedText.textContent = text;
  carriedText.setAttribute("x", isAtRight ? -11 : 11);
  carriedText.setAttribute("text-anchor", isAtRight ? "end" : "start");
  dot.classList.add("shown");
  const middle = `translate(${(x1 + x2) / 2}px, ${(y1 + y2) / 2}px)`;
  const frames = calm.matches ? [{ transform: middle }, { transform: middle }] : [{ transform: from }, { transform: to }];
  // A tab in the background draws nothing, and would wait for ever.
  const drawn = dot.animate(frames, { duration: SLOW, easing: "ease-in-out", fill: "forwards" }).finished;
  await Promise.race([drawn, new Promise((done) => setTimeout(done, 2 * SLOW))]);
  dot.classList.remove("shown");
}

function part(id) {
  return picture.querySelector(`[data-part="${id}"]`);
}

// What stands in each part; `stopped` are those that do not run.
export function label(chips, stopped) {
  for (const [id, text] of Object.entries(chips)) {
    const chip = picture.querySelector(`[data-chip="${id}"]`);
    if (chip.textContent !== text) chip.textContent = text;
  }
  for (const id of ["issuer", "store"]) part(id).classList.toggle("stopped", stopped.includes(id));
}
