/**
 * What the times of a source's answers to readers say: whether something slows readers down.
 *
 * Each answer is compared with the quickest ones.
 *
 * - While answers are slow, the background copy gives way to readers for longer and longer; while they are quick, for
 *   less and less.
 * - A request to a far source costs its latency, and a guest soon reads what follows. While answers are quick, more and
 *   more of it is fetched with a block; while they are slow, less and less.
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
/** As QEMU's HTTP driver reads ahead by default. */
const MAX_FETCH_BYTES = 2 ** 18;
const MIN_FETCH_BYTES = 2 ** 10;

export class AnswerTimes {
  #giveWayMs = MAX_GIVE_WAY_MS;
  #fetchBytes = MIN_FETCH_BYTES;
  #quickestMs: number | undefined;

  /** How long a piece of the copy gives way to readers that wait at this moment, at most. */
  get giveWayMs(): number {
    return this.#giveWayMs;
  }

  /** A request for a block should continue for so many bytes, if nothing of them is here. */
  get fetchBytes(): number {
    return (this.#quickestMs ?? 0) > NOISE_MS ? this.#fetchBytes : 0;
  }

  /**
   * Takes the time of an answer to a reader into account.
   * @param bytes how much was asked for
   * @param isLonger it was more than what is read
   */
  answeredAfter(ms: number, bytes: number, isLonger: boolean): void {
    const before = this.#quickestMs ?? ms;
    const quickestMs = Math.min(ms, isLonger ? before : before + (ms - before) * FORGET);
    this.#quickestMs = quickestMs;
    if (ms > Math.max(quickestMs * SLOW_FACTOR, quickestMs + NOISE_MS)) {
      this.#giveWayMs = Math.min(MAX_GIVE_WAY_MS, Math.max(1, this.#giveWayMs * 2));
      this.#fetchBytes = Math.max(MIN_FETCH_BYTES, this.#fetchBytes / 2);
    } else {
      this.#giveWayMs = this.#giveWayMs > MIN_GIVE_WAY_MS ? this.#giveWayMs * SHRINK : 0;
      if (bytes >= this.#fetchBytes) this.#fetchBytes = Math.min(MAX_FETCH_BYTES, this.#fetchBytes * 2);
    }
  }

  /** What is read may arrive where what follows does not: starts with single blocks again. */
  failed(): void {
    this.#fetchBytes = MIN_FETCH_BYTES;
  }
}
