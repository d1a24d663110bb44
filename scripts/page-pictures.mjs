/**
 * `npm run pictures`: renews the pictures of the page in docs/page, with Chromium.
 *
 * They show the first screen, a disk, a file and the PC, in light and dark colours, and on a phone.
 */
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright';
import { root, say, script } from './lib/steps.mjs';

const WAIT = { timeout: 300_000 };
const WIDE = { width: 1120, height: 760 };
const PHONE = { width: 390, height: 844 };

/**
 * Builds the page, serves it, and returns its address.
 * @param {string} outdir
 */
function servePage(outdir) {
  const server = spawn(process.execPath, [join(root, 'scripts', 'web.mjs'), '--out', outdir, '--serve', '--port', '0']);
  server.stderr.pipe(process.stderr);
  /** @type {Promise<string>} */
  const url = new Promise((resolve, reject) => {
    let said = '';
    for (const stream of [server.stdout, server.stderr])
      stream.on('data', (data) => {
        said += data;
        const found = /the page is at (\S+?)[,\s]/.exec(said);
        if (found?.[1]) resolve(found[1]);
      });
    server.on('exit', () => reject(new Error(`the page is not served: ${said}`)));
  });
  return { url, stop: () => server.kill() };
}

/**
 * @param {import('playwright').Page} page
 * @param {string} name
 * @param {{ type: 'png' | 'jpeg', quality?: number }} [format]
 */
async function take(page, name, format = { type: 'png' }) {
  const pathOf = (/** @type {string} */ kind) =>
    join(root, 'docs', 'page', `${name}-${kind}.${format.type === 'png' ? 'png' : 'jpg'}`);
  for (const colorScheme of /** @type {const} */ (['light', 'dark'])) {
    await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
    await page.setViewportSize(WIDE);
    await page.screenshot({ path: pathOf(colorScheme), ...format });
  }
  await page.emulateMedia({ colorScheme: 'light' });
  await page.setViewportSize(PHONE);
  await page.screenshot({ path: pathOf('phone'), ...format });
  await page.setViewportSize(WIDE);
}

/** @param {import('playwright').Page} page @param {string} url */
async function takeAll(page, url) {
  await page.goto(url);
  await page.getByText('Try one').waitFor(WAIT);
  await take(page, 'start');
  await page.getByRole('button', { name: 'Look into a camera’s card' }).click();
  await page.getByRole('button', { name: 'Pause' }).click(WAIT);
  await page.getByRole('treeitem', { name: 'DCIM' }).click(WAIT);
  await take(page, 'disk');
  await page.getByRole('treeitem', { name: '100HILLS' }).click(WAIT);
  await page.getByRole('treeitem', { name: 'HILL0004.PNG' }).click(WAIT);
  await page.getByRole('img', { name: 'Picture' }).waitFor(WAIT);
  await page.locator('.card.file').scrollIntoViewIfNeeded();
  // A picture within the picture: it would be large as PNG.
  await take(page, 'file', { type: 'jpeg', quality: 85 });
  await page.getByRole('button', { name: 'All images' }).click();
  await page.getByRole('button', { name: 'Play from a floppy' }).click(WAIT);
  await page.locator('.screen').getByText('-*-').first().waitFor(WAIT);
  await page.locator('.screen').scrollIntoViewIfNeeded();
  await take(page, 'pc');
}

await script(async () => {
  const folder = mkdtempSync(join(tmpdir(), 'page-pictures-'));
  mkdirSync(join(root, 'docs', 'page'), { recursive: true });
  const served = servePage(join(folder, 'page'));
  const browser = await chromium.launchPersistentContext(join(folder, 'profile'), {
    executablePath: process.env['CHROMIUM_PATH'] ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu'],
  });
  try {
    await takeAll(await browser.newPage(), await served.url);
    say('the pictures are in docs/page');
  } finally {
    await browser.close();
    served.stop();
    rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  }
});
