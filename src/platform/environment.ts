/** The clock and the randomness of the machine, as Node and every browser have them alike. */

import type { Environment } from './clock.ts';
import { systemClock } from './system-clock.ts';

export const systemEnvironment: Environment = {
  clock: systemClock,
  randomBytes: (into) => {
    crypto.getRandomValues(into as Uint8Array<ArrayBuffer>);
  },
};
