/** Copies in Chromium that are interrupted often, lost site data, what Chromium refuses, and an image of 3 GiB. */

import { Chromium } from '../support/chromium.ts';
import { describeInBrowser } from './browser-bench.ts';
import { refusals } from './browser-refusals.ts';
import { interruptions, largeImage, lostSiteData } from './browser-suite.ts';

describeInBrowser('chromium', Chromium.start, (bench) => {
  interruptions(bench, { terminations: 100, terminationsShared: 25, kills: 10 });
  lostSiteData(bench);
  refusals(bench, (profile) => Chromium.start(profile, { blocksStorage: true }), { trustedTypes: true });
  largeImage(bench);
});
