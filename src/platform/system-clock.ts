/** The machine's clock. Works in Node and in every browser. */

import type { Clock } from './clock.ts';

/** The longest delay that a timer takes: with a longer one it fires at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** Undefined in browsers. */
const { setImmediate: soon } = globalThis as { setImmediate?: (callback: () => void) => unknown };

/** Calls `task` after `ms` milliseconds, however many. Returns a function that cancels the call. */
function startTimer(task: () => void, ms: number): () => void {
  // A wait without end needs no timer, which would keep the process running.
  if (ms === Number.POSITIVE_INFINITY) return () => undefined;
  let timer: ReturnType<typeof setTimeout>;
  const start = (left: number): void => {
    timer = left > MAX_TIMER_MS ? setTimeout(() => start(left - MAX_TIMER_MS), MAX_TIMER_MS) : setTimeout(task, left);
  };
  start(ms);
  return () => clearTimeout(timer);
}

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
        cancel();
        reject(signal?.reason);
      };
      const cancel = startTimer(() => {
        signal?.removeEventListener('abort', onAbort);
        resolve();
      }, ms);
      signal?.addEventListener('abort', onAbort, { once: true });
    }),
};
