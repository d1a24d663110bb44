/**
 * Decides when a request is late, and whether it may be sent a second time. Pure.
 *
 * Invariant: of n requests, at most `1 + 0.03 × n` are sent twice. A slow server gets no more load than that.
 */

const BUDGET = 0.03;
/** Bounds the requests that are sent twice after a long time without any. */
const MAX_SAVED = 3;
/** A request is late after this many times the usual latency. */
const LATE_FACTOR = 4;
/** Differences below this are noise. */
const MIN_LATE_MS = 100;
/** Answers until the usual latency counts as known. */
const MIN_ANSWERS = 8;

export class Hedging {
  #usualMs = 0;
  #answers = 0;
  #saved = 1;

  /** Counts a request. Returns the ms after which it is late, or Infinity while the usual latency is unknown. */
  begin(): number {
    this.#saved = Math.min(MAX_SAVED, this.#saved + BUDGET);
    return this.#answers < MIN_ANSWERS ? Number.POSITIVE_INFINITY : Math.max(MIN_LATE_MS, LATE_FACTOR * this.#usualMs);
  }

  /** Takes the latency of a request into account. */
  answered(ms: number): void {
    this.#answers++;
    // The mean of the first answers, then a moving average.
    this.#usualMs += (ms - this.#usualMs) / Math.min(this.#answers, MIN_ANSWERS);
  }

  /** Takes a second request from the budget. Returns false if there is none. */
  take(): boolean {
    if (this.#saved < 1) return false;
    this.#saved--;
    return true;
  }
}
