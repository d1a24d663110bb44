/**
 * The target: its bytes, the locks on its blocks, and the records of what it holds. Every change of it goes through
 * here.
 *
 * Invariants (docs/DESIGN.md, "Rules"):
 * - A write is recorded after it has returned. Its lock is held from before the write until the state holds the record.
 * - As long as the target is blank, every byte that was never recorded is zero, or the source's.
 * - On a new target, every byte that was never written is zero, whatever the records and failures. Closing a copy
 *   zeroes what was written and never recorded, so that the next life knows as much: `CheckpointHeader.restIsZero`.
 */

import { type Done, type MaybePromise, rightAfter, type Settled } from '../async/done.ts';
import type { TurningClock } from '../async/turns.ts';
import { BitSet } from '../core/bit-set.ts';
import type { CopyState } from '../core/copy-state.ts';
import { REST_UNIT_BYTES } from '../core/layout.ts';
import type { BlockRange } from '../core/runs.ts';
import { CodError } from '../errors.ts';
import type { File } from '../fs/file-system.ts';
import { HOLE_BYTES, type InlineFile, readFile, writeFile } from '../fs/inline-file.ts';
import type { OpenLog } from '../log/intent-log.ts';
import type { OpenTransaction } from '../log/transaction.ts';
import { isZero } from '../platform/zeros.ts';
import { type HeldLock, type LockMode, RangeLock } from './range-lock.ts';

/** What was written is known in units of this many bytes: 2 MiB of memory for each TiB. */
const WRITTEN_UNIT_BYTES = REST_UNIT_BYTES;
/** The unit in which zeroing looks for bytes that are not zero. */
const PAGE_BYTES = 4096;

const ZEROS = new Uint8Array(HOLE_BYTES);

export class Target {
  readonly log: OpenLog;
  readonly #file: InlineFile;
  readonly #locks = new RangeLock();
  /** The target is new, and neither a write nor a record has failed. */
  #isBlank: boolean;
  /**
   * The units that were written since the target was new or was opened. Undefined: nothing is known of the rest of an
   * older target.
   */
  readonly #written: BitSet | undefined;
  /** Whether units were written before the copy was opened: those that have synced or dirty bytes. */
  readonly #isOlder: boolean;
  readonly #clock: TurningClock;
  /** Called when a user's change has ended, however it ended, while its lock is held. Must not throw. */
  onChanged: ((offset: number, length: number) => void) | undefined;
  /** For zeroing, unless it is in use: new buffers for many short pieces keep the garbage collector busy. */
  #buffer: Uint8Array | undefined;

  constructor(log: OpenLog, file: File, options: { isBlank: boolean; restIsZero?: boolean; clock: TurningClock }) {
    this.log = log;
    this.#file = file;
    this.#isBlank = options.isBlank;
    this.#isOlder = !options.isBlank;
    this.#written = options.isBlank || options.restIsZero ? new BitSet() : undefined;
    this.#clock = options.clock;
  }

  get state(): CopyState {
    return this.log.state;
  }

  get isBlank(): boolean {
    return this.#isBlank;
  }

  get isDevice(): boolean {
    return this.#file.deviceContents !== undefined;
  }

  /** Length of large writes that the file handles best, if it matters. */
  get preferredWriteBytes(): number | undefined {
    return this.#file.preferredWriteBytes;
  }

  /** A promise that must be awaited when synchronous calls have kept the event loop for long enough. */
  pace(): Done {
    return this.#file.pace?.();
  }

  /** Lets the event loop turn. */
  turn(): Done {
    return this.#clock.turn?.();
  }

  /** Where the first bytes of [offset, end) are that may not be zero, or `end`: all before them never was written. */
  nextWritten(offset: number, end: number): number {
    if (this.#written === undefined || offset >= end) return offset;
    const [first, limit] = unitsOf(offset, end - offset);
    let unit = this.#written.next(first, limit);
    if (this.#isOlder && first < unit) unit = Math.min(unit, this.#nextHeld(first, unit));
    return Math.min(end, Math.max(offset, unit * WRITTEN_UNIT_BYTES));
  }

  /** The first of the units [from, limit) that has a synced or a dirty block, or `limit`. */
  #nextHeld(from: number, limit: number): number {
    const { blockSize, size } = this.state.geometry;
    const offset = from * WRITTEN_UNIT_BYTES;
    const { start, end } = this.state.blocksOf(offset, Math.min(limit * WRITTEN_UNIT_BYTES, size) - offset);
    const held = this.state.nextHeld(start, end);
    return held === end ? limit : Math.max(from, Math.floor((held * blockSize) / WRITTEN_UNIT_BYTES));
  }

  /**
   * Zeroes the units that were written and that nothing is recorded of: pieces of the background copy that did not
   * arrive as a whole, and writes that failed. Nothing else changes the target meanwhile.
   *
   * @returns whether every unit in which no byte is synced or dirty is zero then
   */
  async zeroRest(): Promise<boolean> {
    const { blockSize, size } = this.state.geometry;
    if (this.#written === undefined || this.log.poisoning !== undefined || this.state.isComplete) return false;
    const limit = Math.ceil(size / WRITTEN_UNIT_BYTES);
    try {
      for (let unit = this.#written.next(0, limit); unit < limit; ) {
        const offset = unit * WRITTEN_UNIT_BYTES;
        if (this.#nextHeld(unit, unit + 1) > unit)
          await this.fill(ZEROS.subarray(0, Math.min(WRITTEN_UNIT_BYTES, size - offset)), offset);
        // Goes over a run of synced blocks at once.
        const unsynced = this.state.nextUnsynced(Math.floor(offset / blockSize)) * blockSize;
        unit = this.#written.next(Math.max(unit + 1, Math.floor(unsynced / WRITTEN_UNIT_BYTES)), limit);
        await this.turn();
      }
      return true;
    } catch {
      return false;
    }
  }

  /**
   * Locks the blocks that the bytes touch.
   * @throws {@link CodError} COD_READ_ONLY for a change of a target that is only read.
   */
  lock(offset: number, length: number, mode: LockMode): MaybePromise<HeldLock> {
    if (mode !== 'read') this.assertWritable();
    return this.#locks.acquire(this.state.blocksOf(offset, length), mode);
  }

  /** @throws {@link CodError} COD_READ_ONLY if the target is only read. */
  assertWritable(): void {
    if (this.log.readOnly) throw new CodError('COD_READ_ONLY', 'the device was opened for reading only');
  }

  /** Reads the file as it is; the caller holds the lock. */
  read(into: Uint8Array, offset: number): Done {
    return readFile(this.#file, into, offset);
  }

  /** Writes a user's bytes; the caller holds the lock and records the write. */
  write(from: Uint8Array, offset: number): Done {
    return this.#write(from, offset, true);
  }

  /** A replaced owner must not write over what its successor has written. It may have waited for long before this. */
  #write(from: Uint8Array, offset: number, isUsers: boolean): Done {
    return rightAfter(
      () => this.log.fenceIfOld(),
      () => this.#writeAtOnce(from, offset, isUsers),
    );
  }

  #writeAtOnce(from: Uint8Array, offset: number, isUsers: boolean): Done {
    this.#written?.add(...unitsOf(offset, from.length));
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
   * Makes the range read as zeros. Reads where it may not, and writes where it does not; the event loop may turn
   * meanwhile. The caller holds the lock and records it, and has announced it if it is a user's.
   */
  async zero(offset: number, length: number): Promise<void> {
    const end = offset + length;
    const step = this.#written === undefined ? HOLE_BYTES : WRITTEN_UNIT_BYTES;
    const buffer = this.#buffer ?? new Uint8Array(step);
    this.#buffer = undefined;
    for (let at = this.nextWritten(offset, end); at < end; at = this.nextWritten(at, end)) {
      const chunk = buffer.subarray(0, Math.min(step - (at % step), end - at));
      if (chunk.length === HOLE_BYTES && (await this.#file.isHole?.(at, HOLE_BYTES))) {
        at += HOLE_BYTES;
        continue;
      }
      await this.read(chunk, at);
      // Only the pages that are not zero, so that a sparse file stays sparse.
      for (let start = 0; start < chunk.length; start += PAGE_BYTES) {
        const first = start;
        while (start < chunk.length && !isZero(chunk.subarray(start, start + PAGE_BYTES))) start += PAGE_BYTES;
        if (first < start) await this.fill(ZEROS.subarray(first, Math.min(start, chunk.length)), at + first);
      }
      at += chunk.length;
      await this.turn();
    }
    this.#buffer = buffer;
  }

  /** Bytes that were never recorded may have been written. */
  #noteFailure(): void {
    this.#isBlank = false;
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}

/** The units that a range touches. */
function unitsOf(offset: number, length: number): [start: number, end: number] {
  return [Math.floor(offset / WRITTEN_UNIT_BYTES), Math.ceil((offset + length) / WRITTEN_UNIT_BYTES)];
}
