/** Calls of users: their ranges are checked, and they are counted, timed, and waited for at the end. */

import { CodError, isCodError } from '../errors.ts';
import type { OpenLog } from '../log/intent-log.ts';
import type { Clock } from '../platform/clock.ts';
import { Counters } from './counters.ts';
import type { Target } from './target.ts';

export class Operations {
  readonly counters: Counters = new Counters();
  readonly #log: OpenLog;
  readonly #target: Target;
  readonly #clock: Clock;
  #inFlight = 0;
  #onDrained: (() => void) | undefined;
  #isClosed = false;

  constructor(log: OpenLog, target: Target, clock: Clock) {
    this.#log = log;
    this.#target = target;
    this.#clock = clock;
  }

  /** Begins an operation; {@link drained} waits until it has ended. */
  begin(offset: number, length: number): void {
    if (this.#isClosed) throw new CodError('COD_CLOSED', 'the device is closed');
    const { size } = this.#log;
    const isInside =
      Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && offset + length <= size;
    if (!isInside || length < 0)
      throw new RangeError(`${length} bytes at ${offset} are not within the device (${size} bytes)`);
    this.#inFlight++;
  }

  /** Begins an operation that changes the target. */
  beginChange(offset: number, length: number): void {
    this.begin(offset, length);
    try {
      this.#target.assertWritable();
      this.checkNotPoisoned();
    } catch (error) {
      this.end();
      throw error;
    }
  }

  end(): void {
    if (--this.#inFlight === 0) this.#onDrained?.();
  }

  async run<T>(offset: number, length: number, task: () => Promise<T>): Promise<T> {
    this.begin(offset, length);
    try {
      const result = await task();
      await this.#log.fenceIfOld();
      return result;
    } catch (error) {
      throw this.failed(error);
    } finally {
      this.end();
    }
  }

  async change(offset: number, length: number, task: () => Promise<void>): Promise<void> {
    this.beginChange(offset, length);
    try {
      if (length > 0) await task();
    } catch (error) {
      throw this.failed(error);
    } finally {
      this.end();
    }
  }

  checkNotPoisoned(): void {
    if (this.#log.poisoning !== undefined) throw this.#log.poisoning;
  }

  /** Returns a function that adds the time until its call. */
  timed(calls: { totalMs: number }): () => void {
    const startMs = this.#clock.now();
    return () => {
      calls.totalMs += this.#clock.now() - startMs;
    };
  }

  /** Counts and returns an error that a caller gets. */
  failed(error: unknown): unknown {
    if (isCodError(error)) this.counters.failed(error.code);
    return error;
  }

  /** From now on no operation begins. */
  close(): void {
    this.#isClosed = true;
  }

  /** Resolves when no operation is in flight. */
  async drained(): Promise<void> {
    if (this.#inFlight > 0) await new Promise<void>((resolve) => (this.#onDrained = resolve));
  }
}
