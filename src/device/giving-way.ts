/**
 * How long the background copy gives way to readers that wait for the source: long at first, and then as long as the
 * copy makes the readers slower.
 *
 * It compares each answer to a reader with the quickest ones. While answers are slow the time doubles, up to the
 * maximum; while they are quick it shrinks, down to nothing.
 */

/** Bounds the delay of each piece of the copy, so that constant reading does not stop the copy. */
const MAX_GIVE_WAY_MS = 20;
/** Below this, giving way would only cost timers. */
const MIN_GIVE_WAY_MS = 0.5;
/** An answer is slow if it takes this many times as long as the quickest ones, and longer by at least `NOISE_MS`. */
const SLOW_FACTOR = 1.2;
const NOISE_MS = 2;
/** The time shrinks to this part of itself with each quick answer. */
const SHRINK = 0.8;
/** The quickest answers are forgotten by this part of the difference with each answer: the line may have changed. */
const FORGET = 1 / 256;

export class GivingWay {
  #ms = MAX_GIVE_WAY_MS;
  #quickestMs: number | undefined;

  /** How long a piece of the copy gives way to readers that wait at this moment, at most. */
  get ms(): number {
    return this.#ms;
  }

  /** Takes the time of an answer to a reader into account. */
  answeredAfter(ms: number): void {
    const before = this.#quickestMs ?? ms;
    const quickestMs = Math.min(ms, before + (ms - before) * FORGET);
    this.#quickestMs = quickestMs;
    const isSlow = ms > Math.max(quickestMs * SLOW_FACTOR, quickestMs + NOISE_MS);
    if (isSlow) this.#ms = Math.min(MAX_GIVE_WAY_MS, Math.max(1, this.#ms * 2));
    else this.#ms = this.#ms > MIN_GIVE_WAY_MS ? this.#ms * SHRINK : 0;
  }
}
