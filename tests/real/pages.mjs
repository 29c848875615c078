// The pages that people see of the gateway: on a narrow screen, in both languages, light and dark, by keyboard. `folder` takes
// the pictures, `own` says that the app has pages of its own.
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';

import { check, context, options, origin, run } from './scenario.mjs';

const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** Each page, its status, and the path that its one action leads to. */
const pages = {
  'not-found': ['/bff/nothing', 404, '/'],
  'bad-request': ['/bff/login?return_to=https://elsewhere.example/', 400, '/'],
  'login-failed': ['/bff/callback', 400, '/bff/login'],
  'upstream-unavailable': ['/gone', 502, '/gone'],
  logout: ['/bff/logout', 200, '/'],
  issuers: ['/bff/login', 200, '/bff/login'],
};

await run({ every_page });

async function every_page() {
  for (const locale of ['en-GB', 'de-DE']) {
    for (const colorScheme of ['light', 'dark']) {
      const reader = await context.browser().newContext({ locale, colorScheme, viewport: { width: 360, height: 740 } });
      const page = await reader.newPage();
      const faults = [];
      page.on('console', (message) => { if (/Content.Security.Policy|violates/i.test(message.text())) faults.push(message.text()); });
      for (const [name, [target, status]] of Object.entries(pages)) {
        await looks(page, name, target, status, `${locale} ${colorScheme}`);
      }
      check(faults.length === 0, `nothing is against the policy ${faults.join('\n')}`, { silent: true });
      await reader.close();
    }
  }
  const page = await context.newPage();
  for (const [name, [target, , leads]] of Object.entries(pages)) await leadsOnByKeyboard(page, name, target, leads);
}

async function looks(page, name, target, status, how) {
  const response = await page.goto(new URL(target, origin).href);
  check(response.status() === status, `${name} is ${status}`, { silent: true });
  const language = how.slice(0, 2);
  check(await page.evaluate(() => document.documentElement.lang) === language, `${name} is in ${language}`, { silent: true });
  check(response.headers()['content-language'] === language, `${name} says so in HTTP`, { silent: true });
  // The example has no page of its own for the choice among issuers.
  const isTheApps = options.own && name !== 'issuers';
  check((await page.title()).includes('Shop') === isTheApps, `${name} is ${isTheApps ? "the app's" : 'ours'}`, { silent: true });
  const isTooWide = await page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);
  check(!isTooWide, `${name} does not overflow: ${how}`, { silent: true });
  const styled = await page.evaluate(() => [...document.styleSheets].every((sheet) => sheet.cssRules.length > 0));
  check(styled, `the style of ${name} is let in`, { silent: true });
  await page.evaluate(axe);
  const { violations, passes } = await page.evaluate('axe.run()');
  const found = violations.map(({ id, impact, nodes }) => `${impact} ${id}: ${nodes.map(({ html }) => html).join(' ')}`);
  check(found.length === 0 && passes.length > 10, `axe finds no fault in ${name}: ${how} ${found.join('\n')}`);
  await page.screenshot({ path: path.join(options.folder, `${name}-${how.replaceAll(' ', '-')}.png`) });
}

/** The first thing that Tab comes to is what there is to do next, it shows that it has the focus, and Enter does it. */
async function leadsOnByKeyboard(page, name, target, leads) {
  await page.goto(new URL(target, origin).href);
  await page.keyboard.press('Tab');
  const focused = await page.evaluate(() => {
    const { tagName } = document.activeElement;
    return { tagName, outline: getComputedStyle(document.activeElement).outlineStyle };
  });
  check(['A', 'BUTTON'].includes(focused.tagName) && focused.outline !== 'none', `the focus shows on ${name}`, { silent: true });
  const [request] = await Promise.all([
    page.waitForRequest((asked) => asked.isNavigationRequest() && new URL(asked.url()).pathname === leads),
    page.waitForEvent('load'),
    page.keyboard.press('Enter'),
  ]);
  check(request, `${name} leads to ${leads} by keyboard`);
}
