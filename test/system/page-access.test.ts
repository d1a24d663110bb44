/** The page for everyone: no violation that axe finds, the whole page by keyboard, and words for what it waits for. */

import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import axe from 'axe-core';
import type { Page } from 'playwright';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { buildPage, makeSampleDisk, serveImage } from '../support/built-page.ts';
import { Chromium } from '../support/chromium.ts';
import { imageTools } from '../support/disk-images.ts';
import { type Site, startSite } from '../support/site.ts';
import { describePage } from '../support/tools.ts';

const BIOS = '/usr/share/seabios/bios.bin';
const WAIT = { timeout: 120_000 };

describePage(['chromium', ...imageTools], 'the page', () => {
  const folder = mkdtempSync(join(tmpdir(), 'cod-access-'));
  let site: Site;
  let chromium: Chromium;
  let page: Page;

  beforeAll(async () => {
    buildPage(join(folder, 'page'));
    // In the place of the sample and of the folder's images, which take long to make.
    const size = 40 * 2 ** 20;
    mkdirSync(join(folder, 'page', 'samples'));
    renameSync(makeSampleDisk(folder), join(folder, 'page', 'samples', 'card.img'));
    const images = { samples: [{ url: 'samples/card.img', size }], folder: [{ url: 'images/a%20disk.img', size }] };
    writeFileSync(join(folder, 'page', 'images.json'), JSON.stringify(images));
    site = await startSite({ folders: { '/': join(folder, 'page') } });
    chromium = await Chromium.start(join(folder, 'profile'));
  });

  afterEach(() => page?.close());

  afterAll(async () => {
    await chromium?.close();
    await site?.close();
    rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  });

  async function openPage(path = '/'): Promise<void> {
    page = await chromium.newPage();
    await page.setViewportSize({ width: 1280, height: 900 });
    await page.goto(`${site.url}${path}`);
    await page.evaluate(axe.source);
  }

  const until = (text: string | RegExp): Promise<unknown> => page.getByText(text).first().waitFor(WAIT);
  const focused = (): Promise<string> =>
    page.evaluate<string>('document.activeElement.ariaLabel ?? document.activeElement.textContent.trim()');

  /** What axe finds on the screen as it is, in both colour schemes. */
  async function violations(): Promise<string[]> {
    const found: string[] = [];
    for (const colorScheme of ['dark', 'light'] as const) {
      await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
      found.push(
        ...(await page.evaluate<string[]>(`axe.run().then(({ violations }) => violations.flatMap(({ id, nodes }) =>
          nodes.map(({ html, failureSummary }) => id + ': ' + html.slice(0, 200) + failureSummary)))`)),
      );
    }
    return found;
  }

  /** Presses Tab until the focus has left the page twice, which is once around, and returns what had it. */
  async function tabThrough(): Promise<{ reached: number; missed: string[] }> {
    await page.evaluate(`{
      document.activeElement.blur();
      window.reached = new Set();
      document.addEventListener('focusin', ({ target }) => reached.add(target));
    }`);
    const LIMIT = 200;
    for (let presses = 0, rounds = 0; presses < LIMIT && rounds < 2; presses++) {
      await page.keyboard.press('Tab');
      if (await page.evaluate<boolean>('document.activeElement === document.body')) rounds++;
    }
    return page.evaluate(`({
      reached: reached.size,
      missed: [...document.querySelectorAll('a[href], button:enabled, input, select:enabled, summary, [tabindex="0"]')]
        .filter((e) => e.checkVisibility() && e.tabIndex >= 0 && !reached.has(e))
        .map((e) => e.outerHTML.slice(0, 200)),
    })`);
  }

  test('is used by keyboard, from the first screen to a file', async () => {
    await openPage();
    await until('Look into a camera’s card');
    await until('a disk.img');
    expect(await page.evaluate('document.activeElement.id')).toBe('image');
    expect(await violations()).toEqual([]);
    expect((await tabThrough()).missed).toEqual([]);

    await page.focus('#image');
    await page.keyboard.press('Shift+Tab');
    expect(await focused()).toMatch(/camera’s card/);
    await page.keyboard.press('Enter');
    await until('licence.txt');
    expect(await page.locator('#rate').inputValue()).toBe('256 KiB/s');
    expect(await focused()).toBe('card.img');

    await page.getByRole('treeitem', { name: '1 · boot' }).focus();
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('e');
    await page.keyboard.press('Enter');
    await until('The file is empty.');
    expect(await violations()).toEqual([]);
    await page.evaluate("document.querySelectorAll('details').forEach((view) => (view.open = true))");
    await page.locator('.bytes').getByText('000001b0').waitFor(WAIT);
    expect(await violations()).toEqual([]);
    const { reached, missed } = await tabThrough();
    expect(missed).toEqual([]);
    expect(reached).toBeGreaterThan(15);

    await page.goto(`${site.url}/?image=samples/card.img`);
    await page.getByRole('button', { name: /^Continue \([\d.]+ % is here\)$/ }).waitFor(WAIT);
  });

  test.skipIf(!existsSync(BIOS))('says that nothing boots, and a key leaves the screen of the PC', async () => {
    await openPage('/?image=samples/card.img');
    await page
      .getByRole('button', { name: 'Look without a copy' })
      .or(page.getByRole('button', { name: 'Continue (' }))
      .click(WAIT);
    await page.getByRole('button', { name: 'Boot it' }).click(WAIT);
    await until('Nothing on this disk boots');
    await until('The disk starts by EFI only, and this PC has a BIOS.');
    await page.getByRole('button', { name: 'Start anyway' }).press('Enter');
    await until('The disk is the PC’s hard disk.');
    await until('Booting from Hard Disk');
    await page.keyboard.press('Tab');
    expect(await focused()).toBe('Screen of the PC');
    await until('leaves the screen');
    expect(await violations()).toEqual([]);
    await page.keyboard.press('Control+Alt+KeyG');
    expect(await focused()).toBe('Switch off');
    await page.keyboard.press('Enter');
    await until('The PC is off.');
  });

  test('says that the server does not answer, and when it is asked again', async () => {
    const server = await serveImage(join(folder, 'page', 'samples', 'card.img'));
    await openPage(`/?image=${encodeURIComponent(server.url)}`);
    await page.getByRole('button', { name: 'Start the copy' }).click(WAIT);
    await page.getByRole('treeitem', { name: 'licence.txt' }).click(WAIT);
    await until('So is reading.');
    await server.close();
    await until(/The server does not answer\. Asking again (in \d+ s\.|…)/);
    await page.getByRole('treeitem', { name: 'licence.txt' }).click(WAIT);
    await until('So is reading.');
    expect(await violations()).toEqual([]);
  });

  test('takes dropped text as an address and a dropped file as an image, and refuses what is none', async () => {
    await openPage();
    await until('Look into a camera’s card');
    const drop = (fill: string): Promise<unknown> =>
      page.evaluate(`{
        const dataTransfer = new DataTransfer();
        dataTransfer.${fill};
        document.body.dispatchEvent(new DragEvent('drop', { dataTransfer, bubbles: true, cancelable: true }));
      }`);
    const dropText = (text: string): Promise<unknown> => drop(`setData('text/plain', ${JSON.stringify(text)})`);
    await dropText(`${site.url.replace('http://', '')}/samples/card.img\n`);
    await page.getByRole('button', { name: /Continue|Start the copy/ }).waitFor(WAIT);
    await drop("items.add(new File([new Uint8Array(2 ** 16)], 'dropped.img'))");
    await until('dropped.img');
    await until('64 KiB');
    await drop("items.add(new File(['<!doctype html><html>'], 'dropped.html'))");
    await until(/It is an HTML page/);
    await page.fill('#image', 'ftp://example.org/disk.img');
    await page.press('#image', 'Enter');
    await until('This is not the address of a file on a server.');
  });
});
