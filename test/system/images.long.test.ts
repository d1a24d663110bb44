/** The page says of each image what it is, in Chromium and in Firefox. */

import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { buildPage, serveImage } from '../support/built-page.ts';
import { Chromium } from '../support/chromium.ts';
import { Firefox } from '../support/firefox.ts';
import { imageCases, imageMakers, makeImages } from '../support/images.ts';
import { type Site, startSite } from '../support/site.ts';
import { describePage } from '../support/tools.ts';

const WAIT = { timeout: 120_000, interval: 100 };
/** What an offer may fetch: the first and the last bytes of the image, and the answers to a few requests. */
const MAX_OFFER_BYTES = 8192;

/** What the tests need of a page; both drivers have it. */
interface Tab {
  goto(url: string): Promise<unknown>;
  evaluate(script: string): Promise<unknown>;
  close(): Promise<void>;
}

describePage(['chromium', 'firefox-esr', ...imageMakers], 'the page', () => {
  const folder = mkdtempSync(join(tmpdir(), 'cod-images-'));
  let site: Site;

  beforeAll(async () => {
    buildPage(join(folder, 'page'));
    mkdirSync(join(folder, 'images'));
    makeImages(join(folder, 'images'));
    site = await startSite({ folders: { '/': join(folder, 'page') } });
  });

  afterAll(async () => {
    await site?.close();
    rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
  });

  test.each([
    ['Chromium', Chromium.start],
    ['Firefox', Firefox.start],
  ] as const)('in %s says of each image what it is', async (name, start) => {
    const browser = await start(join(folder, name));
    try {
      for (const { name: image, shows, hides = [], isRefused = false } of imageCases) {
        const tab: Tab = await browser.newPage();
        const server = await serveImage(join(folder, 'images', image));
        await tab.goto(`${site.url}/?image=${encodeURIComponent(server.url)}`);
        const shown = async (): Promise<string> => `${image}: ${await tab.evaluate(openAll)}`;
        for (const text of shows) await expect.poll(shown, WAIT).toContain(text);
        for (const text of hides) expect(await shown()).not.toContain(text);
        if (isRefused) expect(server.sentBytes).toBeLessThan(MAX_OFFER_BYTES);
        await tab.close();
        await server.close();
      }
    } finally {
      await browser.close();
    }
  });
});

/** Begins the copy if the page offers it, opens what the disk holds, and returns the page's text; runs in the page. */
const openAll = `(() => {
  const [begin] = document.querySelectorAll('.outcome button');
  if (begin?.disabled === false) begin.click();
  if (begin) begin.disabled = true;
  for (const row of document.querySelectorAll('[role=tree] > [aria-expanded=false] > .row')) row.click();
  return document.body.innerText;
})()`;
