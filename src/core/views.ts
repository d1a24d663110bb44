/** The state of a copy, as users of the log see it. */

import type { BlockRange } from './runs.ts';

/** A maximal run of blocks in one state within a range: [start, end). */
export interface BlockRun extends BlockRange {
  /** Whether the blocks are synced. */
  readonly synced: boolean;
}

/**
 * The synced blocks, as users of the log see them. Blocks are numbered from 0. A block outside the storage throws
 * `RangeError`.
 */
export interface BlockView {
  /** The number of synced blocks. */
  readonly count: number;
  /** Returns whether a block is synced. */
  has(block: number): boolean;
  /** Returns whether all of the blocks [start, end) are synced; true for an empty range. */
  hasRange(start: number, end: number): boolean;
  /**
   * Returns the first unsynced block of [from, limit), or `limit` if all of them are synced.
   *
   * @param limit default: the number of blocks
   */
  nextUnsynced(from: number, limit?: number): number;
  /** Yields the maximal runs of synced and of unsynced blocks within [start, end), ascending. */
  extents(start: number, end: number): Iterable<BlockRun>;
}

/** The blocks that were written since they were copied, as users of the log see them. */
export interface ModifiedView {
  /** The number of modified blocks. */
  readonly count: number;
  /**
   * Returns whether a block is modified.
   *
   * @throws `RangeError` when the block is outside the storage.
   */
  has(block: number): boolean;
  /**
   * Yields the maximal runs of modified blocks that end after `from`, ascending, as `[start, end)`.
   *
   * @param from default: 0
   */
  runs(from?: number): Iterable<readonly [start: number, end: number]>;
}

/** What our own NBD server needs beside {@link ModifiedView}. */
export interface ModifiedRuns extends ModifiedView {
  /** Yields the maximal runs of blocks within [start, end), ascending. `synced` says that their blocks are modified. */
  extents(start: number, end: number): Iterable<BlockRun>;
}

/** The parts of unsynced blocks that were written, as users of the log see them. */
export interface DirtyView {
  /** The number of blocks that have such parts. */
  readonly blockCount: number;
  /**
   * Returns the written parts of a block as `[start, end)` in bytes within the block, ascending. Empty if the block is
   * not dirty.
   *
   * @throws `RangeError` when the block is outside the storage.
   */
  parts(block: number): readonly (readonly [start: number, end: number])[];
}
