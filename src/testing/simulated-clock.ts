/**
 * A clock whose time passes only when it is told to, so that hours take no time and the order of things depends on no machine.
 *
 * Sleepers wake one at a time, the earliest first, and of two at one moment the one that slept first; between two of them
 * everything that can run without time passing has its turn.
 */

import { bitmapsReady } from '../core/block-map.ts';
import type { Clock } from '../platform/clock.ts';

/** How a {@link SimulatedClock} behaves. */
export interface SimulatedClockOptions {
  /**
   * Resolves when all that could run has run. By default that is taken to be so after a hundred rounds of the microtask queue, which does for code
   * that waits for this clock and promises only. Where anything waits for real I/O as well: `() => new Promise(setImmediate)`.
   */
  readonly settle?: () => Promise<void>;
}

interface Sleeper {
  readonly wakeAt: number;
  wake: () => void;
}

const MICROTASK_ROUNDS = 100;
/** So many times everything may settle before it counts as stuck. */
const STUCK_ROUNDS = 100;

/** See this file's header. Starts at 0 ms. */
export class SimulatedClock implements Clock {
  readonly #settle: () => Promise<void>;
  /** Sorted by the time of waking. */
  readonly #sleepers: Sleeper[] = [];
  #now = 0;
  #onSleep: (() => void) | undefined;

  constructor(options: SimulatedClockOptions = {}) {
    this.#settle = options.settle ?? settleMicrotasks;
  }

  now(): number {
    return this.#now;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const sleeper: Sleeper = { wakeAt: this.#now + Math.max(0, ms), wake: resolve };
      if (signal !== undefined) {
        const abort = (): void => {
          this.#sleepers.splice(this.#sleepers.indexOf(sleeper), 1);
          reject(signal.reason);
        };
        sleeper.wake = () => {
          signal.removeEventListener('abort', abort);
          resolve();
        };
        signal.addEventListener('abort', abort, { once: true });
      }
      const later = this.#sleepers.findIndex(({ wakeAt }) => wakeAt > sleeper.wakeAt);
      this.#sleepers.splice(later === -1 ? this.#sleepers.length : later, 0, sleeper);
      this.#onSleep?.();
    });
  }

  /** Lets `ms` milliseconds pass, and all happen that happens in that time. */
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
   * Lets time pass as fast as nothing happens, until `work` settles as the returned promise does.
   *
   * With `limitMs` it also rejects if `work` takes longer than that in simulated time, or if nothing is left that could happen: then all that `work` waits for must be
   * within reach of `settle`.
   */
  async run<T>(work: Promise<T>, { limitMs }: { limitMs?: number } = {}): Promise<T> {
    const end = this.#now + (limitMs ?? Number.POSITIVE_INFINITY);
    let running = true;
    const settled = work.then(
      () => (running = false),
      () => (running = false),
    );
    // The first device of a program waits for it in real time, and would seem stuck.
    await bitmapsReady();
    await this.#settle();
    while (running) {
      if (this.#sleepers.length > 0) {
        if (this.#sleepers[0]!.wakeAt > end)
          throw new Error(`it has not ended after ${limitMs} simulated milliseconds`);
        this.#wakeNext();
        await this.#settle();
      } else if (limitMs !== undefined) {
        for (let round = 0; round < STUCK_ROUNDS && running && this.#sleepers.length === 0; round++)
          await this.#settle();
        if (running && this.#sleepers.length === 0)
          throw new Error('it is stuck: it has not ended, and nothing is left that could happen');
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
