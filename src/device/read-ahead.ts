/**
 * Reads ahead of a client that reads unsynced blocks in sequence. Without it, each of these reads waits for the latency
 * of the source.
 *
 * - The NBD server notes only reads that had to wait. A disk of v86 notes all reads.
 * - A read that continues where an earlier one ended makes a run. Whole blocks are fetched, so a client that reads
 *   sectors waits at the beginning of each block only. Its run continues at the end of the earlier read's block.
 * - The window in front of a run is fetched in concurrent pieces. It doubles while the run continues.
 */

const FIRST_WINDOW_BYTES = 2 ** 18;
/** At a latency of 20 ms: 200 MB/s. */
const LAST_WINDOW_BYTES = 2 ** 22;
/** Length of one request to the source. In longer ones the first bytes wait for the last. */
const PIECE_BYTES = 2 ** 18;
/** Runs at a time. nbdcopy has 4, one for each connection. */
const MAX_RUNS = 8;

interface Run {
  /** Offset at which the next read begins. */
  next: number;
  /** Offset up to which bytes were requested. */
  ahead: number;
  window: number;
}

export class ReadAhead {
  readonly #device: { readonly size: number; readonly blockSize: number };
  readonly #fetch: (offset: number, length: number) => Promise<void>;
  readonly #lastWindowBytes: number;
  /** The run that continued last is at the end. */
  #runs: Run[] = [];

  /**
   * @param fetch fetches a range. A failure is ignored: a later read fetches the range again, and reports it.
   * @param lastWindowBytes where the window stops growing
   */
  constructor(
    device: { readonly size: number; readonly blockSize: number },
    fetch: (offset: number, length: number) => Promise<void>,
    lastWindowBytes: number = LAST_WINDOW_BYTES,
  ) {
    this.#device = device;
    this.#fetch = fetch;
    this.#lastWindowBytes = lastWindowBytes;
  }

  /** Notes a read. Fetches ahead if the read continues a run. */
  note(offset: number, length: number): void {
    const { size, blockSize } = this.#device;
    const next = offset + length;
    const end = Math.min(size, Math.ceil(next / blockSize) * blockSize);
    // Reads of blocks that were fetched ahead in time may not be noted: a run may continue anywhere up to `ahead`.
    const at = this.#runs.findIndex((run) => offset >= run.next && offset <= Math.max(run.next, run.ahead));
    if (at < 0) {
      if (this.#runs.length >= MAX_RUNS) this.#runs.shift();
      this.#runs.push({ next, ahead: end, window: 0 });
      return;
    }
    const [run] = this.#runs.splice(at, 1) as [Run];
    this.#runs.push(run);
    run.next = next;
    run.ahead = Math.max(run.ahead, end);
    if (run.ahead - end > run.window / 2) return;
    run.window = Math.min(this.#lastWindowBytes, Math.max(FIRST_WINDOW_BYTES, 2 * run.window));
    const limit = Math.min(size, end + run.window);
    while (run.ahead < limit) {
      const piece = Math.min(PIECE_BYTES, limit - run.ahead);
      this.#fetch(run.ahead, piece).catch(() => undefined);
      run.ahead += piece;
    }
  }
}
