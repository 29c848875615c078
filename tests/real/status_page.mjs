// The status page as people see it: wide and narrow, light and dark, with scripts and without. `gateway` is the admin
// listener, and `folder` takes the pictures.
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';

import { check, context, options, origin, run, until } from './scenario.mjs';

const axe = createRequire(import.meta.url).resolve('axe-core/axe.min.js');
const url = `${origin}/`;

await run({ wide_and_narrow });

async function wide_and_narrow() {
  const page = await context.newPage();
  const faults = [];
  page.on('console', (message) => { if (message.type() === 'error') faults.push(message.text()); });
  page.on('pageerror', (error) => faults.push(String(error)));
  page.on('request', (request) => { if (!request.url().startsWith(url)) faults.push(`asked for ${request.url()}`); });

  for (const [width, height] of [[1280, 900], [360, 740]]) {
    for (const colorScheme of ['light', 'dark']) {
      await page.setViewportSize({ width, height });
      await page.emulateMedia({ colorScheme });
      await page.goto(url);
      await page.click('summary');
      const overflow = await page.evaluate(overflowing);
      check(overflow.length === 0, `nothing overflows at ${width} px in ${colorScheme} ${overflow.join(', ')}`);
      await page.evaluate(await readFile(axe, 'utf8'));
      const { violations, passes } = await page.evaluate('axe.run()');
      const found = violations.map(({ id, impact, nodes }) => `${impact} ${id}: ${nodes.map(({ html }) => html).join(' ')}`);
      check(found.length === 0 && passes.length > 10, `axe finds no fault at ${width} px in ${colorScheme} ${found.join('\n')}`);
      await page.click('summary');
      await page.screenshot({ path: path.join(options.folder, `status-${width}-${colorScheme}.png`), fullPage: true });
    }
  }
  await keepsUpToDate(page);
  check(faults.length === 0, `no fault on the console and nothing from elsewhere ${faults.join('\n')}`);
  await saysWhenItCannot(page);
  await withoutScripts();
}

/** What is new comes without a reload, and what the reader has done stays. */
async function keepsUpToDate(page) {
  const facts = () => page.locator('.facts').innerText();
  await page.evaluate(() => { window.stayed = true; });
  await page.focus('summary');
  await page.keyboard.press('Enter');
  await page.evaluate(() => document.getElementById('routes').scrollIntoView());
  const place = () => page.evaluate(() => document.getElementById('routes').getBoundingClientRect().top);
  const before = [await facts(), await place()];
  await until('update', async () => (await facts()) !== before[0]);
  check(await page.evaluate(() => window.stayed === true), 'the page tells what is new without a reload');
  check(await page.locator('details').getAttribute('open') !== null, 'what was opened stays open');
  check(await page.evaluate(() => document.activeElement.tagName) === 'SUMMARY', 'the focus stays');
  check(Math.abs(await place() - before[1]) < 2, 'what is read stays in its place');

}

async function saysWhenItCannot(page) {
  await page.route('**/*', (route) => route.abort());
  await page.locator('#live', { hasText: 'does not answer' }).waitFor();
  check(true, 'it says when the gateway does not answer');
  await page.unroute('**/*');
  await page.locator('#live', { hasText: 'keeps itself up to date' }).waitFor();
  check(true, 'and goes on once it does');
}

async function withoutScripts() {
  const plain = await context.browser().newContext({ javaScriptEnabled: false });
  const page = await plain.newPage();
  await page.goto(url);
  check((await page.locator('h1').innerText()) === 'Cloakroom', 'without scripts the page is there');
  await page.waitForEvent('framenavigated');
  check((await page.locator('h1').innerText()) === 'Cloakroom', 'and is loaded again by itself');
  await plain.close();
}

/** Runs in the page: what sticks out of it at the side, or out of what holds it. */
function overflowing() {
  const width = document.documentElement.clientWidth;
  const wide = document.documentElement.scrollWidth > width ? [`the page: ${document.documentElement.scrollWidth}`] : [];
  const out = [...document.querySelectorAll('main *:not(svg *)')].filter((element) => {
    const { left, right } = element.getBoundingClientRect();
    return left < -1 || right > width + 1 || element.scrollWidth > element.clientWidth + 1 && getComputedStyle(element).display !== 'inline';
  });
  return [...wide, ...out.map((element) => `${element.tagName}.${element.className}: ${element.textContent.slice(0, 40)}`)];
}
