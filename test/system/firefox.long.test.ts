/** Copies in Firefox, many interruptions of one, and an image of 3 GiB. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { Firefox } from '../support/firefox.ts';
import { describeInBrowser } from './browser-bench.ts';
import { refusals } from './browser-refusals.ts';
import { copies, interruptions, largeImage, lostSiteData } from './browser-suite.ts';

describeInBrowser('firefox-esr', Firefox.start, (bench) => {
  copies(bench);
  lostSiteData(bench);
  interruptions(bench, { terminations: 25, terminationsShared: 10, kills: 4 });
  largeImage(bench);
  refusals(bench, (profile) => Firefox.start(profile, { blocksStorage: true }), { trustedTypes: false });

  test('openDevice detects a private window without storage', async () => {
    writeFileSync(join(bench.files, 'private-image'), new Uint8Array(5000));
    const profile = mkdtempSync(join(tmpdir(), 'cod-firefox-private-'));
    const firefox = await Firefox.start(profile, { isPrivate: true });
    try {
      const page = await bench.prepare(await firefox.newPage());
      const visit = { url: `${bench.site.url}/files/private-image`, target: 'private', hydrate: false, writes: [] };
      await expect(bench.act('visit', visit, page)).rejects.toThrow(/private window/);
    } finally {
      await firefox.close();
      rmSync(profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 });
    }
  });
});
