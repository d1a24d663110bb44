/**
 * Reading ahead of a client that reads cold blocks one after the other: each answer would cost it the latency of the source, were not the next ones on their way.
 *
 * Only reads that had to wait are looked at. A read that goes on where an earlier one ended makes a run; a run has a window, which doubles as the run goes on, in front of
 * it fetched in pieces side by side.
 */

const FIRST_WINDOW_BYTES = 2 ** 18;
/** At 20 ms of latency, 200 MB a second. */
const LAST_WINDOW_BYTES = 2 ** 22;
/** Requests to the source: the first bytes are not to wait for the last ones. */
const PIECE_BYTES = 2 ** 18;
/** Runs at a time; nbdcopy has four of them, one for each connection. */
const MAX_RUNS = 8;

interface Run {
  /** Where the next read begins. */
  next: number;
  /** Up to where has been asked for. */
  ahead: number;
  window: number;
}

export class ReadAhead {
  readonly #size: number;
  readonly #fetch: (offset: number, length: number) => void;
  /** The one that went on last is the last. */
  #runs: Run[] = [];

  /** `fetch` begins to fetch a range, and keeps its errors to itself. */
  constructor(size: number, fetch: (offset: number, length: number) => void) {
    this.#size = size;
    this.#fetch = fetch;
  }

  /** Tells of a read that has to wait. */
  note(offset: number, length: number): void {
    const end = offset + length;
    // What was fetched ahead in time is not told, so that a run may go on further behind.
    const at = this.#runs.findIndex((run) => offset >= run.next && offset <= Math.max(run.next, run.ahead));
    if (at < 0) {
      if (this.#runs.length >= MAX_RUNS) this.#runs.shift();
      this.#runs.push({ next: end, ahead: end, window: 0 });
      return;
    }
    const [run] = this.#runs.splice(at, 1) as [Run];
    this.#runs.push(run);
    run.next = end;
    run.ahead = Math.max(run.ahead, end);
    if (run.ahead - end > run.window / 2) return;
    run.window = Math.min(LAST_WINDOW_BYTES, Math.max(FIRST_WINDOW_BYTES, 2 * run.window));
    const limit = Math.min(this.#size, end + run.window);
    while (run.ahead < limit) {
      const piece = Math.min(PIECE_BYTES, limit - run.ahead);
      this.#fetch(run.ahead, piece);
      run.ahead += piece;
    }
  }
}
