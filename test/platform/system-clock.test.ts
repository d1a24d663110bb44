/** Delays that a timer does not take: fake timers fire at once for more than 2^31 - 1 ms, as real ones do. */

import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { RateLimiter } from '../../src/device/rate-limiter.ts';
import { Timer } from '../../src/log/timer.ts';
import { systemClock } from '../../src/platform/system-clock.ts';
import { StallWatch } from '../../src/sources/stall-watch.ts';

const DAY_MS = 86_400_000;

let startMs: number;
beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
  startMs = performance.now();
});
afterEach(() => {
  expect(vi.getTimerCount()).toBe(0);
  vi.useRealTimers();
});

/** When `promise` settles, in ms from the beginning of the test. */
function settledAt(promise: Promise<unknown>): () => number | undefined {
  let at: number | undefined;
  const settle = (): void => {
    at = performance.now() - startMs;
  };
  promise.then(settle, settle);
  return () => at;
}

async function passUntil(ms: number): Promise<void> {
  await vi.advanceTimersByTimeAsync(startMs + ms - performance.now());
}

describe('a sleep', () => {
  it.each([0, 1, 2 ** 31 - 1, 2 ** 31, 2 ** 32 + 5, 1000 * DAY_MS])('of %i ms takes as long', async (ms) => {
    const settled = settledAt(systemClock.sleep(ms));
    if (ms > 1) {
      await passUntil(ms - 1);
      expect(settled()).toBeUndefined();
    }
    await passUntil(ms);
    expect(settled()).toBe(ms);
  });

  it.each([2 ** 32, Number.POSITIVE_INFINITY])('of %d ms ends when its signal is aborted', async (ms) => {
    const stop = new AbortController();
    const sleeping = systemClock.sleep(ms, stop.signal);
    const settled = settledAt(sleeping);
    await passUntil(30 * DAY_MS);
    expect(settled()).toBeUndefined();
    stop.abort(new Error('stopped'));
    await expect(sleeping).rejects.toThrow('stopped');
  });

  it('without end keeps no timer', async () => {
    void systemClock.sleep(Number.POSITIVE_INFINITY);
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe('what waits on the clock', () => {
  it('is the interval of checkpoints, whatever its length', async () => {
    let runs = 0;
    const timer = new Timer(systemClock, 50 * DAY_MS, () => runs++);
    timer.start();
    await passUntil(50 * DAY_MS - 1);
    expect(runs).toBe(0);
    await passUntil(50 * DAY_MS);
    expect(runs).toBe(1);
    const never = new Timer(systemClock, Number.POSITIVE_INFINITY, () => runs++);
    never.start();
    await passUntil(100 * DAY_MS);
    expect(runs).toBe(1);
    never.stop();
  });

  it('is a limiter of 1 byte per second', async () => {
    const limiter = new RateLimiter(systemClock, 1);
    limiter.spend(2 ** 22);
    const settled = settledAt(limiter.wait(new AbortController().signal));
    await passUntil(2 ** 22 * 1000);
    // All but the burst.
    expect(settled()).toBe(2 ** 22 * 1000 - 100);
  });

  it('is the patience with a server that sends nothing', async () => {
    const stop = new AbortController();
    let expired = 0;
    for (const stallTimeoutMs of [40 * DAY_MS, Number.POSITIVE_INFINITY]) {
      const limits = { stallTimeoutMs, minBytesPerSecond: 1024 };
      new StallWatch({ clock: systemClock, limits, signal: stop.signal, expire: () => expired++ }).begin();
    }
    await passUntil(40 * DAY_MS - 1);
    expect(expired).toBe(0);
    await passUntil(80 * DAY_MS);
    expect(expired).toBe(1);
    stop.abort();
    await passUntil(81 * DAY_MS);
  });
});
