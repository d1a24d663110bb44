/** The page in Firefox. */

import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Page } from 'puppeteer-core';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { buildPage, makeSampleDisk, serveImage } from '../support/built-page.ts';
import { expectBytes } from '../support/bytes.ts';
import { imageTools } from '../support/disk-images.ts';
import { Firefox } from '../support/firefox.ts';
import { type Site, startSite } from '../support/site.ts';
import { describePage } from '../support/tools.ts';

const WAIT = { timeout: 120_000 };

describePage(['firefox-esr', ...imageTools], 'the page in Firefox', () => {
  const folder = mkdtempSync(join(tmpdir(), 'cod-firefox-'));
  const uploads = join(folder, 'uploads');
  let site: Site;
  let firefox: Firefox;

  beforeAll(async () => {
    buildPage(join(folder, 'page'));
    makeSampleDisk(folder);
    mkdirSync(uploads);
    site = await startSite({ folders: { '/': join(folder, 'page') }, uploads });
    firefox = await Firefox.start(join(folder, 'profile'));
  });

  afterAll(async () => {
    await firefox?.close();
    await site?.close();
    rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  });

  const until = (page: Page, text: string): Promise<unknown> => page.waitForSelector(`::-p-text(${text})`, WAIT);
  // Not by a locator: the page's policy refuses the code that it evaluates.
  const click = async (page: Page, selector: string): Promise<void> =>
    (await page.waitForSelector(selector, WAIT))!.click();
  // A click misses an element that moves meanwhile, as an entry does while the list above it grows.
  const clickUntil = async (page: Page, selector: string, text: string): Promise<void> => {
    const shown = async (): Promise<boolean> => {
      await click(page, selector);
      return String(await page.evaluate('document.body.innerText')).includes(text);
    };
    await expect.poll(shown, { ...WAIT, interval: 2000 }).toBe(true);
  };
  const fill = async (page: Page, selector: string, text: string): Promise<void> => {
    const field = (await page.waitForSelector(selector, WAIT))!;
    await field.click({ count: 3 });
    await field.type(text);
  };
  const press = (page: Page, button: string): Promise<void> =>
    click(page, `::-p-aria([name="${button}"][role="button"])`);

  test('shows and writes an image during the copy, resumes after a reload and completes the copy', async () => {
    // Slow enough that the copy is not complete when a busy machine gets to "Pause".
    const server = await serveImage(join(folder, 'disk.img'), { bytesPerSecond: 2 ** 17 });
    const page = await firefox.newPage();
    const errors: unknown[] = [];
    page.on('pageerror', (error) => errors.push(error));
    await page.goto(`${site.url}/?image=${encodeURIComponent(server.url)}`);
    await press(page, 'Start the copy');
    await press(page, 'Pause');
    await clickUntil(page, '[role=treeitem] ::-p-text(licence.txt)', 'Copying is fine.');
    await page.evaluate("document.querySelectorAll('details.folded').forEach((view) => (view.open = true))");
    await fill(page, '#hex-offset', '39 MiB');
    await press(page, 'Go');
    await expect.poll(() => page.evaluate("document.querySelector('#hex-offset').value"), WAIT).toBe('0x02700000');
    await fill(page, '#hex-values', '"Kilroy was here"');
    await press(page, 'Write');
    await until(page, '15 bytes written and flushed');

    server.release();
    await page.reload();
    await press(page, 'Resume');
    await until(page, 'The copy is complete');
    await page.evaluate(uploadCopies);
    const expected = Uint8Array.from(readFileSync(join(folder, 'disk.img')));
    expected.set(new TextEncoder().encode('Kilroy was here'), 39 * 2 ** 20);
    expectBytes(readFileSync(join(uploads, 'copy')), expected);
    expect(errors).toEqual([]);
    await page.close();
    await server.close();
  });
});

/** Uploads the page's only copy to its server; runs in the page. */
const uploadCopies = `(async () => {
  const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle('images');
  for await (const [name, handle] of folder.entries())
    if (name.endsWith('.raw')) await fetch('/upload/copy', { method: 'PUT', body: await handle.getFile() });
})()`;
