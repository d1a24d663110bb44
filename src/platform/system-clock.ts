/** The machine's clock. Works in Node and in every browser. */

import type { Clock } from './clock.ts';

/** The longest delay that a timer takes: with a longer one it fires at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;

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
      let timer: ReturnType<typeof setTimeout>;
      const onAbort = () => {
        clearTimeout(timer);
        reject(signal?.reason);
      };
      const wait = (left: number) => {
        timer = setTimeout(
          () => {
            if (left > MAX_TIMER_MS) return wait(left - MAX_TIMER_MS);
            signal?.removeEventListener('abort', onAbort);
            resolve();
          },
          Math.min(left, MAX_TIMER_MS),
        );
      };
      // A wait without end needs no timer, which would keep the process running.
      if (ms !== Number.POSITIVE_INFINITY) wait(ms);
      signal?.addEventListener('abort', onAbort, { once: true });
    }),
};
