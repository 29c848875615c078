// The demo's single-page app. It holds no token, and asks the gateway for whatever it wants to know.

const element = (id) => document.getElementById(id);

// What no other site can put on a request without being asked: the gateway wants it on every call by script.
const ask = (path) => fetch(path, { headers: { "X-CSRF": "1", Accept: "application/json" } });

let secondsLeft = null;
let asking = null;

// One question at a time: of two answers the older may come last, and would look like another token's.
function showSession() {
  asking ??= askForSession().finally(() => (asking = null));
  return asking;
}

async function askForSession() {
  try {
    const response = await ask("/bff/session");
    if (response.ok) show(await response.json());
    else say("who", `The gateway can't say right now (${response.status}); the session is kept.`);
  } catch {
    say("who", "The gateway can't be reached.");
  }
}

function show(session) {
  say("who", session.authenticated ? `You are ${session.user.name ?? session.user.sub}.` : "Nobody.");
  element("anonymous").hidden = session.authenticated;
  element("known").hidden = !session.authenticated;
  element("token").hidden = !session.authenticated;
  if (!session.authenticated) {
    secondsLeft = null;
    return;
  }
  list(element("claims"), session.user);
  showToken(session.access_token_expires_in);
}

function showToken(seconds) {
  // A token only ever grows older: more seconds than before are those of another one.
  if (secondsLeft !== null && seconds > secondsLeft) {
    const entry = document.createElement("li");
    entry.textContent = `${new Date().toLocaleTimeString()}, with ${secondsLeft} s left`;
    element("replaced").prepend(entry);
    element("never").hidden = true;
  }
  secondsLeft = seconds;
  element("left").textContent = seconds > 0 ? `${seconds} s left` : "Expired: the next call replaces it first";
  element("life").value = Math.max(seconds, 0);
}

async function callApi() {
  try {
    const response = await ask("/api/hello");
    const answer = await response.json();
    say("outcome", outcome(response, answer));
    element("answer").textContent = JSON.stringify(answer, null, 2);
    element("answer").hidden = false;
    if (response.status === 401) element("keep-calling").checked = false;
  } catch {
    say("outcome", "The gateway can't be reached.");
  }
  await showSession();
  showWhatScriptsSee();
}

function outcome(response, answer) {
  if (response.ok) return `200: the API knows ${answer.hello}, by access token ${answer.access_token.number} of this session.`;
  if (response.status === 401) return "401: there is no session. Log in first.";
  return `${response.status}: ${answer.title ?? "no"}`;
}

function showWhatScriptsSee() {
  const seen = { cookie: document.cookie, local: entries(localStorage), session: entries(sessionStorage) };
  for (const [id, value] of Object.entries(seen)) element(id).textContent = value === "" ? "empty" : value;
  element("verdict").textContent = Object.values(seen).every((value) => value === "")
    ? "Nothing. The session cookie is HttpOnly, and the tokens never came here."
    : "Something is there, but nothing that this app or the gateway has put there: other programs on localhost share it.";
}

const entries = (storage) => Object.entries(storage).map(([name, value]) => `${name}=${value}`).join("; ");

function list(into, values) {
  const text = (kind, value) => Object.assign(document.createElement(kind), { textContent: value });
  into.replaceChildren(...Object.entries(values).flatMap(([name, value]) => [text("dt", name), text("dd", String(value))]));
}

// A status is read out whenever it is written, even if nothing changed.
function say(id, message) {
  if (element(id).textContent !== message) element(id).textContent = message;
}

element("call").addEventListener("click", callApi);
setInterval(() => document.hidden || showSession(), 1000);
setInterval(() => element("keep-calling").checked && callApi(), 2000);
showSession();
showWhatScriptsSee();
