// The demo's single-page app. It holds no token, and asks the gateway for whatever it wants to know.
import { createClient } from "/bff/client.js";

import { label, skip } from "./picture.js";
import { follow, hops, runs } from "./tour.js";

// Whoever's session ends here wants to see it, and not to log in again at once.
const client = createClient({ loginWhenEnded: false });

const element = (id) => document.getElementById(id);

let session; // undefined until it is known
let expiresAt = 0; // the access token, by this page's clock
let hasEnded = false;
let trouble = "";

async function askForSession() {
  try {
    learn(await client.session());
    trouble = "";
  } catch (problem) {
    trouble = problem.status ? `The gateway can't say who you are right now (${problem.status}); the session is kept.` : "The gateway can't be reached.";
  }
  show();
}

function learn(answer) {
  session = answer;
  list(element("claims"), answer.authenticated ? answer.user : {});
  if (answer.authenticated) {
    hasEnded = false;
    expiresAt = Date.now() + answer.access_token_expires_in * 1000;
  }
}

function show() {
  say("who", trouble || who());
  const secondsLeft = Math.max(0, Math.round((expiresAt - Date.now()) / 1000));
  const isKnown = session?.authenticated ?? false;
  const access = secondsLeft > 0 ? `access token, ${secondsLeft} s left` : "access token, expired";
  const code = hops.some(({ what }) => what === "GET /bff/callback") ? "its code was used up" : "no code yet";
  const [issuer, store] = ["issuer", "store"].map((part) => (runs[part] ? "runs" : "stopped"));
  label({
    cookie: isKnown ? "session cookie, sealed" : "no session cookie",
    script: "scripts see: no token",
    access: isKnown ? access : "no token",
    refresh: isKnown ? "refresh token" : "",
    issuer,
    code: code.replace("its code was", "code:"),
    store,
    record: isKnown ? "sealed record" : "no record of you",
    api: "keeps no token",
  }, Object.keys(runs).filter((part) => !runs[part]));
  place("browser", isKnown ? "the session cookie: sealed, and HttpOnly, so no script can read it. No token." : "no session cookie, no token.");
  place("gateway", isKnown ? `the ${access}; the refresh token. Both only in memory.` : "no token.");
  place("store", `${store}. ${isKnown ? "It has your record, sealed with a key that is in the cookie alone." : "It has no record of you."}`);
  place("issuer", `${issuer}. It gave the tokens out; ${code}.`);
  place("api", "sees the access token while it is called, and keeps none.");
}

function who() {
  if (!session) return "Asking the gateway…";
  if (session.authenticated) return `You are ${session.user.name ?? session.user.sub}.`;
  if (!hasEnded) return "Nobody is logged in.";
  const last = hops.findLast(({ what }) => what.endsWith("logout"));
  return last?.from === "issuer"
    ? "Nobody is logged in any more: the issuer ended the session, and told the gateway."
    : "Nobody is logged in any more: the session has ended, and not by this page.";
}

async function callApi() {
  try {
    const response = await client.fetch("/api/hello", { headers: { Accept: "application/json" } });
    const answer = await response.json();
    say("outcome", outcome(response, answer));
    element("answer").textContent = JSON.stringify(answer, null, 2);
    if (response.status === 401) element("keep-calling").checked = false;
  } catch {
    say("outcome", "The gateway can't be reached.");
  }
  await askForSession();
  showWhatScriptsSee();
}

function outcome(response, answer) {
  if (response.ok) return `200: the API knows ${answer.hello}, by access token ${answer.access_token.number} of this session.`;
  if (response.status === 401) return "401: there is no session. Log in first.";
  return `${response.status}: ${answer.title ?? "no"}`;
}

async function press(button, done) {
  try {
    const response = await client.fetch(`/tour/${button}`, { method: "POST" });
    say("outcome", response.ok ? done : await response.text());
  } catch {
    say("outcome", "The gateway can't be reached.");
  }
  await askForSession();
}

function pressSwitch(part) {
  const isToStop = runs[part];
  return press(`${part}/${isToStop ? "stop" : "start"}`, `The ${part} ${isToStop ? "is stopped" : "runs again"}.`);
}

// The way out leads through the issuer. While that is stopped the session is ended here alone; its tokens are
// revoked once the issuer can be told.
async function logOut() {
  if (runs.issuer) return client.logout();
  try {
    const response = await client.fetch("/bff/logout", { method: "POST", headers: { Accept: "application/json" } });
    say("outcome", response.ok ? "The session has ended here. The issuer will be told once it runs." : `${response.status}: the session could not be ended.`);
  } catch {
    say("outcome", "The gateway can't be reached.");
  }
  await askForSession();
}

function showWhatScriptsSee() {
  const seen = { cookie: document.cookie, local: entries(localStorage), session: entries(sessionStorage) };
  for (const [id, value] of Object.entries(seen)) element(id).textContent = value === "" ? "empty" : value;
  element("verdict").textContent = Object.values(seen).every((value) => value === "")
    ? "Nothing. The session cookie is HttpOnly, and the tokens never came here."
    : "Something is there, but nothing that this app or the gateway has put there: other programs on localhost share it.";
}

const entries = (storage) => Object.entries(storage).map(([name, value]) => `${name}=${value}`).join("; ");

function place(part, text) {
  const where = document.querySelector(`[data-place="${part}"]`);
  if (where.textContent !== text) where.textContent = text;
}

function list(into, values) {
  const text = (kind, value) => Object.assign(document.createElement(kind), { textContent: value });
  const items = Object.entries(values).flatMap(([name, value]) => [text("dt", name), text("dd", String(value))]);
  into.replaceChildren(...(items.length ? items : [text("dt", "user"), text("dd", "nobody")]));
}

// A status is read out whenever it is written, even if nothing changed.
function say(id, message) {
  if (element(id).textContent !== message) element(id).textContent = message;
}

const deeds = {
  login: () => client.login({ returnTo: "/" }),
  logout: logOut,
  call: callApi,
  minute: () => press("minute", "A minute has passed."),
  end: () => press("issuer/end-sessions", "The issuer has logged everybody out."),
  issuer: () => pressSwitch("issuer"),
  store: () => pressSwitch("store"),
};

for (const button of document.querySelectorAll("[data-do]")) {
  button.addEventListener("click", () => {
    skip();
    deeds[button.dataset.do]();
  });
}

client.subscribe((answer, reason) => {
  hasEnded = reason === "logout";
  learn(answer);
  show();
});
follow((fresh) => {
  for (const part of ["issuer", "store"]) {
    document.querySelector(`[data-do="${part}"]`).textContent = `${runs[part] ? "Stop" : "Start"} the ${part}`;
  }
  if (fresh.length) askForSession();
  else show();
});
setInterval(() => document.hidden || show(), 1000);
setInterval(() => document.hidden || askForSession(), 5000);
setInterval(() => element("keep-calling").checked && callApi(), 2000);
showWhatScriptsSee();
