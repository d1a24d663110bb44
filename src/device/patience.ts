/**
 * Repeats the fetches of readers that would rather wait than fail. Not part of a page's files: readers there get the
 * error at once.
 */

import type { MaybePromise } from '../async/done.ts';
import { withSignal } from '../async/with-signal.ts';
import type { Clock } from '../platform/clock.ts';
import type { Origin } from './origin.ts';
import { describe, type Told } from './retries.ts';

/** An absent source is asked again after this time, which grows by itself with each failure. */
const ATTEMPT_MS = 1000;
const MAX_ATTEMPT_MS = 5000;

/** What the repetitions of a device need. */
export interface PatienceParts {
  readonly clock: Clock;
  readonly origin: Origin;
  /** Aborted when the device is closed. */
  readonly closed: AbortSignal;
  /** Called for each failure that is repeated, before the delay. */
  readonly onRetry?: ((retry: Told) => void) | undefined;
}

/** A fetch that can be repeated. */
export interface Repeatable<T> {
  readonly signal: AbortSignal | undefined;
  attempt(): MaybePromise<T>;
  /** The result of a fetch that is no longer needed. Undefined: it is needed. */
  unneeded(): T | undefined;
}

/** How long readers wait. */
export interface Patience {
  /** A fetch that fails is repeated until this time in ms has passed since its beginning. */
  readonly ms: number;
  /** Undefined: fetches are not repeated. */
  begin(parts: PatienceParts): Repeats | undefined;
}

/** Returns the patience of readers that wait for `ms`, which may be 0. */
export function patienceOf(ms: number): Patience {
  return { ms, begin: (parts) => (ms > 0 ? new Repeats(parts, ms) : undefined) };
}

/** The repetitions of one device. */
export class Repeats {
  readonly #parts: PatienceParts;
  readonly #ms: number;
  /** Shared by all that wait for their next attempt. */
  #pause: Promise<void> | undefined;
  /** Pauses since the source has answered. */
  #failures = 0;

  constructor(parts: PatienceParts, ms: number) {
    this.#parts = parts;
    this.#ms = ms;
  }

  /** The source has answered. */
  answered(): void {
    this.#failures = 0;
  }

  /**
   * Attempts a fetch until it succeeds or is no longer needed. Synchronous if the first attempt is.
   * @throws the last error after the time; the signal's reason.
   */
  run<T>(fetch: Repeatable<T>): MaybePromise<T> {
    const untilMs = this.#parts.clock.now() + this.#ms;
    const failed = (error: unknown): Promise<T> => this.#repeat(fetch, error, untilMs);
    try {
      const fetched = fetch.attempt();
      return fetched instanceof Promise ? fetched.catch(failed) : fetched;
    } catch (error) {
      return failed(error);
    }
  }

  async #repeat<T>({ signal, attempt, unneeded }: Repeatable<T>, error: unknown, untilMs: number): Promise<T> {
    const { clock, origin, closed } = this.#parts;
    for (let last = error; ; ) {
      signal?.throwIfAborted();
      closed.throwIfAborted();
      if (!origin.mayCome || clock.now() >= untilMs) throw last;
      this.#pause ??= this.#begunPause(last);
      await withSignal(this.#pause, signal);
      const result = unneeded();
      if (result !== undefined) return result;
      try {
        await withSignal(origin.obtainSoon(closed, Math.max(0, untilMs - clock.now())), signal);
        return await attempt();
      } catch (again) {
        last = again;
      }
    }
  }

  /** Tells of a failure, and waits until the next attempt. */
  #begunPause(error: unknown): Promise<void> {
    const { clock, closed, onRetry } = this.#parts;
    const attempt = ++this.#failures;
    const delayMs = Math.min(MAX_ATTEMPT_MS, ATTEMPT_MS * attempt);
    onRetry?.({ ...describe(error), attempt, delayMs });
    return clock.sleep(delayMs, closed).finally(() => {
      this.#pause = undefined;
    });
  }
}
