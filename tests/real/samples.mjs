// The samples of examples/, behind the demo that is already running, with the keyboard alone; and a Vite dev server, which
// this script starts, edits and stops.
//
//   sample        gateway, and `pictures`, a folder; sessions that end 70 s after their last use
//   development   gateway, in front of http://127.0.0.1:`port`, and `folder`, where the app is that Vite is to serve there
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile, rename, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';

import { check, context, options, origin, run, sessionCookies, until } from './scenario.mjs';

const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const NAME = 'You are Alice Liddell.';
const ENDED = 'Your session has ended. What is on this page stays.';

let vite;
process.on('exit', () => vite?.kill());
await run({ sample, development });
process.exit();

/** All that a user does, and what is said to one who does nothing. */
async function sample() {
  const page = await open();
  await says(page, 'You are not logged in.');
  await press(page, 'Call');
  await answers(page, /^401\n/);
  check(page.url() === `${origin}/`, 'a call without a session sends nobody anywhere');
  await isSound(page, 'nobody');
  await logIn(page);
  await tabTo(page, 'Path');
  await page.keyboard.press('Enter');
  await answers(page, /^200\n.*Alice Liddell/);
  await isSound(page, 'user');

  const other = await open();
  await says(other, NAME);
  await warned(page);

  // Pages whose session is about to end ask for it every ten seconds, and tell each other: here a call has to be the first to hear of it.
  await context.route(`${origin}/bff/session`, (route) => route.abort());
  await endElsewhere();
  await page.evaluate(() => { window.stayed = true; });
  await page.route(`${origin}/bff/login*`, async (route) => {
    await says(other, ENDED);
    await context.unroute(`${origin}/bff/session`);
    await route.continue();
  });
  await press(page, 'Call');
  // The issuer still knows the user.
  await until('page after the login', () => page.evaluate(() => window.stayed === undefined).catch(() => false));
  await says(page, NAME);
  await says(other, NAME);

  await press(page, 'Log out');
  await says(page, 'You are not logged in.');
  await says(other, ENDED);
  check((await sessionCookies()).length === 0, 'the session cookie is gone');
}

/** Who is warned stays logged in by one key, and is then somewhere. */
async function warned(page) {
  await page.getByRole('alert').getByText('less than a minute').waitFor();
  await isSound(page, 'warned');
  await press(page, 'Stay logged in');
  await page.getByRole('alert').getByText('less than a minute').waitFor({ state: 'hidden' });
  check(await focused(page) === 'Your account', 'the focus is not lost');
  const { idle_expires_in: left } = await page.evaluate(async () => (await fetch('/bff/session', { headers: { 'X-CSRF': '1' } })).json());
  check(left > 60, 'the end was put off');
}

/** Hot updates through the gateway, over restarts of the dev server too. */
async function development() {
  const page = await context.newPage();
  const sockets = [];
  page.on('websocket', (socket) => sockets.push(new URL(socket.url())));
  const down = await page.goto(`${origin}/`);
  check(down.status() === 502 && (await page.locator('h1').count()) === 1, 'the gateway has a page of its own while there is no dev server');

  await edit('src/App.tsx', 'import { Account }', "import { ending } from './Grüße & [1].ts';\nimport { Account }");
  await edit('src/App.tsx', '</h1>', '{ending}</h1>');
  await writeFile(inApp('src/Grüße & [1].ts'), "export const ending = '!';\n");
  await startVite();
  const statuses = new Map();
  page.on('response', (response) => statuses.set(response.url(), response.status()));
  await page.reload();
  await heading(page, 'React behind Cloakroom!');
  check([...statuses.values()].every((status) => status < 400), `all ${statuses.size} requests are answered`);
  check([...statuses.keys()].some((url) => url.includes('%20&%20[1].ts')), 'names with signs in them too');
  await logIn(page);
  await press(page, 'Call');
  await answers(page, /^200\n.*Alice Liddell/);

  await page.evaluate(() => { window.stayed = true; });
  await edit('src/App.tsx', 'React behind', 'Hot React behind');
  await heading(page, 'Hot React behind Cloakroom!');
  await edit('src/style.css', '40rem', '41rem');
  await until('new style', () => page.evaluate(() => getComputedStyle(document.body).maxWidth === '656px'));
  check(await page.evaluate(() => window.stayed === true), 'a change appears in the page that is open');
  await answers(page, /^200\n.*Alice Liddell/);
  check(sockets.length > 0 && sockets.every(({ host }) => host === new URL(origin).host), 'by a WebSocket through the gateway');

  await stopVite();
  const meanwhile = await context.newPage();
  check((await meanwhile.goto(`${origin}/`)).status() === 502, 'the dev server is gone');
  await edit('src/App.tsx', 'Hot React', 'New React');
  await startVite();
  await heading(page, 'New React behind Cloakroom!');
  await says(page, NAME);
  check(await page.evaluate(() => window.stayed) === undefined, 'the page comes back by itself once the dev server does');
  await meanwhile.reload();
  await heading(meanwhile, 'New React behind Cloakroom!');
  await page.evaluate(() => { window.stayed = true; });
  await edit('src/App.tsx', 'New React', 'Hot React');
  await heading(page, 'Hot React behind Cloakroom!');
  check(await page.evaluate(() => window.stayed === true), 'and changes appear in it again');
  check(sockets.every(({ host }) => host === new URL(origin).host), 'through the gateway alone');
}

async function startVite() {
  vite = spawn(process.execPath, ['node_modules/vite/bin/vite.js', '--host', '127.0.0.1', '--strictPort', '--port', options.port],
    { cwd: options.folder, stdio: ['ignore', 'inherit', 'inherit'] });
  await until('dev server', () => fetch(`http://127.0.0.1:${options.port}/`).then(({ ok }) => ok, () => false));
}

async function stopVite() {
  vite.kill();
  await once(vite, 'exit');
}

function inApp(name) {
  return path.join(options.folder, name);
}

/** As editors do: by a new file in the old one's place. */
async function edit(name, from, to) {
  const text = await readFile(inApp(name), 'utf8');
  check(text.includes(from), `${name} has '${from}'`, { silent: true });
  await writeFile(inApp(`${name}.new`), text.replace(from, to));
  await rename(inApp(`${name}.new`), inApp(name));
}

async function heading(page, text) {
  await page.locator('h1', { hasText: text }).waitFor();
  check((await page.locator('h1').textContent()) === text, text);
}

async function open() {
  const page = await context.newPage();
  await page.goto(`${origin}/`);
  return page;
}

async function says(page, text) {
  await page.getByRole('status').filter({ hasText: text }).first().waitFor();
  check(true, text);
}

async function answers(page, pattern) {
  await until(`answer like ${pattern}`, async () => pattern.test(await page.locator('output').textContent()));
  check(true, `the answer is like ${pattern}`);
}

/** Through the issuer's page, and back. */
async function logIn(page) {
  await press(page, 'Log in');
  await page.waitForURL((url) => url.origin !== origin);
  await page.locator('#username:focus').waitFor();
  await page.keyboard.type(options.user);
  await page.keyboard.press('Tab');
  await page.keyboard.type(options.password);
  await page.keyboard.press('Enter');
  await page.waitForURL(`${origin}/`);
  await says(page, NAME);
}

/** The session ends without a word to any page. */
async function endElsewhere() {
  const response = await context.request.post(`${origin}/bff/logout`, { headers: { 'X-CSRF': '1', Accept: 'application/json', Origin: origin } });
  check(response.status() === 200, 'the session has ended', { silent: true });
}

async function press(page, name) {
  await tabTo(page, name);
  await page.keyboard.press('Enter');
}

/** By the Tab key alone, to what is called so. */
async function tabTo(page, name) {
  await page.getByRole('button', { name }).or(page.getByLabel(name, { exact: true })).first().waitFor();
  for (let steps = 0; await focused(page) !== name; steps += 1) {
    check(steps < 12, `the Tab key leads to '${name}'`, { silent: true });
    await page.keyboard.press('Tab');
  }
  check(await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle) !== 'none', `'${name}' is reached by Tab, and shows it`);
}

function focused(page) {
  return page.evaluate(() => (document.activeElement.labels?.[0] ?? document.activeElement).textContent.trim());
}

/** Nothing sticks out at the side, and axe finds nothing. */
async function isSound(page, state) {
  for (const [width, height, colorScheme] of [[1280, 800, 'light'], [360, 740, 'dark']]) {
    await page.setViewportSize({ width, height });
    await page.emulateMedia({ colorScheme });
    check(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `${state}: nothing to scroll to at the side of ${width} px`);
    await page.evaluate(axe);
    const { violations, passes } = await page.evaluate('axe.run()');
    const found = violations.map(({ id, impact, nodes }) => `${impact} ${id}: ${nodes.map(({ html }) => html).join(' ')}`);
    check(found.length === 0 && passes.length > 10, `${state}: axe finds no fault at ${width} px in ${colorScheme} ${found.join('\n')}`);
    await page.screenshot({ path: path.join(options.pictures, `${state}-${width}.png`) });
  }
}
