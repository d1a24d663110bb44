/** Many interruptions of a copy in Chromium, and an image of 3 GiB. */

import { Chromium } from '../support/chromium.ts';
import { describeInBrowser } from './browser-bench.ts';
import { interruptions, largeImage } from './browser-suite.ts';

describeInBrowser('chromium', Chromium.start, (bench) => {
  interruptions(bench, { terminations: 100, terminationsShared: 25, kills: 10 });
  largeImage(bench);
});
