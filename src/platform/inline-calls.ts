/**
 * Decides which calls of one file are made inside the caller's turn of the event loop, and which on the thread pool.
 *
 * In the page cache 128 KiB take 20 to 100 µs, and handing a call to the pool and back takes as long or longer (Node 20, two virtual cores, 2026): a copy made of such calls needs
 * half the processor time. A call that waits for a disk would hold up everything, so a slow one sends those that follow to the pool for a while,
 * and a run of quick ones lets the loop turn now and then.
 */

/** Beyond this the pool's price no longer shows, and a core's cache is left behind. */
const MAX_BYTES = 128 << 10;
/** What took longer than this has waited for something. */
const SLOW_MS = 1;
/** How many calls go to the pool after a slow one; after another one, twice as many, up to the maximum. */
const FIRST_PENALTY = 16;
const MAX_PENALTY = 4096;
/**
 * Calls inside one turn of the loop take up to so long: that is what a reader waits for behind a background copy. A reader beside a copy from a file waited for a third of
 * what it did with half a millisecond, and the copy took no longer.
 */
const TURN_MS = 0.1;

/** What it needs of the platform. */
export interface EventLoop {
  /** In ms, monotonic. */
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

  /** Whether a call that moves `bytes` is to be made at once. Asked once for each call. */
  allow(bytes: number): boolean {
    if (bytes > MAX_BYTES) return false;
    if (this.#toPool === 0) return true;
    this.#toPool--;
    return false;
  }

  /** As {@link allow}, for who makes no call if not: it does not count as one. */
  allows(bytes: number): boolean {
    return bytes <= MAX_BYTES && this.#toPool === 0;
  }

  /** Before a call that is made at once; hand the result to {@link done} or {@link ended}. */
  start(): number {
    return this.#loop.now();
  }

  /** After it. A promise is to be waited for: others want their turn. */
  done(start: number): Promise<void> | undefined {
    this.#spentMs += this.ended(start);
    if (this.#spentMs < TURN_MS) return undefined;
    this.#spentMs = 0;
    return this.#loop.turn();
  }

  /** After it, for who minds the loop's turns by himself. Returns how long it took. */
  ended(start: number): number {
    const took = this.#loop.now() - start;
    if (took > SLOW_MS) {
      this.#toPool = this.#penalty;
      this.#penalty = Math.min(2 * this.#penalty, MAX_PENALTY);
    } else if (this.#penalty > FIRST_PENALTY) {
      this.#penalty--;
    }
    return took;
  }
}
