/** The clock and the randomness of the machine, as Node and every browser have them alike. */

import type { Clock } from './core/clock.ts';
import type { Environment } from './device/open.ts';

const systemClock: Clock = {
  now: () => performance.now(),
  sleep: (ms, signal) =>
    new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason);
        return;
      }
      const stop = () => {
        clearTimeout(timer);
        reject(signal?.reason);
      };
      const timer = setTimeout(() => {
        signal?.removeEventListener('abort', stop);
        resolve();
      }, ms);
      signal?.addEventListener('abort', stop, { once: true });
    }),
};

export const systemEnvironment: Environment = {
  clock: systemClock,
  randomBytes: (into) => {
    crypto.getRandomValues(into as Uint8Array<ArrayBuffer>);
  },
};
