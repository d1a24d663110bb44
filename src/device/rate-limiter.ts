/** A token bucket: bytes per second on average, with a burst of a tenth of a second. */

import { sharedAbort } from '../async/shared-abort.ts';
import type { Clock } from '../platform/clock.ts';

const BURST_SECONDS = 0.1;

export class RateLimiter {
  readonly #clock: Clock;
  #rate: number | undefined;
  /** When the bucket is full again if nothing more is taken. */
  #fullAt = 0;
  #changed: AbortController = sharedAbort();

  constructor(clock: Clock, bytesPerSecond: number | undefined) {
    this.#clock = clock;
    this.#rate = bytesPerSecond;
  }

  get rate(): number | undefined {
    return this.#rate;
  }

  /** Sets the rate, also for callers that wait now. Undefined: no limit. */
  set(bytesPerSecond: number | undefined): void {
    this.#rate = bytesPerSecond;
    this.#fullAt = 0;
    this.#changed.abort();
    this.#changed = sharedAbort();
  }

  /** Takes bytes without waiting. The next {@link wait} takes longer for it. */
  spend(bytes: number): void {
    if (this.#rate === undefined) return;
    this.#fullAt = Math.max(this.#fullAt, this.#clock.now()) + (bytes / this.#rate) * 1000;
  }

  /** Time that a {@link wait} would take now. */
  get delayMs(): number {
    return this.#rate === undefined ? 0 : Math.max(0, this.#fullAt - this.#clock.now() - BURST_SECONDS * 1000);
  }

  /**
   * Resolves when all bytes taken so far are within the rate.
   * @throws the signal's reason if it is aborted.
   */
  async wait(signal: AbortSignal): Promise<void> {
    while (this.#rate !== undefined) {
      const excess = this.delayMs;
      if (excess === 0) return;
      const either = new AbortController();
      const stop = () => either.abort();
      const changed = this.#changed.signal;
      signal.addEventListener('abort', stop, { once: true });
      changed.addEventListener('abort', stop, { once: true });
      try {
        if (signal.aborted) either.abort();
        await this.#clock.sleep(excess, either.signal).catch(() => undefined);
      } finally {
        signal.removeEventListener('abort', stop);
        changed.removeEventListener('abort', stop);
      }
      signal.throwIfAborted();
    }
  }
}
