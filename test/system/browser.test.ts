/** Copies in Chromium, and its private windows. */

import { closeSync, ftruncateSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { Chromium } from '../support/chromium.ts';
import { describeInBrowser } from './browser-bench.ts';
import { copies } from './browser-suite.ts';

describeInBrowser('chromium', Chromium.start, (bench) => {
  copies(bench);

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
