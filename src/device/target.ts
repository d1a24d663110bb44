/**
 * The target: its bytes, the locks on its blocks, and the records of what it holds. Every change of it goes through
 * here.
 *
 * Invariants (docs/DESIGN.md, "Ordering"):
 * - A write is recorded after it has returned. Its lock is held from before the write until the state holds the record.
 * - As long as the target is blank, every byte that was never recorded is zero.
 */

import type { Done, MaybePromise, Settled } from '../async/done.ts';
import type { BlockRange, CopyState } from '../core/copy-state.ts';
import type { File } from '../fs/file-system.ts';
import { type InlineFile, readFile, writeFile } from '../fs/inline-file.ts';
import type { OpenLog, OpenTransaction } from '../log/intent-log.ts';
import { type HeldLock, type LockMode, RangeLock } from './range-lock.ts';
import { isZero } from './zeros.ts';

/** Zeroing reads and writes this many bytes at a time. */
const CHUNK_BYTES = 2 ** 20;

const ZEROS = new Uint8Array(CHUNK_BYTES);

export class Target {
  readonly log: OpenLog;
  readonly #file: InlineFile;
  readonly #locks = new RangeLock();
  /** The target is new, and neither a write nor a record has failed. */
  #isBlank: boolean;

  constructor(log: OpenLog, file: File, options: { isBlank: boolean }) {
    this.log = log;
    this.#file = file;
    this.#isBlank = options.isBlank;
  }

  get state(): CopyState {
    return this.log.state;
  }

  get isBlank(): boolean {
    return this.#isBlank;
  }

  /** Length of large writes that the file handles best, if it matters. */
  get preferredWriteBytes(): number | undefined {
    return this.#file.preferredWriteBytes;
  }

  /** A promise that must be awaited when synchronous calls have kept the event loop for long enough. */
  pace(): Done {
    return this.#file.pace?.();
  }

  /** Locks the blocks that the bytes touch. */
  lock(offset: number, length: number, mode: LockMode): MaybePromise<HeldLock> {
    return this.#locks.acquire(this.state.blocksOf(offset, length), mode);
  }

  /** Reads the file as it is; the caller holds the lock. */
  read(into: Uint8Array, offset: number): Done {
    return readFile(this.#file, into, offset);
  }

  /** Writes a user's bytes; the caller holds the lock and records the write. */
  write(from: Uint8Array, offset: number): Done {
    return this.#write(from, offset, true);
  }

  #write(from: Uint8Array, offset: number, isUsers: boolean): Done {
    const failed = (error: unknown): Promise<never> => this.#failed(error, offset, from.length, isUsers);
    try {
      return writeFile(this.#file, from, offset)?.catch(failed);
    } catch (error) {
      return failed(error);
    }
  }

  /**
   * Says in the log what a failed write has left: acknowledged bytes may be in the same cell, and the block may be
   * recorded as copied later.
   */
  async #failed(error: unknown, offset: number, length: number, isUsers: boolean): Promise<never> {
    this.#noteFailure();
    try {
      await this.log.announceContent(offset, length);
      if (isUsers) await this.log.announceModified(offset, length);
    } catch {
      // The caller gets the error of the write, which is the cause.
    }
    throw error;
  }

  /** Records writes that have returned. `settled` is called when the state holds them, perhaps synchronously. */
  record(transaction: OpenTransaction, settled: Settled): void {
    this.log.submit(transaction, (error) => {
      if (error !== undefined) this.#noteFailure();
      settled(error);
    });
  }

  /**
   * Records that whole blocks were stored; the caller holds no lock. No write of these blocks is in flight meanwhile: a
   * write that saw them unsynced would not say in the log that it modifies them.
   */
  recordBlocks(blocks: BlockRange, settled: Settled): void {
    const { offset, length } = this.state.bytesOf(blocks);
    const locked = this.lock(offset, length, 'fill');
    if (locked instanceof Promise) locked.then((lock) => this.#recordLocked(offset, length, lock, settled), settled);
    else this.#recordLocked(offset, length, locked, settled);
  }

  #recordLocked(offset: number, length: number, lock: HeldLock, settled: Settled): void {
    const transaction = this.log.begin();
    transaction.filled(offset, length);
    this.record(transaction, (error) => {
      lock.release();
      settled(error);
    });
  }

  /** Stores bytes that are no user's write; the caller holds the lock and records them. */
  fill(from: Uint8Array, offset: number): Done {
    const ready = this.log.announceChange(offset, from);
    const write = (): Done => this.#write(from, offset, false);
    return ready === undefined ? write() : ready.then(write);
  }

  /**
   * Makes the range read as zeros, and writes only where it does not. The caller holds the lock and records it, and has
   * announced it if it is a user's.
   */
  async zero(offset: number, length: number): Promise<void> {
    const buffer = new Uint8Array(Math.min(CHUNK_BYTES, length));
    for (let at = offset; at < offset + length; at += CHUNK_BYTES) {
      const chunk = buffer.subarray(0, Math.min(CHUNK_BYTES, offset + length - at));
      await this.read(chunk, at);
      if (!isZero(chunk)) await this.fill(ZEROS.subarray(0, chunk.length), at);
    }
  }

  /** Bytes that were never recorded may have been written. */
  #noteFailure(): void {
    this.#isBlank = false;
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}
