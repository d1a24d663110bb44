/**
 * A clock whose time passes only on request. Hours take no real time, and the order of events does not depend on the
 * machine.
 *
 * Sleepers wake one at a time: the earliest first, and at the same time in the order of their calls. Between two of
 * them everything runs that can run without time passing.
 */

import { bitmapsReady } from '../core/bitmap-heap.ts';
import type { Clock } from '../platform/clock.ts';

/** Options of a {@link SimulatedClock}. */
export interface SimulatedClockOptions {
  /**
   * Resolves when all code that could run has run. Default: after a hundred rounds of the microtask queue, enough for
   * code that waits only for this clock and promises. For code that also waits for real I/O:
   * `() => new Promise(setImmediate)`.
   */
  readonly settle?: () => Promise<void>;
}

interface Sleeper {
  readonly wakeAt: number;
  wake: () => void;
}

const MICROTASK_ROUNDS = 100;
/** After this many calls of `settle` without a sleeper the work counts as stuck. */
const STUCK_ROUNDS = 100;

/**
 * A clock whose time passes only on request. Starts at 0 ms.
 *
 * @example
 * ```ts
 * import { SimulatedClock } from 'copyondemand/testing';
 *
 * const clock = new SimulatedClock();
 * await clock.run(clock.sleep(3_600_000)); // takes no real time
 * console.log(clock.now()); // 3600000
 * ```
 */
export class SimulatedClock implements Clock {
  readonly #settle: () => Promise<void>;
  /** Sorted by wake time. */
  readonly #sleepers: Sleeper[] = [];
  #now = 0;
  #onSleep: (() => void) | undefined;

  /** Makes a clock at 0 ms. */
  constructor(options: SimulatedClockOptions = {}) {
    this.#settle = options.settle ?? settleMicrotasks;
  }

  /** Returns the simulated time in milliseconds. */
  now(): number {
    return this.#now;
  }

  /**
   * Resolves when `ms` milliseconds have passed, in {@link advance} or {@link run}. Never resolves if `ms` is Infinity.
   *
   * @throws the signal's reason when the signal is aborted first.
   */
  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const sleeper: Sleeper = { wakeAt: this.#now + Math.max(0, ms), wake: resolve };
      if (signal !== undefined) {
        const abort = (): void => {
          const at = this.#sleepers.indexOf(sleeper);
          if (at >= 0) this.#sleepers.splice(at, 1);
          reject(signal.reason);
        };
        sleeper.wake = () => {
          signal.removeEventListener('abort', abort);
          resolve();
        };
        signal.addEventListener('abort', abort, { once: true });
      }
      if (ms === Number.POSITIVE_INFINITY) return;
      const later = this.#sleepers.findIndex(({ wakeAt }) => wakeAt > sleeper.wakeAt);
      this.#sleepers.splice(later === -1 ? this.#sleepers.length : later, 0, sleeper);
      this.#onSleep?.();
    });
  }

  /** Advances the time by `ms` milliseconds, and runs all sleepers that are due within that time. */
  async advance(ms: number): Promise<void> {
    const end = this.#now + ms;
    await this.#settle();
    while (this.#sleepers[0] !== undefined && this.#sleepers[0].wakeAt <= end) {
      this.#wakeNext();
      await this.#settle();
    }
    this.#now = end;
  }

  /**
   * Advances the time from sleeper to sleeper until `work` settles, and settles as `work` does.
   *
   * @param options.limitMs the longest simulated time. With it, the call also rejects when nothing is left that could
   *   run: all that `work` waits for must be within reach of `settle`. Default: no limit.
   * @throws an error when `work` takes longer than `limitMs`, or is stuck.
   */
  async run<T>(work: Promise<T>, options: { limitMs?: number } = {}): Promise<T> {
    const { limitMs } = options;
    const end = this.#now + (limitMs ?? Number.POSITIVE_INFINITY);
    let running = true;
    const settled = work.then(
      () => (running = false),
      () => (running = false),
    );
    // The first device of a program waits for the bitmaps in real time, and would seem stuck.
    await bitmapsReady();
    await this.#settle();
    while (running) {
      if (this.#sleepers.length > 0) {
        if (this.#sleepers[0]!.wakeAt > end)
          throw new Error(`the work has not ended after ${limitMs} simulated milliseconds`);
        this.#wakeNext();
        await this.#settle();
      } else if (limitMs !== undefined) {
        for (let round = 0; round < STUCK_ROUNDS && running && this.#sleepers.length === 0; round++)
          await this.#settle();
        if (running && this.#sleepers.length === 0)
          throw new Error('deadlock: the work has not ended, and no timer is pending');
      } else await Promise.race([settled, new Promise<void>((resolve) => (this.#onSleep = resolve))]);
    }
    return work;
  }

  #wakeNext(): void {
    const sleeper = this.#sleepers.shift()!;
    this.#now = Math.max(this.#now, sleeper.wakeAt);
    sleeper.wake();
  }
}

async function settleMicrotasks(): Promise<void> {
  for (let round = 0; round < MICROTASK_ROUNDS; round++) await undefined;
}
