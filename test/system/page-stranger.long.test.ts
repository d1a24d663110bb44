/**
 * The way of a stranger: the page is opened, its first card clicked, and Linux has a prompt before much of its disk is
 * here. A file that is written there survives a reload.
 */

import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Page } from 'playwright';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { buildPage } from '../support/built-page.ts';
import { Chromium } from '../support/chromium.ts';
import { type Site, startSite } from '../support/site.ts';
import { describePage } from '../support/tools.ts';

/** Only a safety net against a hang; it must suffice for the slowest machine. */
const WAIT = { timeout: 600_000 };

describePage(['chromium', 'apt-get', 'cpio', 'mke2fs', 'sfdisk', 'grub-mkimage'], 'a stranger', () => {
  const folder = mkdtempSync(join(tmpdir(), 'cod-stranger-'));
  const hasLinux = (): boolean => existsSync(join(folder, 'page', 'samples', 'linux.img'));
  let site: Site;
  let chromium: Chromium;

  beforeAll(async () => {
    buildPage(join(folder, 'page'), { samples: true });
    site = await startSite({ folders: { '/': join(folder, 'page') } });
    chromium = await Chromium.start(join(folder, 'profile'));
  }, 600_000);

  afterAll(async () => {
    await chromium?.close();
    await site?.close();
    rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  });

  const screenOf = async (page: Page): Promise<string> =>
    (await page.locator('.screen > div > div').allTextContents()).map((line) => line.trimEnd()).join('\n');
  const prompt = (page: Page): Promise<void> =>
    expect.poll(() => screenOf(page), { ...WAIT, interval: 100 }).toMatch(/\/ #\n*$/);

  describe('without more than a click', () => {
    test('gets a Linux whose files survive a reload', { timeout: 1_800_000 }, async ({ skip }) => {
      if (!hasLinux()) skip();
      const page = await chromium.newPage();
      await page.setViewportSize({ width: 1280, height: 900 });
      await page.goto(site.url);
      const resumed: string[] = [];
      page.on('request', (request) => {
        if (request.url().endsWith('.pc.gz')) resumed.push(request.url());
      });
      const begun = performance.now();
      await page.locator('.sample').first().click(WAIT);
      await prompt(page);
      const seconds = (performance.now() - begun) / 1000;
      const share = Number.parseFloat((await page.locator('.share').textContent())!);
      console.info(`a prompt after ${seconds.toFixed(1)} s, with ${share} % of the disk here`);
      // The background copy brings 256 KiB of 256 MiB each second, however slow the PC is.
      expect(share - seconds / 10.24).toBeLessThan(10);

      // A PC that had started was resumed: its kernel would take longer.
      expect(resumed).toHaveLength(1);

      await page.keyboard.type('echo it is here ');
      // The PC gets keys, not characters.
      await page.keyboard.press('Shift+Period');
      await page.keyboard.type(' root/letter.txt\n');
      await expect.poll(() => screenOf(page), WAIT).toMatch(/letter\.txt\n\/ #\n*$/);
      await page.reload();
      await page.locator('.row bdi', { hasText: /^root$/ }).click(WAIT);
      await page.getByRole('treeitem', { name: 'letter.txt' }).click(WAIT);
      await page.getByText('it is here').waitFor(WAIT);
      await page.getByRole('button', { name: 'Boot it' }).click();
      await prompt(page);
      // Resumed beside a disk that was written since, Linux would destroy its file system.
      expect(resumed).toHaveLength(1);
      await page.keyboard.type('cat root/letter.txt\n');
      await expect.poll(() => screenOf(page), WAIT).toMatch(/letter\.txt\nit is here\n\/ #\n*$/);
    });
  });
});
