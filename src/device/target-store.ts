/**
 * Bytes of the target, and the locks on its blocks: everything that changes the target goes through here.
 *
 * Order (docs/DESIGN.md): the target's write has returned before its record is logged; the block's lock is held from before the write until the maps say so; the source's
 * bytes are written around dirty parts, never over them.
 */

import type { File } from '../fs/file-system.ts';
import type { Journal, Settled } from '../log/journal.ts';
import { RangeLock, type Release } from './range-lock.ts';
import { isZero } from './zeros.ts';

/** The units in which zeros are looked for; a piece's ends may be parts of one. */
const ZERO_UNIT_BYTES = 65_536;
const CHUNK_BYTES = 2 ** 20;

const ZEROS = new Uint8Array(CHUNK_BYTES);

/** A range of blocks, half open. */
export interface BlockRange {
  readonly start: number;
  readonly end: number;
}

export class TargetStore {
  readonly journal: Journal;
  readonly locks: RangeLock = new RangeLock();
  readonly #target: File;
  /** Whether what was never recorded is known to be zeros: the target is new, and no write of it has failed. */
  #blank: boolean;

  constructor(journal: Journal, target: File, options: { blank: boolean }) {
    this.journal = journal;
    this.#target = target;
    this.#blank = options.blank;
  }

  /** How long the pieces given to {@link fill} should be, if it matters. */
  get preferredWriteBytes(): number | undefined {
    return this.#target.preferredWriteBytes;
  }

  /** The blocks that bytes `[offset, offset + length)` touch. */
  blocksOf(offset: number, length: number): BlockRange {
    const { blockSize } = this.journal.geometry;
    return { start: Math.floor(offset / blockSize), end: Math.ceil((offset + length) / blockSize) };
  }

  /** Locks the blocks that the bytes touch. */
  lock(offset: number, length: number, mode: 'shared' | 'exclusive'): Release | Promise<Release> {
    const { start, end } = this.blocksOf(offset, length);
    return this.locks.tryAcquire(start, end, mode) ?? this.locks.acquire(start, end, mode);
  }

  /** Reads the target as it is; the caller holds the lock. */
  read(into: Uint8Array, offset: number): Promise<void> {
    return this.#target.read(into, offset);
  }

  /** As {@link read}, inside the call; false where the target cannot. Nobody may hold the lock exclusively. */
  readNow(into: Uint8Array, offset: number): boolean {
    return this.#target.readNow?.(into, offset) ?? false;
  }

  /** As {@link write} of blocks that are synced, inside the call; false where the target cannot. Nobody may hold the lock. */
  overwriteNow(from: Uint8Array, offset: number): boolean {
    if (!this.#writeNow(from, offset)) return false;
    this.journal.rewritten();
    return true;
  }

  /**
   * As {@link write} of blocks of which not all are synced, under a lock of its own, the bytes inside the call: true, and `settled` is called when they are recorded;
   * false, and nothing done, where the target cannot or somebody has the lock.
   */
  writeNow(from: Uint8Array, offset: number, settled: Settled): boolean {
    const { start, end } = this.blocksOf(offset, from.length);
    const release = this.locks.tryAcquire(start, end, 'exclusive');
    if (release === undefined) return false;
    const ended: Settled = (error) => {
      if (error !== undefined) this.#blank = false;
      release();
      settled(error);
    };
    try {
      if (!this.#writeNow(from, offset)) {
        release();
        return false;
      }
    } catch (error) {
      ended(error);
      return true;
    }
    this.journal.record(offset, from.length, ended);
    return true;
  }

  /** Writes a user's bytes and records them; the caller holds the lock, exclusively. */
  async write(from: Uint8Array, offset: number): Promise<void> {
    try {
      await this.#target.write(from, offset);
      await this.journal.written(offset, from.length);
    } catch (error) {
      this.#blank = false;
      throw error;
    }
  }

  /** Makes the range read as zeros and records it; the caller holds the lock, exclusively. */
  async writeZeroes(offset: number, length: number): Promise<void> {
    await this.#zero(offset, length);
    await this.#record(offset, length);
  }

  /**
   * Puts the source's bytes where nothing better is, under the lock; says nothing to the log yet, so that a long stretch needs few records.
   * The bytes may begin and end within a block.
   */
  async fill(from: Uint8Array, offset: number): Promise<void> {
    if (from.length === 0) return;
    const release = await this.lock(offset, from.length, 'exclusive');
    try {
      for (const { start, end } of this.#holes(offset, from.length))
        await this.#writeSparse(from.subarray(start - offset, end - offset), start);
    } finally {
      release();
    }
  }

  /**
   * As {@link fill} of whole blocks that are neither synced nor dirty, inside the call: false, and nothing done, where the target cannot, or would have to be read, or
   * somebody has the lock.
   */
  fillNow(from: Uint8Array, offset: number): boolean {
    const { start, end } = this.blocksOf(offset, from.length);
    if (!this.locks.isFree(start, end, 'exclusive')) return false;
    return isZero(from) ? this.#blank : this.#writeNow(from, offset);
  }

  /** As {@link fill} with zeros that need not be fetched; a range of whole blocks. */
  async fillZeroes(offset: number, length: number): Promise<void> {
    const release = await this.lock(offset, length, 'exclusive');
    try {
      for (const { start, end } of this.#holes(offset, length)) await this.#fillZero(start, end - start);
    } finally {
      release();
    }
  }

  /**
   * Records that whole blocks, all of whose bytes were given to {@link fill}, are complete. No lock: whatever users did since has only made more of them true.
   */
  filled(blocks: BlockRange): Promise<void> {
    const { offset, length } = this.#bytesOf(blocks);
    return this.#record(offset, length);
  }

  /** As {@link filled}; `settled` is called when it is done, or has failed. */
  recordFilled(blocks: BlockRange, settled: Settled): void {
    const { offset, length } = this.#bytesOf(blocks);
    this.journal.record(offset, length, (error) => {
      if (error !== undefined) this.#blank = false;
      settled(error);
    });
  }

  #bytesOf(blocks: BlockRange): { offset: number; length: number } {
    const { blockSize, size } = this.journal.geometry;
    const offset = blocks.start * blockSize;
    return { offset, length: Math.min(blocks.end * blockSize, size) - offset };
  }

  async #record(offset: number, length: number): Promise<void> {
    try {
      await this.journal.written(offset, length);
    } catch (error) {
      this.#blank = false;
      throw error;
    }
  }

  #writeNow(from: Uint8Array, offset: number): boolean {
    try {
      return this.#target.writeNow?.(from, offset) ?? false;
    } catch (error) {
      this.#blank = false;
      throw error;
    }
  }

  async #write(from: Uint8Array, offset: number): Promise<void> {
    try {
      await this.#target.write(from, offset);
    } catch (error) {
      this.#blank = false;
      throw error;
    }
  }

  /**
   * The byte ranges within the given one that are neither synced nor dirty; the caller holds the lock, exclusively. All at once and not one after the other: blocks may
   * become synced while the first holes are being filled, and their dirty parts would no longer be known.
   */
  #holes(offset: number, length: number): { start: number; end: number }[] {
    const { map, dirty, geometry } = this.journal;
    const { blockSize } = geometry;
    const blocks = this.blocksOf(offset, length);
    const holes: { start: number; end: number }[] = [];
    for (const extent of map.extents(blocks.start, blocks.end)) {
      if (extent.synced) continue;
      let from = Math.max(offset, extent.start * blockSize);
      const to = Math.min(offset + length, extent.end * blockSize);
      if (dirty.hasAny(extent.start, extent.end)) {
        for (let block = extent.start; block < extent.end; block++) {
          for (const [partStart, partEnd] of dirty.parts(block)) {
            const partAt = Math.min(block * blockSize + partStart, to);
            if (partAt > from) holes.push({ start: from, end: partAt });
            from = Math.max(from, block * blockSize + partEnd);
          }
        }
      }
      if (from < to) holes.push({ start: from, end: to });
    }
    return holes;
  }

  /**
   * Writes all but long runs of zeros, which are there already on a target that is sparse. Pieces begin and end anywhere: what they have of a unit may be left out
   * even if their neighbours cannot do the same with theirs.
   */
  async #writeSparse(from: Uint8Array, offset: number): Promise<void> {
    let dataStart = 0;
    for (let at = 0; at < from.length; ) {
      const next = Math.min(from.length, at + ZERO_UNIT_BYTES - ((offset + at) % ZERO_UNIT_BYTES));
      if (isZero(from.subarray(at, next))) {
        if (dataStart < at) await this.#write(from.subarray(dataStart, at), offset + dataStart);
        await this.#fillZero(offset + at, next - at);
        dataStart = next;
      }
      at = next;
    }
    if (dataStart < from.length) await this.#write(from.subarray(dataStart), offset + dataStart);
  }

  /** Zeros of the source, which are what a blank target has in every hole: nobody but the source can have written there. */
  async #fillZero(offset: number, length: number): Promise<void> {
    if (!this.#blank) await this.#zero(offset, length);
  }

  /** Makes the range zeros, without writing where it reads as zeros anyway. */
  async #zero(offset: number, length: number): Promise<void> {
    let buffer: Uint8Array | undefined;
    for (let at = offset; at < offset + length; at += CHUNK_BYTES) {
      const bytes = Math.min(CHUNK_BYTES, offset + length - at);
      buffer ??= new Uint8Array(bytes);
      const chunk = buffer.subarray(0, bytes);
      await this.#target.read(chunk, at);
      if (!isZero(chunk)) await this.#write(ZEROS.subarray(0, bytes), at);
    }
  }
}
