/**
 * Reads of the whole image.
 *
 * A cold read looks up which blocks are missing and fetches them without any lock. It then takes the lock and looks up
 * again where each byte is. It assembles the range from the target and the fetched bytes, which are stored after the
 * answer.
 */

import { after, type Done, ending, type MaybePromise, together } from '../async/done.ts';
import { withSignal } from '../async/with-signal.ts';
import type { CopyState } from '../core/copy-state.ts';
import type { BlockRange, Piece } from '../core/runs.ts';
import type { Fetch, Fetched, Fetcher } from './fetcher.ts';
import type { ReadThrough } from './read-through.ts';
import type { Target } from './target.ts';

/** Cold reads are answered in pieces of this size, so that memory stays bounded. */
const READ_PIECE_BYTES = 2 ** 22;

/** The background copy, as far as a reader can wait for it. */
export interface Reaching {
  /**
   * Returns a promise for when a stretch in flight has dealt with these blocks, if that comes sooner than a request.
   */
  reaching(blocks: BlockRange): Promise<void> | undefined;
  /** It soon comes by what follows each block that is read. */
  readonly isAtFullSpeed: boolean;
}

export class Reader {
  readonly #target: Target;
  readonly #fetcher: Fetcher;
  readonly #hydrator: Reaching;
  readonly #through: ReadThrough | undefined;

  /** @param through for sources that answer at once */
  constructor(target: Target, fetcher: Fetcher, hydrator: Reaching, through: ReadThrough | undefined) {
    this.#target = target;
    this.#fetcher = fetcher;
    this.#hydrator = hydrator;
    this.#through = through;
  }

  get #state(): CopyState {
    return this.#target.state;
  }

  /** Fills `into`, 1 byte or more, now or later. */
  read(into: Uint8Array, offset: number, signal: AbortSignal | undefined): Done {
    if (this.#state.isSynced(offset, into.length)) return this.#readSynced(into, offset);
    const done = this.#through?.read(into, offset, this.#target);
    if (done !== undefined) return done === true ? undefined : done;
    if (into.length <= READ_PIECE_BYTES) return this.#readCold(into, offset, signal);
    return this.#readPieces(into, offset, signal);
  }

  /** Fetches the missing blocks of a range. */
  async hydrate(offset: number, length: number, signal: AbortSignal | undefined): Promise<void> {
    const { blockSize } = this.#state.geometry;
    const blocks = this.#state.blocksOf(offset, length);
    const pieceBlocks = Math.max(1, READ_PIECE_BYTES / blockSize);
    for (let { start } = blocks; start < blocks.end; ) {
      start = this.#state.nextUnsynced(start, blocks.end);
      const end = this.#state.nextSynced(start, Math.min(blocks.end, start + pieceBlocks));
      if (start < end) (await this.#obtain([{ start, end }], signal)).release();
      start = end;
    }
  }

  #readSynced(into: Uint8Array, offset: number): Done {
    return after(this.#target.lock(offset, into.length, 'read'), (lock) =>
      ending(
        () => this.#target.read(into, offset),
        () => lock.release(),
      ),
    ) as Done;
  }

  async #readPieces(into: Uint8Array, offset: number, signal: AbortSignal | undefined): Promise<void> {
    for (let at = 0; at < into.length; at += READ_PIECE_BYTES) {
      const piece = into.subarray(at, Math.min(into.length, at + READ_PIECE_BYTES));
      await this.#readCold(piece, offset + at, signal);
    }
  }

  #readCold(into: Uint8Array, offset: number, signal: AbortSignal | undefined): Done {
    const missing = this.#state.missing(offset, into.length);
    const answered = after(this.#obtain(missing, signal), (fetched) =>
      ending(() => this.#answer(into, offset, fetched.fetches), fetched.release),
    );
    if (answered === true) return undefined;
    // Blocks that the background copy was about to reach did not arrive: ask again.
    const isDone = (done: boolean): Done => (done ? undefined : this.#readCold(into, offset, signal));
    return answered === false ? isDone(false) : answered.then(isDone);
  }

  /** Fetches blocks, or waits for the background copy if it reaches them sooner. */
  #obtain(missing: readonly BlockRange[], signal: AbortSignal | undefined): MaybePromise<Fetched> {
    const reached: Promise<void>[] = [];
    const runs: BlockRange[] = [];
    for (const blocks of missing) {
      const reaching = this.#hydrator.reaching(blocks);
      if (reaching === undefined) runs.push(blocks);
      else reached.push(reaching);
    }
    const fetched = this.#fetcher.fetch(runs, signal, !this.#hydrator.isAtFullSpeed);
    return reached.length === 0 ? fetched : this.#reached(Promise.all(reached), fetched, signal);
  }

  async #reached(
    reached: Promise<unknown>,
    fetching: MaybePromise<Fetched>,
    signal: AbortSignal | undefined,
  ): Promise<Fetched> {
    const fetched = await fetching;
    try {
      await withSignal(reached, signal);
      return fetched;
    } catch (error) {
      fetched.release();
      throw error;
    }
  }

  /** Assembles a range under the lock. Returns false if bytes are missing. */
  #answer(into: Uint8Array, offset: number, fetches: readonly Fetch[]): MaybePromise<boolean> {
    return after(this.#target.lock(offset, into.length, 'read'), (lock) =>
      ending(
        () => this.#assemble(into, offset, fetches),
        () => lock.release(),
      ),
    );
  }

  #assemble(into: Uint8Array, offset: number, fetches: readonly Fetch[]): MaybePromise<boolean> {
    const { blockSize } = this.#state.geometry;
    const reads: (() => Done)[] = [];
    for (const piece of this.#state.pieces(offset, into.length)) {
      const part = into.subarray(piece.start - offset, piece.end - offset);
      if (piece.from === 'target') reads.push(() => this.#target.read(part, piece.start));
      else if (!copyFetched(part, piece, fetches, blockSize)) return false;
    }
    return after(together(reads), () => true);
  }
}

/** Fills `into` with the bytes of a piece. Returns false if they were not fetched. */
function copyFetched(into: Uint8Array, piece: Piece, fetches: readonly Fetch[], blockSize: number): boolean {
  let copied = 0;
  for (const { start, bytes } of fetches) {
    const base = start * blockSize;
    const from = Math.max(piece.start, base);
    const to = Math.min(piece.end, base + bytes.length);
    if (from >= to) continue;
    into.set(bytes.subarray(from - base, to - base), from - piece.start);
    copied += to - from;
  }
  return copied === piece.end - piece.start;
}
