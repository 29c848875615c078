// What was seen so far: follows the tour's events, writes the log, and ticks off the steps. All of it comes from
// the events, and a page that is loaded anew knows as much as the one before.
import { play } from "./picture.js";
import { sentence, hasFailed } from "./words.js";

const FRESH = 8_000; // milliseconds: what is older when this page hears of it is written down, but not played
const MOST_REQUESTS = 25;

export const runs = { issuer: true, store: true };
export const hops = [];

let run;
let events;
let changed = () => {};

// Calls `listener` whenever there is news.
export function follow(listener) {
  changed = listener;
  // A tab in the background needs no stream; nor may one keep the page out of the back/forward cache.
  document.addEventListener("visibilitychange", () => (document.hidden ? stop() : start()));
  addEventListener("pagehide", stop);
  addEventListener("pageshow", start);
  start();
}

function start() {
  if (events || document.hidden) return;
  events = new EventSource("/tour/events");
  events.onmessage = ({ data }) => learn(JSON.parse(data));
}

function stop() {
  events?.close();
  events = undefined;
}

function learn(news) {
  // The demo was started anew, and knows nothing of before.
  if (run !== news.run) {
    run = news.run;
    hops.length = 0;
    document.getElementById("log").replaceChildren();
  }
  Object.assign(runs, news.runs);
  const last = hops.reduce((most, hop) => Math.max(most, hop.number), 0);
  const fresh = news.hops.filter((hop) => hop.number > last).sort((one, other) => one.at - other.at || one.number - other.number);
  hops.push(...fresh);
  for (const hop of fresh) {
    write(hop);
    if (news.now - hop.at < FRESH) play(hop, ofRequest(hop));
  }
  tick();
  changed(fresh);
}

function ofRequest({ request }) {
  return hops.filter((hop) => hop.request === request);
}

// A list for each request, the newest first; its hops in the order of their beginnings.
function write(hop) {
  const log = document.getElementById("log");
  let list = document.getElementById(`request-${hop.request}`);
  if (!list) {
    list = Object.assign(document.createElement("ol"), { id: `request-${hop.request}` });
    list.dataset.at = hop.at;
    const older = [...log.children].find((other) => Number(other.dataset.at) <= hop.at);
    log.insertBefore(list, older ?? null);
    while (log.children.length > MOST_REQUESTS) log.lastElementChild.remove();
  }
  const entry = Object.assign(document.createElement("li"), { textContent: sentence(hop, ofRequest(hop)) });
  entry.classList.toggle("failed", hasFailed(hop));
  list.append(entry);
}

const is = (hop, to, what) => hop.to === to && hop.what === what;
const isCall = (hop) => hop.to === "gateway" && hop.what.includes(" /api/");

const SEEN = {
  login: (hop) => is(hop, "gateway", "GET /bff/callback") && !hasFailed(hop),
  call: (hop) => isCall(hop) && hop.status === 200,
  expire: (hop) => isCall(hop) && hop.status === 200 && ofRequest(hop).some((other) => is(other, "issuer", "POST /token")),
  end: (hop) => is(hop, "gateway", "POST /bff/backchannel-logout") && !hasFailed(hop),
  issuer: (hop) => is(hop, "gateway", "GET /bff/login") && hop.status === 503,
  store: (hop) => isCall(hop) && hop.status === 503 && ofRequest(hop).some((other) => other.to === "store" && other.failed),
  logout: (hop) => is(hop, "gateway", "POST /bff/logout") && !hasFailed(hop),
};

function tick() {
  let isNext = true;
  for (const [step, isSeen] of Object.entries(SEEN)) {
    const item = document.getElementById(`step-${step}`);
    const isDone = hops.some(isSeen);
    item.classList.toggle("done", isDone);
    const title = item.querySelector("h3");
    let mark = title.querySelector(".mark");
    if (isDone && !mark) {
      mark = Object.assign(document.createElement("span"), { className: "mark", textContent: " ✓ seen" });
      title.append(mark);
    } else if (!isDone) {
      mark?.remove();
    }
    if (isNext && !isDone) item.setAttribute("aria-current", "step");
    else item.removeAttribute("aria-current");
    isNext &&= isDone;
  }
}
