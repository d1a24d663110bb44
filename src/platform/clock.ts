/** Time and randomness, which are passed in: nothing else reads a clock, sets a timer or rolls dice. */

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
  /** Fills the bytes at random; used once, to name a copy. */
  readonly randomBytes: (into: Uint8Array) => void;
}
