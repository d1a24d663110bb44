/**
 * Users' changes of the target. Every write takes one path, whole blocks or sectors, with FUA or without:
 *
 *   lock → intend → write the target → let others in → record → release → flush if FUA → settled
 *
 * Each step completes now or later; if all complete now, so does the write.
 */

import { type Done, promised, type Settled } from '../async/done.ts';
import type { CopyState } from '../core/copy-state.ts';
import type { OpenTransaction } from '../log/transaction.ts';
import type { Fetcher } from './fetcher.ts';
import type { HeldLock } from './range-lock.ts';
import type { Target } from './target.ts';

/** Zeroing holds the lock for this many bytes at a time, if any of them may have to be read. */
const ZERO_PIECE_BYTES = 2 ** 22;
/** Zeroing of more bytes is recorded as a whole, without sums, and is flushed before it is acknowledged. */
const MAX_SUMMED_ZEROES = 2 ** 24;
const ZEROES = new Uint8Array(2 ** 16);

export class Writer {
  readonly #target: Target;
  readonly #fetcher: Fetcher;

  constructor(target: Target, fetcher: Fetcher) {
    this.#target = target;
    this.#fetcher = fetcher;
  }

  get #state(): CopyState {
    return this.#target.state;
  }

  /** Writes bytes, 1 or more; `settled` is called when they are recorded, and durable with `fua`. */
  write(from: Uint8Array, offset: number, fua: boolean, settled: Settled): void {
    const ended = fua ? this.#flushed(settled) : settled;
    const crowded = this.#state.crowded(offset, from.length);
    if (crowded.length === 0) this.#write(from, offset, ended);
    else this.#makeWhole(crowded).then(() => this.#write(from, offset, ended), settled);
  }

  /** Makes the whole blocks of a range read as zeros. */
  async discard(offset: number, length: number): Promise<void> {
    const { blockSize, size } = this.#state.geometry;
    const start = Math.ceil(offset / blockSize) * blockSize;
    const end = offset + length === size ? size : Math.floor((offset + length) / blockSize) * blockSize;
    if (start < end) await this.#zero(start, end - start);
  }

  /** Makes a range read as zeros. */
  async writeZeroes(offset: number, length: number): Promise<void> {
    await this.#makeWhole(this.#state.crowded(offset, length));
    await this.#zero(offset, length);
  }

  #write(from: Uint8Array, offset: number, settled: Settled): void {
    const locked = this.#target.lock(offset, from.length, 'write');
    if (locked instanceof Promise) locked.then((lock) => this.#writeLocked(from, offset, lock, settled), settled);
    else this.#writeLocked(from, offset, locked, settled);
  }

  #writeLocked(from: Uint8Array, offset: number, lock: HeldLock, settled: Settled): void {
    const ended: Settled = (error) => {
      this.#target.onChanged?.(offset, from.length);
      lock.release();
      settled(error);
    };
    const transaction = this.#target.log.begin();
    let written: Done;
    try {
      const ready = transaction.announce(offset, from);
      written =
        ready === undefined ? this.#target.write(from, offset) : ready.then(() => this.#target.write(from, offset));
    } catch (error) {
      ended(error);
      return;
    }
    if (written === undefined) this.#record(transaction, lock, ended);
    else written.then(() => this.#record(transaction, lock, ended), ended);
  }

  /** Writes of the same block in one turn share an append: the lock lets them in before the record. */
  #record(transaction: OpenTransaction, lock: HeldLock, ended: Settled): void {
    lock.recording();
    this.#target.record(transaction, ended);
  }

  #flushed(settled: Settled): Settled {
    return (error) => {
      if (error === undefined) this.#target.log.flush().then(() => settled(), settled);
      else settled(error);
    };
  }

  /** Fetches blocks that must not become dirty, so that the map of dirty parts stays bounded. */
  async #makeWhole(blocks: readonly number[]): Promise<void> {
    for (const start of blocks) await this.#fetcher.makeWhole({ start, end: start + 1 });
  }

  /** Pieces that were never written have any length: they are neither read nor written. */
  async #zero(offset: number, length: number): Promise<void> {
    const end = offset + length;
    for (let at = offset; at < end; ) {
      const wanted = this.#pieceEnd(at, end);
      const lock = await this.#target.lock(at, wanted - at, 'write');
      // Some of it may have been written before the lock was granted.
      const stop = this.#pieceEnd(at, wanted);
      try {
        await this.#zeroLocked(at, stop - at, length <= MAX_SUMMED_ZEROES);
      } finally {
        this.#target.onChanged?.(at, stop - at);
        lock.release();
      }
      at = stop;
      if (at < end) await this.#target.turn();
    }
    if (length > MAX_SUMMED_ZEROES) await this.#target.log.flush();
  }

  /** The end of a piece at `offset`: pieces end at multiples of their length, so that none cuts a block in two. */
  #pieceEnd(offset: number, end: number): number {
    const pieceBytes = Math.max(ZERO_PIECE_BYTES, this.#state.geometry.blockSize);
    const written = this.#target.nextWritten(offset, end);
    if (written === end) return end;
    return Math.min(end, Math.max(offset - (offset % pieceBytes) + pieceBytes, written - (written % pieceBytes)));
  }

  async #zeroLocked(offset: number, length: number, summed: boolean): Promise<void> {
    const transaction = this.#target.log.begin();
    for (let at = offset; summed && at < offset + length; ) {
      const bytes = Math.min(ZEROES.length - (at % ZEROES.length), offset + length - at);
      await transaction.announce(at, ZEROES.subarray(0, bytes));
      at += bytes;
    }
    if (!summed) {
      await this.#target.log.announceModified(offset, length);
      transaction.filled(offset, length);
    }
    await this.#target.zero(offset, length);
    await promised((settled) => this.#target.record(transaction, settled));
  }
}
