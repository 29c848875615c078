// The demo's tour as a visitor takes it: each button with what it shows, by mouse and by keyboard, in two tabs, wide and
// narrow, light and dark. `gateway` is the demo, and `folder` takes the pictures.
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';

import { check, context, options, origin, run, sessionCookies, until } from './scenario.mjs';

const axe = createRequire(import.meta.url).resolve('axe-core/axe.min.js');

await run({ each_button, odd_orders, by_keyboard, looks });

/** From the first step to the last. */
async function each_button() {
  const page = await open();
  const secrets = [];
  page.on('request', (request) => {
    for (const name of ['code', 'state']) secrets.push(new URL(request.url()).searchParams.get(name));
  });
  await shows(page, '#who', 'Nobody is logged in.');
  await press(page, 'call', 'call');
  await shows(page, '#outcome', /^401/);
  await page.click('#step-login [data-do=login]');
  await page.fill('#username', options.user);
  await page.fill('#password', 'looking-glass');
  await page.click('form button');
  await shows(page, '#message', /Wrong user name or password/);
  check(await page.inputValue('#username') === options.user, 'a wrong password is refused, and the name need not be typed again');
  await page.fill('#password', options.password);
  await page.click('form button');
  await page.waitForURL(`${origin}/`);
  await isLoggedIn(page);
  await seen(page, 'login', /Gateway → Issuer: takes the code for tokens \(POST \/token\): 200/);
  await shows(page, '[data-place=browser]', /^the session cookie/);
  await shows(page, '[data-place=gateway]', /^the access token, \d+ s left; the refresh token/);
  await shows(page, '[data-chip=record]', 'sealed record');

  await press(page, 'call', 'call');
  await shows(page, '#outcome', /^200: .* access token 1 /);
  await seen(page, 'call', /Gateway → API: .*: 200\. With it goes: access token/);
  check(await page.locator('#step-expire[aria-current=step]').count() === 1, 'the next step is marked');

  await press(page, 'expire', 'minute');
  await shows(page, '[data-place=gateway]', /^the access token, expired/);
  await press(page, 'expire', 'call');
  await shows(page, '#outcome', /^200: .* access token 2 /);
  await seen(page, 'expire', /Gateway → Issuer: takes the refresh token for new tokens \(POST \/token\): 200/);
  await page.check('#keep-calling');
  await page.waitForResponse((response) => response.url() === `${origin}/api/hello`);
  await page.uncheck('#keep-calling');
  secrets.push((await sessionCookies())[0].value);

  await press(page, 'end', 'end');
  await shows(page, '#who', 'Nobody is logged in any more: the issuer ended the session, and told the gateway.');
  await seen(page, 'end', /Issuer → Gateway: tells that the session has ended there \(POST \/bff\/backchannel-logout\): 200/);
  await shows(page, '[data-place=gateway]', 'no token.');

  await logIn(page, 'issuer');
  await press(page, 'issuer', 'issuer');
  await shows(page, '[data-do=issuer]', 'Start the issuer');
  await shows(page, '#picture .stopped .name', 'Issuer');
  await press(page, 'issuer', 'call');
  await shows(page, '#outcome', /^200/);
  check(true, 'while the issuer is stopped, who is logged in is served');
  await press(page, 'end', 'end');
  await shows(page, '#outcome', 'The issuer is stopped, and tells nobody anything.');
  const refusal = page.waitForResponse((response) => response.url().startsWith(`${origin}/bff/login`));
  await press(page, 'issuer', 'login');
  check((await refusal).status() === 503, 'a login finds a page that says why not');
  await page.goBack();
  await isLoggedIn(page);
  await seen(page, 'issuer', /Gateway → Issuer: asks whether it is there.*: no answer/);
  await press(page, 'issuer', 'issuer');
  await shows(page, '[data-do=issuer]', 'Stop the issuer');

  await press(page, 'store', 'store');
  await shows(page, '[data-place=store]', /^stopped/);
  await press(page, 'store', 'call');
  await shows(page, '#outcome', /^200/);
  check(true, 'while the store is stopped, a known session is served for a while');
  await press(page, 'store', 'minute');
  await press(page, 'store', 'call');
  await shows(page, '#outcome', /^503/);
  await shows(page, '#who', /the session is kept/);
  await seen(page, 'store', /Gateway → Store: looks for the sealed record: no answer/);
  await press(page, 'store', 'store');
  await untilCalled(page);
  await isLoggedIn(page);
  check(true, 'once the store runs, the session goes on');

  for (const place of ['#cookie', '#local', '#session']) await shows(page, place, 'empty');
  secrets.push(...(await sessionCookies()).map(({ value }) => value));
  const html = await page.content();
  const found = secrets.filter((secret) => secret && html.includes(secret));
  check(secrets.filter(Boolean).length >= 6 && found.length === 0, 'no code, state or session cookie is in the page');
  await press(page, 'logout', 'logout');
  await page.waitForURL(`${origin}/`);
  await shows(page, '#who', 'Nobody is logged in.');
  await seen(page, 'logout', /Gateway → Issuer: has a token revoked \(POST \/revoke\): 200/);
  check((await sessionCookies()).length === 0, 'logout ends in the app, without the cookie');
  await page.reload();
  await until('ticks', async () => await page.locator('#steps .mark').count() === 7);
  check(true, 'a page that is loaded anew knows what was seen');
}

/** Two tabs, buttons in an order that nobody thought of, and the way back. */
async function odd_orders() {
  const [one, other] = [await open(), await open()];
  await logIn(one, 'login');
  await other.bringToFront();
  await isLoggedIn(other);
  check(true, 'a tab learns of the login in another one');
  await press(one, 'store', 'store');
  await shows(other, '[data-do=store]', 'Start the store');
  check(true, 'and of a store that was stopped there');
  await press(other, 'issuer', 'issuer');
  await press(other, 'expire', 'minute');
  await press(one, 'call', 'call');
  await shows(one, '#outcome', /^503/);
  for (const part of ['issuer', 'store']) await press(one, part, part);
  await shows(other, '[data-do=issuer]', 'Stop the issuer');
  await untilCalled(other);
  check(true, 'after all of it was stopped and time has passed, the session goes on');
  await press(other, 'issuer', 'issuer');
  await shows(other, '[data-do=issuer]', 'Start the issuer');
  await press(other, 'logout', 'logout');
  await shows(one, '#who', /^Nobody is logged in/);
  await shows(other, '#who', /^Nobody is logged in/);
  check((await sessionCookies()).length === 0, 'a logout while the issuer is stopped logs out, in both tabs');
  await press(one, 'issuer', 'issuer');
  await shows(one, '[data-do=issuer]', 'Stop the issuer');
  await logIn(one, 'login');
  await one.goto('about:blank');
  await press(other, 'end', 'end');
  await one.goBack();
  await shows(one, '#who', /^Nobody is logged in/);
  await press(one, 'call', 'call');
  await shows(one, '#outcome', /^401/);
  check(true, 'who comes back finds the session over');
}

/** No mouse, and nothing that moves. */
async function by_keyboard() {
  const page = await context.newPage();
  await page.emulateMedia({ reducedMotion: 'reduce' });
  await page.goto(`${origin}/`);
  await shows(page, '#who', 'Nobody is logged in.');
  await tabTo(page, '[data-do=login]');
  await page.keyboard.press('Enter');
  await page.locator('#username').waitFor();
  await page.keyboard.type(options.user);
  await page.keyboard.press('Tab');
  await page.keyboard.type(options.password);
  await page.keyboard.press('Enter');
  await page.waitForURL(`${origin}/`);
  await isLoggedIn(page);
  await tabTo(page, '#step-call [data-do=call]');
  await page.keyboard.press('Space');
  await shows(page, '#outcome', /^200/);
  await page.locator('#dot.shown').waitFor();
  const places = await page.evaluate(() => document.getElementById('dot').getAnimations()
    .map((animation) => animation.effect.getKeyframes().map(({ transform }) => transform)));
  check(places.length > 0 && places.every(([from, to]) => from === to), 'nothing moves for whoever wants nothing to move');
  await tabTo(page, '[data-do=store]');
  await page.keyboard.press('Enter');
  await shows(page, '[data-do=store]', 'Start the store');
  check(await page.evaluate(() => document.activeElement.dataset.do) === 'store', 'the focus stays on the button that was pressed');
  await page.keyboard.press('Enter');
  await shows(page, '[data-do=store]', 'Stop the store');
}

/** Sizes and colours, with pictures for people. */
async function looks() {
  const page = await context.newPage();
  const faults = [];
  page.on('console', (message) => { if (message.type() === 'error') faults.push(message.text()); });
  page.on('pageerror', (error) => faults.push(String(error)));
  page.on('request', (request) => { if (![origin, 'null'].includes(new URL(request.url()).origin) && !request.url().includes('127.0.0.1')) faults.push(request.url()); });
  await page.goto(`${origin}/`);
  await logIn(page, 'login');
  await press(page, 'call', 'call');
  await seen(page, 'call', /Gateway → API/);
  await press(page, 'issuer', 'issuer');
  await shows(page, '[data-do=issuer]', 'Start the issuer');
  for (const [width, height] of [[1280, 900], [768, 1024], [360, 740]]) {
    for (const colorScheme of ['light', 'dark']) {
      await page.setViewportSize({ width, height });
      await page.emulateMedia({ colorScheme });
      const overflow = await page.evaluate(overflowing);
      check(overflow.length === 0, `nothing overflows at ${width} px in ${colorScheme} ${overflow.join(', ')}`);
      await page.evaluate(await readFile(axe, 'utf8'));
      const { violations, passes } = await page.evaluate('axe.run()');
      const found = violations.map(({ id, impact, nodes }) => `${impact} ${id}: ${nodes.map(({ html }) => html).join(' ')}`);
      check(found.length === 0 && passes.length > 10, `axe finds no fault at ${width} px in ${colorScheme} ${found.join('\n')}`);
      await page.screenshot({ path: path.join(options.folder, `tour-${width}-${colorScheme}.png`) });
    }
  }
  await press(page, 'issuer', 'issuer');
  check(faults.length === 0, `no fault on the console and nothing from elsewhere ${faults.join('\n')}`);
}

/** Runs in the page: what sticks out of it at the side, or out of its box in the picture. */
function overflowing() {
  const width = document.documentElement.clientWidth;
  const out = [...document.querySelectorAll('main *')].filter((element) => {
    const { left, right } = element.getBoundingClientRect();
    return left < -1 || right > width + 1;
  });
  const spilt = [...document.querySelectorAll('[data-part] text')].filter((text) =>
    text.getBoundingClientRect().right > text.parentElement.querySelector('rect').getBoundingClientRect().right);
  return [...out, ...spilt].map((element) => `${element.tagName}: ${element.textContent.slice(0, 40)}`);
}

async function open() {
  const page = await context.newPage();
  await page.goto(`${origin}/`);
  return page;
}

async function logIn(page, step) {
  await press(page, step, 'login');
  // The issuer asks for no password where it knows the user.
  await Promise.race([page.locator('#username').waitFor(), page.locator('#who', { hasText: /^You are/ }).waitFor()]);
  if (await page.locator('#username').count()) {
    await page.fill('#username', options.user);
    await page.fill('#password', options.password);
    await page.click('form button');
  }
  await page.waitForURL(`${origin}/`);
  await isLoggedIn(page);
}

async function isLoggedIn(page) {
  await shows(page, '#who', 'You are Alice Liddell.');
}

async function press(page, step, deed) {
  await page.click(`#step-${step} [data-do=${deed}]`);
}

/** A part that was away is asked again after a moment, and not at once. */
async function untilCalled(page) {
  await until('answer of the API', async () => {
    const answered = page.waitForResponse((response) => response.url() === `${origin}/api/hello`);
    await press(page, 'call', 'call');
    return (await answered).status() === 200;
  });
}

/** The step is ticked off, and the log has the hop that this stands for. */
async function seen(page, step, hop) {
  await page.locator(`#step-${step} .mark`).waitFor();
  await page.locator('#log li', { hasText: hop }).first().waitFor();
  check(true, `${step}: ${hop}`);
}

async function tabTo(page, selector) {
  for (let presses = 0; presses < 40; presses++) {
    if (await page.evaluate((wanted) => document.activeElement.matches(wanted), selector)) return;
    await page.keyboard.press('Tab');
  }
  check(false, `Tab leads to ${selector}`);
}

async function shows(page, selector, text) {
  await page.locator(selector, { hasText: text }).waitFor();
}
