/**
 * Decides which calls to one file are made synchronously, and which on the thread pool.
 *
 * In the page cache 128 KiB take 20 to 100 µs. Passing a call to the pool and back takes as long or longer (Node 20,
 * two virtual cores, 2026): a copy made of synchronous calls needs half the processor time. A call that waits for a
 * disk would block the event loop, so a slow call sends the next ones to the pool.
 */

/** Above this the cost of the pool no longer shows, and a core's cache is too small. */
const MAX_BYTES = 128 << 10;
/** A call that took longer has waited for a disk. */
const SLOW_MS = 1;
/** Calls that go to the pool after a slow one. Doubles with each further slow call, up to the maximum. */
const FIRST_PENALTY = 16;
const MAX_PENALTY = 4096;
/**
 * Time that calls may take before the event loop must turn: a reader waits as long behind a background copy. At 0.1 ms
 * a reader beside a copy waited a third as long as at 0.5 ms, and the copy took no longer.
 */
const TURN_MS = 0.1;

/** What this needs of the platform. */
export interface EventLoop {
  /** Monotonic time in ms. */
  now(): number;
  /** Resolves when the event loop has turned. */
  turn(): Promise<void>;
}

export class InlineCalls {
  readonly #loop: EventLoop;
  #penalty = FIRST_PENALTY;
  #toPool = 0;
  #spentMs = 0;

  constructor(loop: EventLoop) {
    this.#loop = loop;
  }

  /** Whether a call that moves `bytes` would be made synchronously. */
  allows(bytes: number): boolean {
    return bytes <= MAX_BYTES && this.#toPool === 0;
  }

  /** Whether a call that moves `bytes` is made synchronously. Ask once for each call. */
  allow(bytes: number): boolean {
    if (this.allows(bytes)) return true;
    if (bytes <= MAX_BYTES) this.#toPool--;
    return false;
  }

  /** Before a synchronous call; pass the result to {@link ended}. */
  start(): number {
    return this.#loop.now();
  }

  /** After a synchronous call. */
  ended(start: number): void {
    const took = this.#loop.now() - start;
    this.#spentMs += took;
    if (took > SLOW_MS) {
      this.#toPool = this.#penalty;
      this.#penalty = Math.min(2 * this.#penalty, MAX_PENALTY);
    } else if (this.#penalty > FIRST_PENALTY) {
      this.#penalty--;
    }
  }

  /** A promise that must be awaited if synchronous calls have kept the event loop for long enough. */
  pace(): Promise<void> | undefined {
    if (this.#spentMs < TURN_MS) return undefined;
    this.#spentMs = 0;
    return this.#loop.turn();
  }
}
