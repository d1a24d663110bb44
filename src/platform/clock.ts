/** Time, handed in: nothing but what implements this interface reads a clock or sets a timer. */

/** A monotonic clock that can also be waited on. */
export interface Clock {
  /** Milliseconds since some fixed moment; never goes back. */
  now(): number;
  /** Resolves after `ms` milliseconds, at once (but not synchronously) if that is 0. Rejects with the signal's reason if it is aborted first. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}
