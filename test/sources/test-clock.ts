import type { Clock } from '../../src/platform/clock.ts';

export const STALL_MS = 15_000;

/** Delays between attempts pass immediately and are recorded. A stall passes when the test calls `stall`. */
export class TestClock implements Clock {
  /** The delays before retries in ms. */
  readonly delays: number[] = [];
  #now = 0;
  readonly #stalls: { at: number; resolve: () => void }[] = [];

  now(): number {
    return this.#now;
  }

  async sleep(ms: number, signal?: AbortSignal): Promise<void> {
    if (ms !== STALL_MS) {
      this.delays.push(ms);
      return;
    }
    await new Promise<void>((resolve, reject) => {
      this.#stalls.push({ at: this.#now + ms, resolve });
      signal?.addEventListener('abort', () => reject(signal.reason));
    });
  }

  /** Lets time pass. Wakes no sleeper. */
  pass(ms: number): void {
    this.#now += ms;
  }

  /** Lets the longest wait for a byte pass. */
  stall(): void {
    this.pass(STALL_MS);
    this.wake();
  }

  /** Ends all waits for a byte, as if their timers were due. */
  wake(): void {
    for (const stall of this.#stalls.splice(0)) stall.resolve();
  }
}

/** As {@link TestClock}, but delays between attempts also pass on the clock. */
export class PassingClock extends TestClock {
  override sleep(ms: number, signal?: AbortSignal): Promise<void> {
    if (ms !== STALL_MS) this.pass(ms);
    return super.sleep(ms, signal);
  }
}
