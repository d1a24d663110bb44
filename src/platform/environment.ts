/** The clock and the randomness of the machine. Works in Node and in every browser. */

import type { Environment } from './clock.ts';
import { systemClock } from './system-clock.ts';

export const systemEnvironment: Environment = {
  clock: systemClock,
  randomBytes: (into) => {
    crypto.getRandomValues(into as Uint8Array<ArrayBuffer>);
  },
};
