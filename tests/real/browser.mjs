// Scenarios in a real Chromium, against a gateway that is already running.
//
//   node browser.mjs SCENARIO '{"gateway": "http://localhost:8080", "admin": "http://127.0.0.1:9999"}'
//
//   gateway   the app's origin; its `/` is spa/, its `/api/hello` answers 200 with a session
//   admin     the issuer's, as issuer.mjs prints it
//   page      wants a session of a navigation too, and then answers 200 (`auth: required`, `csrf: off`); default /private
//   api       default /api/hello
//   The scenario `websocket_over_http2` wants HTTPS, and an echo of one message at /ws; no issuer.
//   user, password    default alice, wonderland
//
// Gateway and issuer have to be on different hosts (localhost and 127.0.0.1), for cookies take no notice of ports.
import assert from 'node:assert/strict';

import { check, context, cookieName, fillLoginForm, navigations, options as given, origin, run, secure, sessionCookies, until } from './scenario.mjs';

const options = { api: '/api/hello', page: '/private', ...given };

await run({ login_call_refresh_logout, cookie_attributes, strict_does_not_loop, two_tabs, no_token_in_script, silent_login, websocket_over_http2 });

/** The whole life of a session, by clicks. */
async function login_call_refresh_logout() {
  const before = (await issuer()).tokens.length;
  const page = await open();
  await user(page, 'nobody');
  check((await click(page, 'call')).status === 401, 'without a session the API answers 401');
  await logIn(page);
  check(true, 'login by clicks ends in the app, logged in');
  check((await click(page, 'call')).status === 200, 'the API answers 200');

  await page.evaluate(() => { window.stayed = true; });
  const answers = await callUntilRefreshed(page);
  check(answers.every((status) => status === 200), `all ${answers.length} calls around the refresh answered 200`);
  check((await click(page, 'call')).status === 200, 'the API answers 200 with the new token');
  check(await page.evaluate(() => window.stayed === true), 'the page stayed while its token was replaced');
  check((await click(page, 'who')).session.access_token_expires_in > 0, 'the session has a token with time left');

  const [old] = await sessionCookies();
  await logOut(page);
  await user(page, 'nobody');
  check(true, 'logout by a click, through the issuer, ends in the app');
  check((await sessionCookies()).length === 0, 'the session cookie is gone');
  check((await click(page, 'call')).status === 401, 'the API answers 401');
  await until('revocation', async () => (await issuer()).tokens.slice(before).every((token) => !token.alive));
  check(true, 'none of its tokens is alive at the issuer');
  await context.addCookies([old]);
  check((await click(page, 'call')).status === 401, 'the old cookie, put back, is worth nothing');
}

/** The session cookie as the browser keeps it, and as it came (contract: what the browser gets). */
async function cookie_attributes() {
  const page = await open();
  const set = [];
  context.on('response', (response) => {
    if (response.url().startsWith(origin)) set.push(response.headersArray().catch(() => []));
  });
  await logIn(page);
  const cookies = await sessionCookies();
  check(cookies.length === 1, `one cookie is named ${cookieName}`);
  const [cookie] = cookies;
  check(cookie.httpOnly, 'HttpOnly');
  check(cookie.secure === secure, `Secure is ${secure} on ${origin}`);
  check(cookie.sameSite === 'Strict', 'SameSite=Strict');
  check(cookie.path === '/', 'Path=/');
  check(cookie.domain === new URL(origin).hostname, 'host-only');
  check(cookie.name.length + cookie.value.length <= 300, 'at most 300 bytes');
  const lines = (await Promise.all(set)).flat().filter(({ name: field }) => field.toLowerCase() === 'set-cookie');
  check(lines.some(({ value }) => value.startsWith(`${cookieName}=`)), 'the Set-Cookie field was seen');
  check(lines.every(({ value }) => !/;\s*domain=/i.test(value)), 'no Set-Cookie field has a Domain');
  const rest = (await context.cookies(origin)).filter((other) => other.name !== cookieName);
  check(rest.length === 0, 'no login cookie is left after the login');
}

/** The landing after the callback sends the Strict cookie at once: one login, one callback, and the page is the user's. */
async function strict_does_not_loop() {
  const page = await open();
  const visited = navigations(page);
  await logIn(page);
  oneLogin(visited, 'from the app');
  check(visited.filter((path) => path === '/').length <= 2, 'the app was loaded at most twice, the landing counted');

  await context.clearCookies();
  visited.length = 0;
  await page.goto(origin + options.page);
  await fillLoginForm(page);
  await page.waitForURL(origin + options.page);
  oneLogin(visited, 'from a page that wants a session');
  visited.length = 0;
  const response = await page.goto(origin + options.page);
  check(response.status() === 200 && visited.length === 1, 'with the session the page answers at once');
}

/** Two tabs are both at the issuer before either comes back. */
async function two_tabs() {
  const tabs = [await open(), await open()];
  for (const tab of tabs) await toIssuer(tab);
  const login = (await context.cookies(origin)).filter((cookie) => cookie.name.startsWith(`${cookieName}-login-`));
  check(login.length === 2, 'each login has its own cookie');
  await Promise.all(tabs.map(fillLoginForm));
  for (const tab of tabs) {
    await tab.waitForURL(`${origin}/`);
    await user(tab, options.user);
  }
  check(true, 'both tabs end in the app, logged in');
  for (const tab of tabs) check((await click(tab, 'call')).status === 200, 'the API answers 200');
}

/** Everything that a script of the page can reach is searched for every token that the issuer gave. */
async function no_token_in_script() {
  const page = await open();
  await logIn(page);
  await callUntilRefreshed(page);
  await page.reload();
  await user(page, options.user);
  const places = await page.evaluate(scriptSees, ['/', '/app.js', '/bff/session', '/bff/logout', options.api]);

  const { tokens, id_tokens } = await issuer();
  const secrets = [...tokens.map(({ value }) => value), ...id_tokens.flatMap((token) => [token, ...token.split('.').slice(1)])];
  check(tokens.length >= 4 && id_tokens.length >= 1, `the issuer gave ${tokens.length} access and refresh tokens`);
  const [cookie] = await sessionCookies();
  for (const [place, text] of Object.entries(places)) {
    const found = secrets.some((secret) => text.includes(secret) || text.includes(encodeURIComponent(secret)) || text.includes(btoa(secret)));
    check(!found, `${place} (${text.length} characters) holds no token`);
    check(!text.includes(cookie.value), `${place} does not hold the session cookie`, { silent: true });
  }
  // Without this the search could pass by having looked at nothing.
  check(places['fetch /bff/session'].includes(options.user), 'the search saw the answers to fetch');
}

/** The app asks whether its user is logged in at the issuer, with the whole page and in a frame. */
async function silent_login() {
  const page = await open();
  const asks = async () => {
    await page.goto(`${origin}/bff/login?prompt=none&return_to=/`);
    await page.waitForURL(`${origin}/`);
  };
  const forget = async () => {
    await context.clearCookies({ name: cookieName });
    await page.reload();
    await user(page, 'nobody');
  };
  check(await silently(page) === false, 'nobody is logged in at the issuer, and the frame says so');
  await asks();
  await user(page, 'nobody');
  check(true, 'the whole page comes back as nobody');

  await logIn(page);
  await forget();
  await asks();
  await user(page, options.user);
  check(true, 'the whole page comes back logged in, and nobody was asked');

  const [live] = await sessionCookies();
  if (new URL(origin).hostname === new URL(options.admin).hostname) {
    await forget();
    check(await silently(page) === true, 'the frame says that the user is logged in at the issuer');
    check((await sessionCookies())[0].value !== live.value, 'with a session of its own');
  } else {
    check(await silently(page) === false, 'an issuer of another site has no cookies in a frame');
    check((await sessionCookies())[0].value === live.value, 'the session that there is stays');
  }
  check((await click(page, 'who')).session.authenticated === true, 'the session endpoint says so too');
  check((await click(page, 'call')).status === 200, 'the API answers 200');
}

/** A silent login in a frame, as an app would do it. */
async function silently(page) {
  return page.evaluate(() => new Promise((resolve) => {
    const frame = Object.assign(document.createElement('iframe'), { hidden: true, src: '/bff/login?prompt=none' });
    addEventListener('message', function told({ origin: from, data }) {
      if (from !== location.origin || data?.source !== 'cloakroom') return;
      removeEventListener('message', told);
      frame.remove();
      resolve(data.authenticated);
    });
    document.body.append(frame);
  }));
}

/** A browser that has an HTTP/2 connection opens its WebSockets in streams of it (RFC 8441). */
async function websocket_over_http2() {
  const page = await context.newPage();
  const network = await context.newCDPSession(page);
  await network.send('Network.enable');
  const handshake = new Promise((resolve) => { network.on('Network.webSocketHandshakeResponseReceived', resolve); });
  await page.goto(origin);
  const protocol = await page.evaluate(() => performance.getEntriesByType('navigation')[0].nextHopProtocol);
  assert.equal(protocol, 'h2');
  console.log('the page came over HTTP/2');
  const echoed = await page.evaluate(() => new Promise((resolve, reject) => {
    const socket = new WebSocket(`wss://${location.host}/ws`);
    socket.onopen = () => socket.send('through a stream');
    socket.onmessage = (message) => resolve(message.data);
    socket.onerror = () => reject(new Error('the WebSocket failed'));
  }));
  assert.equal(echoed, 'through a stream');
  assert.equal((await handshake).response.status, 200, 'an extended CONNECT, not an upgrade');
  console.log('the WebSocket came in a stream');
}

/** Runs in the page. */
async function scriptSees(paths) {
  const entries = (storage) => JSON.stringify(Object.entries(storage));
  const places = {
    'document.cookie': document.cookie,
    localStorage: entries(localStorage),
    sessionStorage: entries(sessionStorage),
    indexedDB: JSON.stringify(await indexedDB.databases()),
    'window.name, history and location': JSON.stringify([window.name, history.state, location.href, document.referrer]),
    html: document.documentElement.outerHTML,
    'window': JSON.stringify(Object.keys(window).map((key) => [key, String(window[key])])),
  };
  if (globalThis.caches) places.caches = JSON.stringify(await caches.keys());
  for (const path of paths) {
    const response = await fetch(path, { headers: { 'X-CSRF': '1', Accept: 'application/json' } });
    places[`fetch ${path}`] = JSON.stringify([response.status, response.url, [...response.headers], await response.text()]);
  }
  places['performance entries'] = JSON.stringify(performance.getEntries());
  return places;
}

async function open() {
  const page = await context.newPage();
  await page.goto(`${origin}/`);
  return page;
}

async function logIn(page) {
  await toIssuer(page);
  await fillLoginForm(page);
  await page.waitForURL(`${origin}/`);
  await user(page, options.user);
}

async function toIssuer(page) {
  await page.click('#login');
  await page.waitForURL((url) => url.origin !== origin);
  await page.locator('form button').waitFor();
}

async function logOut(page) {
  await page.click('#logout');
  await page.click('button[name=logout]');
  await page.waitForURL(`${origin}/`);
}

/** Clicks one of the app's buttons and gives what came of it. */
async function click(page, id) {
  const result = page.locator('#result');
  const before = Number(await result.getAttribute('data-clicks'));
  await page.click(`#${id}`);
  await page.locator(`#result[data-clicks="${before + 1}"]`).waitFor();
  return JSON.parse(await result.textContent());
}

/** Calls the API until the issuer has granted a refresh, and gives the answers' status codes. */
async function callUntilRefreshed(page) {
  const refreshes = async () => (await issuer()).token_requests
    .filter((request) => request.grant_type === 'refresh_token' && request.status === 200).length;
  const before = await refreshes();
  const answers = [];
  await until('silent refresh', async () => {
    answers.push((await click(page, 'call')).status);
    return (await refreshes()) > before;
  });
  return answers;
}

async function user(page, expected) {
  await shows(page, '#user', new RegExp(`^${expected}$`));
}

async function shows(page, selector, text) {
  await page.locator(selector, { hasText: text }).waitFor();
}

function oneLogin(visited, where) {
  const times = (path) => visited.filter((other) => other === path).length;
  check(times('/bff/login') === 1, `${where}: one login (${visited.join(' ')})`);
  check(times('/bff/callback') === 1, `${where}: one callback`);
}

async function issuer() {
  const response = await fetch(`${options.admin}/state`);
  return response.json();
}
