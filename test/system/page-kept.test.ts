/** Kept copies in the page: without their source, of files of one name, and of URLs with secrets. */

import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Page } from 'playwright';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { seededRandom } from '../../src/testing/random.ts';
import { buildPage, type ImageServer, makeSampleDisk, serveImage } from '../support/built-page.ts';
import { expectBytes } from '../support/bytes.ts';
import { Chromium, pickFile } from '../support/chromium.ts';
import { imageTools } from '../support/disk-images.ts';
import { type Site, startSite } from '../support/site.ts';
import { describePage } from '../support/tools.ts';

const WAIT = { timeout: 120_000 };
const BLOCK = 4096;

describePage(['chromium', ...imageTools], 'a kept copy in the page', () => {
  const folder = mkdtempSync(join(tmpdir(), 'cod-kept-'));
  const downloads = join(folder, 'downloads');
  const disk = join(folder, 'disk.img');
  const servers: ImageServer[] = [];
  let page: Page;
  let chromium: Chromium;
  let site: Site;

  beforeAll(async () => {
    buildPage(join(folder, 'page'));
    makeSampleDisk(folder);
    mkdirSync(downloads);
    site = await startSite({ folders: { '/': join(folder, 'page') } });
    chromium = await Chromium.start(join(folder, 'profile'));
    const session = await chromium.browser.newBrowserCDPSession();
    await session.send('Browser.setDownloadBehavior', { behavior: 'allow', downloadPath: downloads });
  });

  afterEach(async () => {
    await page.close();
    for (const server of servers.splice(0)) await server.close();
  });

  afterAll(async () => {
    await chromium?.close();
    await site?.close();
    rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  });

  async function openPage(path = '/'): Promise<void> {
    page = await chromium.newPage();
    await page.goto(`${site.url}${path}`);
  }

  async function serve(etag?: () => string): Promise<ImageServer> {
    // Slow enough that little more than what is read is here when the copy is paused.
    const server = await serveImage(disk, { bytesPerSecond: 2 ** 19, ...(etag === undefined ? {} : { etag }) });
    servers.push(server);
    return server;
  }

  const click = (name: string): Promise<void> => page.getByRole('button', { name, exact: true }).click(WAIT);
  const until = (text: string): Promise<void> => page.getByText(text).first().waitFor(WAIT);

  async function enter(url: string): Promise<void> {
    await page.fill('#image', url);
    await page.press('#image', 'Enter');
  }

  /** Begins a copy, and has it copy little more than one file. */
  async function beginPaused(url: string): Promise<void> {
    await enter(url);
    await click('Start the copy');
    await click('Pause');
    await page.getByRole('treeitem', { name: 'licence.txt' }).click(WAIT);
    await until('Copying is fine.');
  }

  /** Reads a copied file of a copy without its source, and one that is not copied. */
  async function lookIntoIt(): Promise<void> {
    await until('Opened without its source');
    await page.getByRole('treeitem', { name: 'licence.txt' }).click(WAIT);
    await until('Copying is fine.');
    await page.getByRole('treeitem', { name: 'big.bin' }).click(WAIT);
    await page.getByRole('region', { name: 'File' }).getByText('without its source').first().waitFor(WAIT);
  }

  test('is looked into, downloaded as far as it is here, and continued later', async () => {
    const server = await serve();
    await openPage();
    await beginPaused(server.url);
    await page.getByRole('button', { name: 'All images' }).click();
    await click('Look into disk.raw');
    await lookIntoIt();

    await click('Download …');
    await page
      .getByRole('dialog')
      .getByText(/MiB of 40 MiB are missing \(\d\d(\.\d)? %\)/)
      .waitFor(WAIT);
    await click('Download what is here');
    const path = join(downloads, 'disk.raw.partial');
    await expect.poll(() => existsSync(path) && readFileSync(path).length, WAIT).toBe(40 * 2 ** 20);
    expectBytes(readFileSync(path).subarray(0, BLOCK), readFileSync(disk).subarray(0, BLOCK));

    server.release();
    await click('Continue the copy');
    await click('Resume');
    await until('The copy is complete');
  });

  test('can be used where its source has another image', async () => {
    let etag = '"one"';
    const server = await serve(() => etag);
    await openPage();
    await beginPaused(server.url);
    etag = '"two"';
    await page.reload();
    await until('The image has changed at its source');
    await page.getByRole('alert').getByRole('button', { name: 'Download …' }).click();
    await page.getByRole('dialog').getByText('are missing').waitFor(WAIT);
    await click('Cancel');
    await click('Look into what is here');
    await lookIntoIt();
    expect(await page.getByText('The image has changed at its source').count()).toBe(0);
  });

  test('of a file is one of two files of one name and size, and needs no file to look into it', async () => {
    const paths = ['one', 'two'].map((name, index) => {
      mkdirSync(join(folder, name));
      const path = join(folder, name, 'same.img');
      writeFileSync(path, seededRandom(index).fill(new Uint8Array(20 * BLOCK)));
      return path;
    });
    await openPage();
    for (const path of paths) {
      await pickFile(page, path);
      await click('Start the copy');
      await until('The copy is complete');
      await page.getByRole('button', { name: 'All images' }).click();
    }
    await expect.poll(() => page.getByRole('button', { name: 'Resume same.img' }).count(), WAIT).toBe(2);
    await pickFile(page, paths[0]!);
    await click('Continue (100 % is here)');
    await until('The copy is complete');
    await page.reload();
    await until('pick it again');
    await click('Look into what is here');
    await until('The copy is complete');
    await click('Download the image');
    const saved = join(downloads, 'same.img');
    await expect.poll(() => existsSync(saved), WAIT).toBe(true);
    expectBytes(readFileSync(saved), readFileSync(paths[0]!));
  });

  test('of an earlier version, which knew a file by name and size only, is found', async () => {
    await openPage();
    await page.evaluate(`crypto.subtle.digest('SHA-256', new TextEncoder().encode('file:fat:4194304')).then((sum) => {
      const id = [...new Uint8Array(sum).subarray(0, 8)].map((byte) => byte.toString(16).padStart(2, '0')).join('');
      const record = { id, name: 'fat', size: 4194304, openedMs: 1, syncedBytes: 2097152 };
      localStorage.setItem('copyondemand:' + id, JSON.stringify(record));
    })`);
    await pickFile(page, join(folder, 'fat'));
    await page.getByRole('button', { name: 'Continue (50 % is here)' }).waitFor(WAIT);
    await click('It is another image');
    await page.getByRole('button', { name: 'Start the copy' }).waitFor(WAIT);
  });

  test('keeps no secret of its address, and asks for the address again', async () => {
    const { url } = await serve();
    const withSecrets = (signature: string): string => `${url}?part=1&token=hush&X-Amz-Signature=${signature}`;
    const expectNoSecret = async (): Promise<void> => {
      const stored = String(await page.evaluate('JSON.stringify(localStorage) + location.href'));
      expect(stored).toContain('disk=');
      for (const secret of ['hush', 'f00d', 'cafe']) expect(stored).not.toContain(secret);
    };
    await openPage(`/?image=${encodeURIComponent(withSecrets('f00d'))}`);
    await click('Start the copy');
    await click('Pause');
    await page.getByRole('treeitem', { name: 'licence.txt' }).click(WAIT);
    await until('Copying is fine.');
    await expectNoSecret();
    await page.reload();
    await until('Enter the whole address again');
    await expectNoSecret();
    await click('Look into what is here');
    await lookIntoIt();
    await click('Continue the copy');
    await until('Enter the whole address again');
    await enter(withSecrets('cafe'));
    await page.getByRole('button', { name: /^Continue \(/ }).click(WAIT);
    await page.getByRole('button', { name: 'Resume' }).waitFor(WAIT);
    await expectNoSecret();
  });
});
