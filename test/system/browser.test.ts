/** Copies in Chromium that are interrupted, and Chromium's private windows. */

import { closeSync, ftruncateSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { Chromium } from '../support/chromium.ts';
import { browserSuite } from './browser-suite.ts';

const chromium = {
  program: 'chromium',
  start: (profile: string) => Chromium.start(profile),
  terminations: 200,
  terminationsShared: 50,
  kills: 20,
};

browserSuite('Chromium', chromium, (bench) => {
  test('openDevice detects a private window that rejects large files without an error', async () => {
    const fd = openSync(join(bench.files, 'private-image'), 'w');
    ftruncateSync(fd, 3 * 2 ** 30);
    closeSync(fd);
    const hidden = await bench.browser.browser.newContext();
    try {
      const page = await bench.prepare(await hidden.newPage());
      const options = { url: `${bench.site.url}/files/private-image`, target: 'large', hydrate: false, writes: [] };
      await expect(bench.act('visit', options, page)).rejects.toThrow(/private window/);
    } finally {
      await hidden.close();
    }
  });
});
