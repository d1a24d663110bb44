/** Notices that nothing comes while something is waited for. One timer for a whole request, not one for each piece of it. */

import type { Clock } from '../platform/clock.ts';

export class StallWatch {
  readonly #clock: Clock;
  readonly #limitMs: number;
  readonly #expire: () => void;
  readonly #signal: AbortSignal;
  #waitingSince: number | undefined;

  /** Calls `expire` once, when a wait has lasted `limitMs`; stops when the signal is aborted. */
  constructor(options: { clock: Clock; limitMs: number; signal: AbortSignal; expire: () => void }) {
    this.#clock = options.clock;
    this.#limitMs = options.limitMs;
    this.#signal = options.signal;
    this.#expire = options.expire;
    this.#run().catch(() => {});
  }

  /** Waits for `awaited`, on the clock. Outside of this the consumer takes its time, which is no stall. */
  async during<T>(awaited: Promise<T>): Promise<T> {
    this.#waitingSince = this.#clock.now();
    try {
      return await awaited;
    } finally {
      this.#waitingSince = undefined;
    }
  }

  async #run(): Promise<void> {
    let sleepMs = this.#limitMs;
    for (;;) {
      await this.#clock.sleep(sleepMs, this.#signal);
      if (this.#signal.aborted) return;
      const waitedMs = this.#waitingSince === undefined ? 0 : this.#clock.now() - this.#waitingSince;
      if (waitedMs >= this.#limitMs) return this.#expire();
      sleepMs = this.#limitMs - waitedMs;
    }
  }
}
