// What client.js does for an app, in a real Chromium, against a gateway that is already running.
//
//   gateway   the app's origin; its `/` is spa/, its `/api/hello` answers 200 with a session
//   elsewhere an origin that answers anything, and allows it to be read from anywhere
//   The scenario `expiring` wants an idle timeout of some seconds.
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { chromium } from 'playwright-core';

import { build } from '../../client/node_modules/esbuild/lib/main.js';
import { check, context, cookieName, fillLoginForm, launch, navigations, options, origin, run, sessionCookies, until } from './scenario.mjs';

await run({ tabs, one_login, expiring, offline, back, cookies_blocked, silent, headers, hooks });

/** A tab learns of what happens to the session in another one, and stays where it is. */
async function tabs() {
  const first = await open();
  await heard(first, ['loaded']);
  const second = await open();
  await logIn(second);
  await heard(first, ['loaded', 'login']);
  check(await name(first) === options.user, 'the other tab knows who has logged in');
  check((await heard(second, ['loaded'])).length === 1, 'the page that comes back is told once');

  const visited = navigations(first);
  await second.evaluate(() => client.logout());
  await second.click('button[name=logout]');
  await second.waitForURL(`${origin}/`);
  await heard(first, ['loaded', 'login', 'logout']);
  check(await name(first) === undefined && visited.length === 0, 'the other tab knows that nobody is, and has gone nowhere');
  check((await sessionCookies()).length === 0, 'the session cookie is gone');
  check(await first.evaluate(async () => (await client.session()).authenticated) === false, 'the gateway says so too');
}

/** However many calls find the session ended, the browser goes to login once, and comes back to where it was. */
async function one_login() {
  const page = await open();
  await logIn(page);
  await page.evaluate(() => history.pushState(null, '', '/orders?page=2#last'));
  await endElsewhere();
  const visited = navigations(page);
  const statuses = [];
  page.on('response', (response) => response.url() === `${origin}/api/hello` && statuses.push(response.status()));
  // The page is gone once login answers, so that waits for all the calls.
  const toLogin = `${origin}/bff/login*`;
  await page.route(toLogin, async (route) => {
    await until('answer to each call', () => statuses.length === 20);
    await route.continue();
  });
  await page.evaluate(() => { for (let call = 0; call < 20; call += 1) client.fetch('/api/hello').catch(() => {}); });
  await page.waitForURL((url) => url.origin !== origin);
  await fillLoginForm(page);
  await page.waitForURL(`${origin}/orders?page=2#last`);
  const logins = visited.filter((path) => path === '/bff/login').length;
  check(logins === 1, `one login (${visited.join(' ')})`);
  check(statuses.every((status) => status === 401), `${statuses.length} calls had found the session ended`);
  await page.unroute(toLogin);
  await load(page);
  check(await name(page) === options.user, 'the user is back');

  await endElsewhere();
  visited.length = 0;
  const told = await page.evaluate(async () => {
    const manual = client.createClient({ loginWhenEnded: false });
    const reasons = [];
    manual.subscribe((_, reason) => reasons.push(reason));
    await manual.session();
    return reasons;
  });
  check(told.join() === 'loaded' && visited.length === 0, 'who asks is told, and sent nowhere');
}

/** Who does nothing is warned, and then told. */
async function expiring() {
  const page = await open();
  await logIn(page);
  await page.evaluate(() => {
    window.reasons = [];
    window.warning = client.createClient({ warnBefore: 3 });
    warning.subscribe((_, reason) => reasons.push(reason));
  });
  await until('warning', () => page.evaluate(() => reasons.includes('expiring')));
  check(await page.evaluate(async () => (await client.session()).authenticated), 'the session still lives when it is warned of');
  await page.evaluate(() => client.fetch('/api/hello').then(warning.session));
  check(await page.evaluate(() => reasons.includes('extended')), 'a call has put it off');
  await until('end', () => page.evaluate(() => reasons.includes('logout')));
  check((await page.evaluate(() => reasons.join())) === 'loaded,expiring,extended,expiring,logout', 'warned once each time, and told of each change');
}

/** Without a network a call fails as any other; with it, the page asks again. */
async function offline() {
  const page = await open();
  await logIn(page);
  await context.setOffline(true);
  const failed = await page.evaluate(() => client.fetch('/api/hello').then(() => 'answered', (error) => error.name));
  check(failed === 'TypeError', 'a call fails as fetch does');
  check(await page.evaluate(() => client.session().then(() => 'answered', (error) => error.name)) === 'TypeError', 'so does session');
  check(await name(page) === options.user, 'nobody is taken for logged out');
  const asked = page.waitForRequest((request) => request.url() === `${origin}/bff/session`);
  await context.setOffline(false);
  await asked;
  check(await page.evaluate(async () => (await client.fetch('/api/hello')).status) === 200, 'back online, all goes on');
}

/** After a logout the page that the back button brings shows nothing private. */
async function back() {
  const page = await open();
  await logIn(page);
  await page.evaluate(() => {
    const place = document.body.appendChild(Object.assign(document.createElement('p'), { id: 'private' }));
    client.subscribe((session) => { place.textContent = session.authenticated ? 'a secret' : 'nothing'; });
    addEventListener('pageshow', ({ persisted }) => { window.isPersisted = persisted; });
    place.textContent = 'a secret';
  });
  await page.evaluate(() => client.logout());
  await page.click('button[name=logout]');
  await page.waitForURL(`${origin}/`);
  const network = await context.newCDPSession(page);
  const { currentIndex, entries } = await network.send('Page.getNavigationHistory');
  const before = entries.slice(0, currentIndex).findLast(({ url }) => url === `${origin}/`);
  await page.evaluate(() => { window.isAfterwards = true; });
  await network.send('Page.navigateToHistoryEntry', { entryId: before.id });
  await until('page', () => page.evaluate(() => !window.isAfterwards && document.readyState === 'complete').catch(() => false));
  check(await page.evaluate(() => window.isPersisted), 'the page is as it was left, from the back/forward cache');
  await page.locator('#private', { hasText: 'nothing' }).waitFor();
  check(!(await page.locator('body').innerText()).includes('a secret'), 'going back shows nothing private');
}

/** Where the app's cookies are blocked, a login ends at a page that offers it again, and goes round in no circle. */
async function cookies_blocked() {
  const folder = await mkdtemp(join(tmpdir(), 'cookies-blocked-'));
  const cookies = { [`${origin},*`]: { setting: 2 } };
  await mkdir(join(folder, 'Default'));
  await writeFile(join(folder, 'Default', 'Preferences'), JSON.stringify({ profile: { content_settings: { exceptions: { cookies } } } }));
  const blocking = await chromium.launchPersistentContext(folder, launch);
  try {
    const page = await blocking.newPage();
    const visited = navigations(page);
    for (let login = 1; login <= 2; login += 1) {
      await (login === 1 ? page.goto(`${origin}/bff/login?return_to=/`) : page.click('a.action'));
      await fillLoginForm(page);
      await page.locator('a.action').waitFor();
      check(new URL(page.url()).pathname === '/bff/callback', `login ${login} ends at a page of the gateway's`);
      check((await page.locator('a.action').getAttribute('href')).includes('/bff/login'), 'which offers it again');
    }
    // The callback asks itself once more, from a page of its own: a redirect from another site carries no strict cookie.
    const once = '/bff/login,/bff/callback,/bff/callback';
    check(visited.join() === `${once},${once}`, `no login is begun by itself (${visited.join(' ')})`);
    check((await blocking.cookies(origin)).length === 0, 'no cookie is there');
  } finally {
    await blocking.close();
    await rm(folder, { recursive: true, force: true });
  }
}

/** Without a page: nobody, where the issuer is of another site and has no cookies in a frame. */
async function silent() {
  const page = await open();
  check(await page.evaluate(() => client.silentLogin()) === false, 'nobody is logged in at the issuer');
  check(await page.locator('iframe').count() === 0, 'no frame is left');
  await logIn(page);
  // A logout would take the user's consent back at this issuer.
  await context.clearCookies({ name: cookieName });
  const sameSite = new URL(origin).hostname === new URL(options.admin).hostname;
  check(await page.evaluate(() => client.silentLogin()) === sameSite, `the issuer's word is ${sameSite}`);
  if (sameSite) {
    await until('session', () => page.evaluate(async () => (await client.session()).authenticated));
    check(true, 'the session is there');
  }
}

/** The gateway gets its header, and nobody else does. */
async function headers() {
  const page = await open();
  const sent = [];
  page.on('request', (request) => sent.push([request.url(), request.method(), request.headers()['x-csrf']]));
  await page.evaluate((elsewhere) => Promise.all([
    client.fetch('/api/hello', { method: 'POST', body: '{}', headers: { 'content-type': 'application/json' } }),
    client.fetch(new URL('/api/hello?a', location.href)),
    client.fetch(new Request('/api/hello?b', { headers: { accept: 'text/plain' } })),
    client.fetch(`${elsewhere}/elsewhere`).catch(() => {}),
  ]), options.elsewhere);
  const flag = (end) => sent.find(([url]) => url.endsWith(end))?.[2];
  for (const path of ['/api/hello', '/api/hello?a', '/api/hello?b']) check(flag(path) === '1', `${path} has X-CSRF`);
  check(sent.some(([url]) => url.endsWith('/elsewhere')) && flag('/elsewhere') === undefined, 'another origin has not');
  check(!sent.some(([url, method]) => url.endsWith('/elsewhere') && method === 'OPTIONS'), 'and is asked for no preflight');
}

/** A component of React and one of Vue follow the session. */
async function hooks() {
  const page = await open();
  await page.addScriptTag({ type: 'module', content: await bundle() });
  for (const library of ['react', 'vue']) await shows(page, library, 'nobody');
  await logIn(await open());
  for (const library of ['react', 'vue']) await shows(page, library, options.user);
  await page.evaluate(() => unmount());
  for (const library of ['react', 'vue']) await shows(page, library, '');
  const other = await open();
  await other.evaluate(() => client.logout());
  await page.evaluate(() => client.session());
  check(true, 'components that are gone break nothing');
}

async function bundle() {
  const contents = `
    import { createElement } from 'react';
    import { createRoot } from 'react-dom/client';
    import { createApp, h } from 'vue';
    import { useSession as useReact } from './src/react.ts';
    import { useSession as useVue } from './src/vue.ts';
    const place = (id) => document.body.appendChild(Object.assign(document.createElement('p'), { id }));
    const text = (session) => session && (session.authenticated ? session.user.sub : 'nobody');
    const root = createRoot(place('react'));
    root.render(createElement(() => text(useReact())));
    const app = createApp({ setup() { const session = useVue(); return () => h('span', text(session.value)); } });
    app.mount(place('vue'));
    window.unmount = () => { root.unmount(); app.unmount(); };
  `;
  const resolveDir = fileURLToPath(new URL('../../client', import.meta.url));
  const { outputFiles: [file] } = await build({
    stdin: { contents, resolveDir }, bundle: true, format: 'esm', write: false, logLevel: 'error',
    define: { 'process.env.NODE_ENV': '"production"' },
  });
  return file.text;
}

async function shows(page, id, text) {
  await until(`${id}: ${text}`, async () => (await page.locator(`#${id}`).textContent()) === text);
  check(true, `${id} shows '${text}'`);
}

/** A page of the app with the module in it, which notes what it is told. */
async function open() {
  const page = await context.newPage();
  await page.goto(`${origin}/`);
  await load(page);
  return page;
}

async function load(page) {
  await page.evaluate(async () => {
    window.client = await import('/bff/client.js');
    window.heard = [];
    client.subscribe((_, reason) => heard.push(reason));
  });
  await until('first answer', () => page.evaluate(() => client.current() !== undefined));
}

async function logIn(page) {
  await page.evaluate(() => client.login());
  await page.waitForURL((url) => url.origin !== origin);
  await fillLoginForm(page);
  await page.waitForURL(`${origin}/`);
  await load(page);
}

/** The session ends without a word to any page. */
async function endElsewhere() {
  const response = await context.request.post(`${origin}/bff/logout`, { headers: { 'X-CSRF': '1', Accept: 'application/json', Origin: origin } });
  check(response.status() === 200, 'the session has ended', { silent: true });
}

async function heard(page, expected) {
  await until(expected.join(), () => page.evaluate((text) => heard.join() === text, expected.join()));
  check(true, `heard: ${expected.join(', ')}`);
  return page.evaluate(() => heard);
}

function name(page) {
  return page.evaluate(() => client.current().user?.sub);
}
