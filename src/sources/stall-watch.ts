/** Detects that nothing comes while a request waits. One timer serves a whole request, not each piece of it. */

import type { Clock } from '../platform/clock.ts';

export class StallWatch {
  readonly #clock: Clock;
  readonly #limitMs: number;
  readonly #expire: () => void;
  readonly #signal: AbortSignal;
  #waitingSince: number | undefined;

  /** Calls `expire` once, when a wait has lasted `limitMs`. Stops when the signal is aborted. */
  constructor(options: { clock: Clock; limitMs: number; signal: AbortSignal; expire: () => void }) {
    this.#clock = options.clock;
    this.#limitMs = options.limitMs;
    this.#signal = options.signal;
    this.#expire = options.expire;
    this.#run().catch(() => {});
  }

  /** Waits for `awaited`, and counts the time. Time between these calls is the consumer's, and no stall. */
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
