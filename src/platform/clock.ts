/**
 * Time and randomness. Both are passed in: core, log and device read no clock, set no timer and draw no random number
 * themselves.
 */

/** A monotonic clock with timers. */
export interface Clock {
  /** Milliseconds since a fixed moment; never decreases. */
  now(): number;
  /** Resolves after `ms` milliseconds, never synchronously. Rejects with the signal's reason if it is aborted first. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
  /** Resolves when the event loop has turned, so that what is ready now goes first. Default: the next microtask. */
  turn?(): Promise<void>;
}

/** What a device or a log takes from its surroundings; pass a simulated one for deterministic tests. */
export interface Environment {
  readonly clock: Clock;
  /** Fills `into` with random bytes. Used once, to name a copy. */
  readonly randomBytes: (into: Uint8Array) => void;
}
