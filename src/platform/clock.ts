/**
 * Time and randomness. Both are passed in: core, log and device read no clock, set no timer and draw no random number
 * themselves.
 */

/** A monotonic clock with timers. */
export interface Clock {
  /** Returns the milliseconds since a fixed moment. Never decreases. */
  now(): number;
  /**
   * Resolves after `ms` milliseconds, never synchronously. Never resolves if `ms` is Infinity.
   *
   * @throws the signal's reason when the signal is aborted first.
   */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
  /**
   * Resolves when the event loop has turned, so that work that is ready now runs first. Default: the next microtask.
   */
  turn?(): Promise<void>;
}

/** What a device or a log takes from its surroundings. Pass a simulated one for deterministic tests. */
export interface Environment {
  /** Measures time and waits. `SimulatedClock` of `copyondemand/testing` is one. */
  readonly clock: Clock;
  /** Fills `into` with random bytes. Called once for each new copy, for its 16-byte name. */
  readonly randomBytes: (into: Uint8Array) => void;
}
