import type { Clock } from '../../src/platform/clock.ts';

export const STALL_MS = 15_000;

/** Delays between attempts pass at once and are noted; a stall passes when the test says so. */
export class TestClock implements Clock {
  /** Of the retries, ms. */
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

  /** Nothing has come for as long as a request may wait. */
  stall(): void {
    this.#now += STALL_MS;
    for (const stall of this.#stalls.splice(0)) stall.resolve();
  }
}
