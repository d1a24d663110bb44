/** The clock and the randomness of the machine, as Node and every browser have them alike. */

import type { Environment } from '../device/open.ts';
import { systemClock } from './system-clock.ts';

export const systemEnvironment: Environment = {
  clock: systemClock,
  randomBytes: (into) => {
    crypto.getRandomValues(into as Uint8Array<ArrayBuffer>);
  },
};
