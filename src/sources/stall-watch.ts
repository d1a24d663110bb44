/** Notices that nothing comes while something is waited for. One timer for a whole request, not one for each piece of it. */

import type { Clock } from '../core/clock.ts';

export class StallWatch {
  readonly #clock: Clock;
  readonly #limitMs: number;
  readonly #expire: () => void;
  readonly #stop = new AbortController();
  #waitingSince: number | undefined;

  /** Calls `expire` once, when a wait has lasted `limitMs`. */
  constructor(options: { clock: Clock; limitMs: number; expire: () => void }) {
    this.#clock = options.clock;
    this.#limitMs = options.limitMs;
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

  stop(): void {
    this.#stop.abort();
  }

  async #run(): Promise<void> {
    let sleepMs = this.#limitMs;
    for (;;) {
      await this.#clock.sleep(sleepMs, this.#stop.signal);
      if (this.#stop.signal.aborted) return;
      const waitedMs = this.#waitingSince === undefined ? 0 : this.#clock.now() - this.#waitingSince;
      if (waitedMs >= this.#limitMs) return this.#expire();
      sleepMs = this.#limitMs - waitedMs;
    }
  }
}
