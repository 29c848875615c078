// The manual as people see it, in Chromium: wide and narrow, light and dark, axe on each, and its search.
//
//   node book.mjs target/book [folder for pictures]
import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';

import { chromium } from 'playwright-core';

const [site, pictures] = process.argv.slice(2);
const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const PAGES = ['index', 'start', 'concepts', 'configuration', 'comparison', 'spa', 'security', 'migration/oauth2-proxy'];
const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml', '.woff2': 'font/woff2', '.png': 'image/png' };
const faults = [];

const server = createServer(async (request, response) => {
  const name = path.join(site, path.normalize(new URL(request.url, 'http://localhost').pathname));
  const content = await readFile(name).catch(() => undefined);
  response.writeHead(content ? 200 : 404, { 'content-type': TYPES[path.extname(name)] ?? 'text/plain' }).end(content);
});
await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
const origin = `http://127.0.0.1:${server.address().port}`;
const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox'] });

try {
  const page = await browser.newPage();
  page.on('console', (message) => { if (message.type() === 'error') faults.push(message.text()); });
  page.on('request', (request) => { if (!request.url().startsWith(origin)) faults.push(`asked for ${request.url()}`); });
  for (const [width, height] of [[1280, 900], [360, 740]]) {
    for (const colorScheme of ['light', 'dark']) {
      await page.setViewportSize({ width, height });
      await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
      for (const name of PAGES) await look(page, name, `${width} px, ${colorScheme}`, `${width}-${colorScheme}`);
    }
  }
  await search(page);
} finally {
  await browser.close();
  server.close();
}
if (faults.length) {
  console.error(faults.join('\n'));
  process.exit(1);
}

async function look(page, name, where, suffix) {
  await page.goto(`${origin}/${name}.html`);
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  if (overflow > 0) faults.push(`${name}, ${where}: ${overflow} px too wide`);
  await page.evaluate(axe);
  const { violations } = await page.evaluate('axe.run()');
  for (const { id, impact, nodes } of violations) {
    if (['serious', 'critical'].includes(impact)) {
      faults.push(`${name}, ${where}: ${impact} ${id}, ${nodes.length} times: ${nodes[0].html.slice(0, 160)} ${nodes[0].failureSummary}`);
    }
  }
  if (pictures) await page.screenshot({ path: path.join(pictures, `${name.replace('/', '-')}-${suffix}.png`) });
}

async function search(page) {
  await page.setViewportSize({ width: 1280, height: 900 });
  await page.goto(`${origin}/index.html`);
  await page.keyboard.press('s');
  await page.keyboard.type('back-channel');
  const found = page.locator('#mdbook-searchresults a, #searchresults a').first();
  await found.waitFor({ timeout: 20000 }).catch(() => faults.push('the search finds nothing'));
}
