/** Many interruptions of a copy in Firefox, and an image of 3 GiB. */

import { Firefox } from '../support/firefox.ts';
import { describeInBrowser } from './browser-bench.ts';
import { interruptions, largeImage } from './browser-suite.ts';

describeInBrowser('firefox-esr', Firefox.start, (bench) => {
  interruptions(bench, { terminations: 50, terminationsShared: 20, kills: 5 });
  largeImage(bench);
});
