// What the scenarios in a real Chromium share: the browser, its end, and how a check is told.
//
//   node SCRIPT SCENARIO '{"gateway": "http://localhost:8080", "admin": "http://127.0.0.1:9999"}'
//
// Prints a line for each check that holds. At the first that does not, says which on stderr with what the page shows, and exits 1.
import assert from 'node:assert/strict';

import { chromium } from 'playwright-core';

/** For one wait. A silent refresh has to come within it too, and the machine may be busy. */
export const DEADLINE = 60_000;
/** For the whole scenario: the last resort against a wait that nothing bounds. */
const LAST_RESORT = 300_000;

const [name, json = '{}'] = process.argv.slice(2);
export const options = { user: 'alice', password: 'wonderland', ...JSON.parse(json) };
export const origin = new URL(options.gateway).origin;
export const secure = origin.startsWith('https:');
export const cookieName = secure ? '__Host-cloakroom' : 'cloakroom';

setTimeout(() => { console.error(`${name}: not done after ${LAST_RESORT} ms`); process.exit(1); }, LAST_RESORT).unref();

/** Those that are about what users have: what is gone back to comes out of the back/forward cache. Playwright has it off, for it may lose such a page. */
const BACK_FORWARD_CACHE = ['back'];
export const launch = {
  executablePath: '/usr/bin/chromium',
  timeout: 2 * DEADLINE,
  ignoreDefaultArgs: BACK_FORWARD_CACHE.includes(name) ? ['--disable-back-forward-cache'] : [],
  args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync'],
};
const browser = await chromium.launch(launch);
// On https there is terminator.mjs, whose certificate nobody knows.
export const context = await browser.newContext({ ignoreHTTPSErrors: secure });
context.setDefaultTimeout(DEADLINE);

/** Runs the one of these that was asked for, and ends the browser. */
export async function run(scenarios) {
  try {
    assert.ok(Object.hasOwn(scenarios, name), `there are: ${Object.keys(scenarios).join(', ')}`);
    await scenarios[name]();
  } catch (error) {
    console.error(`${name}: ${error.stack}`);
    for (const page of context.pages()) {
      const text = await page.locator('body').innerText({ timeout: 1000 }).catch(() => '(no text)');
      console.error(`--- ${page.url()}\n${text.slice(0, 2000)}`);
    }
    process.exitCode = 1;
  } finally {
    await browser.close();
  }
}

export function check(holds, what, { silent = false } = {}) {
  assert.ok(holds, what);
  if (!silent) console.log(`ok ${what}`);
}

/** Asks again and again, for what is waited for happens elsewhere and announces itself to nobody. */
export async function until(what, condition) {
  const deadline = performance.now() + DEADLINE;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`no ${what} within ${DEADLINE} ms`);
    await new Promise((resolve) => { setTimeout(resolve, 100); });
  }
}

export async function sessionCookies() {
  return (await context.cookies(origin)).filter((cookie) => cookie.name === cookieName);
}

/** The issuer's page: a name and a password, or a button where it knows the user. */
export async function fillLoginForm(page) {
  await page.locator('form button').waitFor();
  if (await page.locator('input[name=login]').count()) {
    await page.fill('input[name=login]', options.user);
    await page.fill('input[name=password]', options.password);
  }
  await page.click('form button');
}

/** The paths of the gateway's that this page goes to from now on, as the browser asks for them. */
export function navigations(page) {
  const visited = [];
  page.on('request', (request) => {
    const url = new URL(request.url());
    if (request.isNavigationRequest() && url.origin === origin) visited.push(url.pathname);
  });
  return visited;
}
