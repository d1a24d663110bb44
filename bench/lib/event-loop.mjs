/** How long a task takes, and for how long it holds the event loop. */

import { readFileSync } from 'node:fs';

/** Processor time of this thread in ms, so that other programs on the machine do not count. Linux only. */
function cpuTime() {
  try {
    return Number(readFileSync('/proc/thread-self/schedstat', 'latin1').split(' ')[0]) / 1e6;
  } catch {
    return performance.now();
  }
}

/** Runs `task`. Returns its time, and the most processor time for which the event loop did not turn, in ms. */
export async function measured(task) {
  let isRunning = true;
  let held = 0;
  const watch = (async () => {
    for (let last = cpuTime(); isRunning; ) {
      await new Promise(setImmediate);
      const now = cpuTime();
      held = Math.max(held, now - last);
      last = now;
    }
  })();
  await new Promise((resolve) => setTimeout(resolve, 20));
  held = 0;
  const begun = performance.now();
  await task();
  const ms = performance.now() - begun;
  isRunning = false;
  await watch;
  return { ms, held };
}
