/**
 * Detects that nothing comes while something is due, or next to nothing. One timer serves a whole request or
 * connection, not each piece of it.
 */

import type { Clock } from '../platform/clock.ts';
import { PassingError, type StallLimits } from './retry.ts';

/** The least rate is measured over this many times the longest silence. */
const WINDOW_FACTOR = 2;

export class StallWatch {
  readonly #clock: Clock;
  readonly #limits: Required<StallLimits>;
  readonly #expire: (why: PassingError) => void;
  readonly #signal: AbortSignal;
  /** Since when a byte is due. Undefined if none is. */
  #dueSince: number | undefined;
  /** What came in the present window, and for how long bytes were due. */
  #window = { bytes: 0, dueMs: 0 };

  /** Calls `expire` once, when a limit is exceeded. Stops when the signal is aborted. */
  constructor(options: {
    clock: Clock;
    limits: Required<StallLimits>;
    signal: AbortSignal;
    expire: (why: PassingError) => void;
  }) {
    this.#clock = options.clock;
    this.#limits = options.limits;
    this.#signal = options.signal;
    this.#expire = options.expire;
    this.#run().catch(() => {});
  }

  /** Notes that bytes are due from now on. */
  begin(): void {
    this.#dueSince ??= this.#clock.now();
  }

  /** Notes that bytes have come. Whether more are due does not change. */
  received(bytes: number): void {
    this.#window.bytes += bytes;
    if (this.#dueSince === undefined) return;
    this.end();
    this.begin();
  }

  /** Notes that no byte is due any more. */
  end(): void {
    if (this.#dueSince === undefined) return;
    this.#window.dueMs += this.#clock.now() - this.#dueSince;
    this.#dueSince = undefined;
  }

  /** Starts the window of the least rate again. */
  restart(): void {
    this.#window = { bytes: 0, dueMs: 0 };
  }

  async #run(): Promise<void> {
    const { stallTimeoutMs, minBytesPerSecond } = this.#limits;
    let sleepMs = stallTimeoutMs;
    for (;;) {
      await this.#clock.sleep(sleepMs, this.#signal);
      if (this.#signal.aborted) return;
      const silentMs = this.#dueSince === undefined ? 0 : this.#clock.now() - this.#dueSince;
      if (silentMs >= stallTimeoutMs)
        return this.#expire(new PassingError(`the server sent nothing for ${stallTimeoutMs} ms`));
      // The present silence belongs to the byte that ends it.
      const { bytes, dueMs } = this.#window;
      if (dueMs >= WINDOW_FACTOR * stallTimeoutMs) {
        if (bytes * 1000 < minBytesPerSecond * dueMs) {
          const why = `the server sent only ${bytes} bytes in ${Math.round(dueMs)} ms`;
          return this.#expire(new PassingError(why, { isSlow: true }));
        }
        this.restart();
      }
      sleepMs = stallTimeoutMs - silentMs;
    }
  }
}
