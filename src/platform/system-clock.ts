/** The machine's clock. Works in Node and in every browser. */

import type { Clock } from './clock.ts';

/** Undefined in browsers. */
const { setImmediate: soon } = globalThis as { setImmediate?: (callback: () => void) => unknown };

export const systemClock: Clock = {
  turn: () => new Promise((resolve) => (soon === undefined ? setTimeout(resolve) : soon(resolve))),
  now: () => performance.now(),
  sleep: (ms, signal) =>
    new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(signal.reason);
        return;
      }
      const onAbort = () => {
        clearTimeout(timer);
        reject(signal?.reason);
      };
      const timer = setTimeout(() => {
        signal?.removeEventListener('abort', onAbort);
        resolve();
      }, ms);
      signal?.addEventListener('abort', onAbort, { once: true });
    }),
};
