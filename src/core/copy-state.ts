/**
 * What a copy holds: which blocks are synced, which parts of the other blocks were written, and which blocks users
 * modified.
 *
 * | block    | synced map | dirty map   | its bytes are                                         |
 * | -------- | ---------- | ----------- | ----------------------------------------------------- |
 * | unsynced | no         | no parts    | the source's                                          |
 * | dirty    | no         | 1 or more   | the target's in these parts, the source's elsewhere   |
 * | synced   | yes        | no parts    | the target's                                          |
 *
 * Invariants:
 * - A block only moves down in this table. A synced block has no dirty parts.
 * - Blocks with a user's bytes are modified. Other blocks may be too, since a block is named before it is written.
 * - The number of changes of a slice grows before any map changes in that slice.
 * - No other file combines the maps. Every answer is a value of one moment: a caller may keep it across an await.
 *   Until then bytes may have become the target's, and never the source's again.
 */

import { CodError } from '../errors.ts';
import type { Core } from '../wasm/core.ts';
import { checkRoom } from './bitmap-heap.ts';
import { BlockMap } from './block-map.ts';
import { DirtyMap, type Part } from './dirty-map.ts';
import { bytesOfBlock, type Geometry, sliceCount } from './geometry.ts';
import type { GrowingBuffer } from './growing-buffer.ts';
import { MAX_BLOCK_PARTS, padded, SLICE_BLOCKS } from './layout.ts';
import { piecesOf } from './pieces.ts';
import type { Replay } from './replay.ts';
import type { BlockRange, Piece, StateRun } from './runs.ts';
import { COUNTS, type SliceEntry } from './slice-directory.ts';
import type { BlockView, DirtyView, ModifiedRuns } from './views.ts';

/** A slice as it was serialized: all of its entry in a directory but its place and checksum. */
export type SerializedSlice = Omit<SliceEntry, 'offset' | 'checksum'>;

/** A block with more dirty parts than this is fetched and made whole. */
const MAX_PARTS_OF_BLOCK = 64;
/** Blocks that are looked up before the event loop may turn. */
const STEP_BLOCKS = 4096;
/** Where any block is dirty, {@link CopyState.runs} looks at this many blocks at most: each takes a look-up. */
const MAX_RUN_BLOCKS = 2 ** 16;

export class CopyState {
  readonly geometry: Geometry;
  readonly #blocks: BlockMap;
  #dirty: DirtyMap;
  readonly #modified: BlockMap;
  /** For each slice. */
  readonly #changes: number[];

  constructor(geometry: Geometry, blocks: BlockMap, dirty: DirtyMap, modified: BlockMap) {
    this.geometry = geometry;
    this.#blocks = blocks;
    this.#dirty = dirty;
    this.#modified = modified;
    this.#changes = Array.from({ length: sliceCount(geometry) }, () => 0);
  }

  /** An empty state: the target holds nothing. */
  static async open(core: Core, geometry: Geometry): Promise<CopyState> {
    const [blocks, modified] = [await BlockMap.open(geometry), await BlockMap.open(geometry)];
    return new CopyState(geometry, blocks, new DirtyMap(core, geometry), modified);
  }

  get blocks(): BlockView {
    return this.#blocks;
  }

  get dirty(): DirtyView {
    return this.#dirty;
  }

  get modified(): ModifiedRuns {
    return this.#modified;
  }

  /** The number of dirty parts of all blocks. */
  get dirtyParts(): number {
    return this.#dirty.partCount;
  }

  /** Whether the core has failed: which blocks are dirty is not known any more. */
  get isLost(): boolean {
    return this.#dirty.isLost;
  }

  get isComplete(): boolean {
    return this.#blocks.count === this.geometry.blockCount;
  }

  /** Whether the target holds nothing. */
  get isEmpty(): boolean {
    return this.#blocks.count === 0 && this.#dirty.blockCount === 0;
  }

  /** The blocks that the bytes [offset, offset + length) touch. */
  blocksOf(offset: number, length: number): BlockRange {
    const { blockSize } = this.geometry;
    return { start: Math.floor(offset / blockSize), end: Math.ceil((offset + length) / blockSize) };
  }

  /** The bytes of whole blocks. */
  bytesOf(blocks: BlockRange): { offset: number; length: number } {
    const { blockSize, size } = this.geometry;
    const offset = blocks.start * blockSize;
    return { offset, length: Math.min(blocks.end * blockSize, size) - offset };
  }

  /** Whether every block that these bytes touch is synced. */
  isSynced(offset: number, length: number): boolean {
    if (this.#blocks.count === this.geometry.blockCount) return true;
    const { blockSize } = this.geometry;
    return this.#blocks.hasRange(Math.floor(offset / blockSize), Math.ceil((offset + length) / blockSize));
  }

  /** Whether any block that these bytes touch is synced and not modified. */
  isUnmodified(offset: number, length: number): boolean {
    const { start, end } = this.blocksOf(offset, length);
    // One block is looked up in a fraction of the time of a range.
    if (end - start === 1) return this.#blocks.has(start) && !this.#modified.has(start);
    for (let at = this.#modified.nextUnsynced(start, end); at < end; at = this.#modified.nextUnsynced(at, end)) {
      const stop = end - at === 1 ? end : this.#modified.nextSynced(at, end);
      if (this.#blocks.hasAny(at, stop)) return true;
      at = stop;
    }
    return false;
  }

  /** Users may change the bytes [offset, offset + length) from now on, or have done so. */
  modify(offset: number, length: number): void {
    const { start, end } = this.blocksOf(offset, length);
    this.#noteChange(start, end);
    this.#modified.add(start, end);
  }

  /**
   * The target now holds the bytes [offset, offset + length). After any error a part of the range may be applied: the
   * caller must not use the state any more.
   *
   * @throws {@link CodError} COD_NO_SPACE if the map of dirty parts is full
   */
  apply(offset: number, length: number): void {
    const { blockSize, size, blockCount } = this.geometry;
    const end = offset + length;
    const first = Math.floor(offset / blockSize);
    this.#noteChange(first, Math.ceil(end / blockSize));
    const firstWhole = Math.ceil(offset / blockSize);
    const endWhole = end === size ? blockCount : Math.floor(end / blockSize);
    if (firstWhole < endWhole) {
      this.#blocks.add(firstWhole, endWhole);
      this.#dirty.remove(firstWhole, endWhole);
    }
    if (first < firstWhole) {
      const base = first * blockSize;
      this.#applyPart(first, offset - base, Math.min(end - base, bytesOfBlock(this.geometry, first)));
    }
    if (endWhole >= firstWhole && endWhole * blockSize < end) this.#applyPart(endWhole, 0, end - endWhole * blockSize);
  }

  /** The blocks [start, end) are about to change: checkpoints write their slices again. */
  #noteChange(start: number, end: number): void {
    for (let slice = Math.floor(start / SLICE_BLOCKS); slice * SLICE_BLOCKS < end; slice++) this.#changes[slice]!++;
  }

  #applyPart(block: number, start: number, end: number): void {
    if (this.#blocks.has(block)) return;
    const added = this.#dirty.add(block, start, end);
    if (added === 'complete') this.#blocks.add(block, block + 1);
    if (added === 'full') throw new CodError('COD_NO_SPACE', 'the map of dirty parts is full: write whole blocks');
  }

  /** @throws {@link CodError} COD_NO_MEMORY if a batch of records may find no memory when it is applied */
  checkMemory(): void {
    checkRoom();
    this.#dirty.checkMemory();
  }

  /** The most bytes that {@link moving} takes in a core. */
  get mostCoreBytes(): number {
    return this.#dirty.mostBytes;
  }

  /** Moves what is in the memory of a core to that of another, in steps after which the event loop may turn. */
  *moving(core: Core): Generator<void, void, undefined> {
    this.#dirty = yield* this.#dirty.moving(core);
  }

  /** Divides a range by who holds its bytes. Neighbours differ. */
  pieces(offset: number, length: number): Piece[] {
    return piecesOf(this.#blocks, this.#dirty, this.geometry, { offset, length });
  }

  /**
   * The blocks that the source must be asked for to read a range. One run for each run of unsynced blocks: to fetch
   * the written blocks in the middle of a run costs less than another request.
   */
  missing(offset: number, length: number): BlockRange[] {
    const { blockSize } = this.geometry;
    const missing: { start: number; end: number }[] = [];
    for (const piece of this.pieces(offset, length)) {
      if (piece.from === 'target') continue;
      const start = Math.floor(piece.start / blockSize);
      const end = Math.ceil(piece.end / blockSize);
      const last = missing.at(-1);
      if (last !== undefined && (start <= last.end || !this.#blocks.hasAny(last.end, start))) last.end = end;
      else missing.push({ start, end });
    }
    return missing;
  }

  /** The runs of a range, or of its beginning: at most `limit`. Neighbours differ. */
  runs(offset: number, length: number, limit: number): StateRun[] {
    const { blockSize } = this.geometry;
    const { start: first, end: last } = this.blocksOf(offset, length);
    const limitBlock = this.#dirty.blockCount > 0 ? Math.min(last, first + MAX_RUN_BLOCKS) : last;
    const runs: StateRun[] = [];
    const add = (start: number, end: number, state: StateRun['state']): void => {
      const bytes = Math.min(offset + length, end * blockSize) - Math.max(offset, start * blockSize);
      const before = runs.at(-1);
      if (before?.state === state) runs[runs.length - 1] = { state, length: before.length + bytes };
      else runs.push({ state, length: bytes });
    };
    for (const { start, end, synced } of this.#blocks.extents(first, limitBlock)) {
      if (runs.length >= limit) break;
      if (synced) {
        add(start, end, 'synced');
        continue;
      }
      for (let at = start; at < end && runs.length < limit; ) {
        const next = this.#dirty.nextDirty(at, end);
        if (at < next) add(at, next, 'unsynced');
        if (next < end && runs.length < limit) add(next, next + 1, 'dirty');
        at = next + 1;
      }
    }
    return runs;
  }

  /**
   * The blocks that a write of this range must not leave dirty: they have {@link MAX_PARTS_OF_BLOCK} parts already, or
   * the map of dirty parts is nearly full. At most two: those at the ends of the range.
   */
  crowded(offset: number, length: number): readonly number[] {
    if (this.isComplete) return NONE;
    const { blockSize } = this.geometry;
    const first = Math.floor(offset / blockSize);
    const last = Math.floor((offset + length - 1) / blockSize);
    if (!this.#isCrowded(first, offset, length) && (first === last || !this.#isCrowded(last, offset, length)))
      return NONE;
    return [...new Set([first, last])].filter((block) => this.#isCrowded(block, offset, length));
  }

  #isCrowded(block: number, offset: number, length: number, limit = MAX_PARTS_OF_BLOCK): boolean {
    const base = block * this.geometry.blockSize;
    const isWhole = offset <= base && base + bytesOfBlock(this.geometry, block) <= offset + length;
    if (isWhole || this.#blocks.has(block)) return false;
    return !this.#dirty.hasRoom || this.#dirty.parts(block).length >= limit;
  }

  /**
   * Whether the map of dirty parts has room for this range after `others` more parts. False from seven eighths of the
   * map on, and from half of the most parts of a block on: records in flight may need the rest.
   */
  hasRoomFor(offset: number, length: number, others: number): boolean {
    const { start, end } = this.blocksOf(offset, length);
    // Parts do not touch, so a small block cannot reach the limit.
    const isSmall = this.geometry.blockSize <= 2 * MAX_BLOCK_PARTS;
    const limit = isSmall ? Number.POSITIVE_INFINITY : MAX_BLOCK_PARTS / 2 - others;
    return !this.#isCrowded(start, offset, length, limit) && !this.#isCrowded(end - 1, offset, length, limit);
  }

  /** The first unsynced block of [from, limit), or `limit`. Default of `limit`: the number of blocks. */
  nextUnsynced(from: number, limit?: number): number {
    return this.#blocks.nextUnsynced(from, limit);
  }

  /** The first synced block of [from, limit), or `limit`. Default of `limit`: the number of blocks. */
  nextSynced(from: number, limit?: number): number {
    return this.#blocks.nextSynced(from, limit);
  }

  /** The first block of [from, limit) that is synced or dirty, or `limit`. */
  nextHeld(from: number, limit: number): number {
    return this.#dirty.nextDirty(from, this.#blocks.nextSynced(from, limit));
  }

  /** The maximal runs of synced blocks, ascending, as [start, end): all of those that end after the block `from`. */
  *syncedRuns(from: number = 0): Generator<[start: number, end: number], void, undefined> {
    yield* this.#blocks.runs(from);
  }

  /** The dirty blocks and their parts, ascending. */
  *dirtyBlocks(): Generator<{ block: number; parts: readonly Part[] }, void, undefined> {
    for (const block of this.#dirty.blocks()) yield { block, parts: this.#dirty.parts(block) };
  }

  /** The number of synced, and of dirty, blocks in each of `parts` equal parts of the blocks [start, end). */
  count(start: number, end: number, parts: number): { synced: Float64Array; dirty: Float64Array } {
    const synced = new Float64Array(parts);
    const dirty = new Float64Array(parts);
    /** The first block of a part. */
    const edge = (part: number): number => start + Math.floor(((end - start) * part) / parts);
    this.#blocks.countParts(synced, start, end, edge);
    this.#dirty.countParts(dirty, start, end, edge);
    return { synced, dirty };
  }

  /** The number of changes of each slice so far. */
  changes(): readonly number[] {
    return [...this.#changes];
  }

  /**
   * Appends a slice to `into`, in steps after which the event loop may turn. The slice holds at least what the state
   * holds now. What becomes true meanwhile may be in the slice or not.
   *
   * The dirty section comes first: a block that becomes synced meanwhile is missing there, but not in the bitmap.
   */
  *serializing(slice: number, into: GrowingBuffer): Generator<void, SerializedSlice, undefined> {
    const begin = into.length;
    into.reserve(this.#dirty.sectionBytes(slice));
    const dirtyBlocks = yield* this.#dirty.serializing(slice, into);
    const dirtyBytes = into.length - begin;
    const bitmapBytes = this.#blocks.serialize(slice, into);
    into.extend(padded(bitmapBytes) - bitmapBytes).fill(0);
    const syncedBlocks = this.#blocks.countOf(slice);
    if (this.#modified.count > 0) yield;
    const modifiedBytes = this.#modified.serialize(slice, into);
    into.extend(padded(modifiedBytes) - modifiedBytes).fill(0);
    const modifiedBlocks = this.#modified.countOf(slice);
    return { dirtyBytes, bitmapBytes, modifiedBytes, dirtyBlocks, syncedBlocks, modifiedBlocks };
  }

  /**
   * Adds a slice of a checkpoint to an empty slice of the state, in steps after which the event loop may turn.
   *
   * @param bytes what {@link serializing} has written
   * @throws {@link CodError} COD_CORRUPT if it is damaged. A part of the slice may be added.
   */
  *loading(slice: number, entry: SerializedSlice, bytes: Uint8Array): Generator<void, void, undefined> {
    const { dirtyBytes, bitmapBytes, modifiedBytes } = entry;
    const dirtyBefore = this.#dirty.blockCount;
    this.#noteChange(slice * SLICE_BLOCKS, slice * SLICE_BLOCKS + 1);
    if (bitmapBytes > 0) yield* this.#blocks.uniting(slice, bytes.subarray(dirtyBytes, dirtyBytes + bitmapBytes));
    yield* this.#dirty.loading(slice, bytes.subarray(0, dirtyBytes));
    const modifiedAt = dirtyBytes + padded(bitmapBytes);
    const modifiedEnd = modifiedAt + modifiedBytes;
    if (modifiedBytes > 0) {
      yield;
      yield* this.#modified.uniting(slice, bytes.subarray(modifiedAt, modifiedEnd));
    }
    const padding = [bytes.subarray(dirtyBytes + bitmapBytes, modifiedAt), bytes.subarray(modifiedEnd)];
    if (padding.some((zeros) => zeros.some((byte) => byte !== 0)))
      throw new CodError('COD_CORRUPT', `slice ${slice}: the padding of a bitmap is not zero`);
    const found = {
      syncedBlocks: this.#blocks.countOf(slice),
      dirtyBlocks: this.#dirty.blockCount - dirtyBefore,
      modifiedBlocks: this.#modified.countOf(slice),
    };
    for (const name of COUNTS) {
      if (found[name] === entry[name]) continue;
      const message = `slice ${slice}: ${name} are ${found[name]}, but the directory says ${entry[name]}`;
      throw new CodError('COD_CORRUPT', message, { details: { slice } });
    }
  }

  /** Drops the parts of synced blocks, in steps after which the event loop may turn. */
  *#dropPartsOfSynced(): Generator<void, void, undefined> {
    for (const dirty of this.#dirty.lists()) {
      for (let at = 0; at < dirty.length; at += STEP_BLOCKS) {
        for (const block of this.#blocks.filter(dirty.subarray(at, at + STEP_BLOCKS)))
          this.#dirty.remove(block, block + 1);
        yield;
      }
    }
  }

  /** Adds synced blocks of a slice, from bytes that this program has written. */
  unionTrusted(sliceIndex: number, portableBytes: Uint8Array): void {
    this.#blocks.unionTrusted(sliceIndex, portableBytes);
  }

  /**
   * Merges what a replay found, and empties the replay, in steps after which the event loop may turn. Dirty parts of
   * blocks that are synced then are dropped.
   *
   * @throws {@link CodError} COD_CORRUPT
   */
  *merging(replay: Replay): Generator<void, void, undefined> {
    const wasEmpty = this.isEmpty;
    this.#noteChange(0, this.geometry.blockCount);
    yield* replay.finishing(this.#dirty);
    for (const [slice, bytes] of replay.emitSlices()) {
      this.#blocks.unionTrusted(slice, bytes);
      yield;
    }
    if (!wasEmpty) yield* this.#dropPartsOfSynced();
    replay.clear();
  }

  /**
   * Merges the blocks that a replay found changed, in steps after which the event loop may turn. Blocks that are
   * neither synced nor dirty are dropped from the modified ones then: only the source holds them.
   */
  *mergingModified(changed: Replay): Generator<void, void, undefined> {
    // A replay of changed blocks has no parts for the map of dirty blocks.
    yield* changed.finishing(this.#dirty);
    for (const [slice, bytes] of changed.emitSlices()) {
      this.#modified.unionTrusted(slice, bytes);
      yield;
    }
    for (let slice = 0; slice < this.#changes.length; slice++) {
      if (this.#modified.countOf(slice) === 0) continue;
      yield* this.#modified.retaining(slice, this.#blocks, this.#dirty.listsOf(slice));
      yield;
    }
  }

  /** Format 1 does not tell users' bytes from the source's: every block that the target holds may be modified. */
  *modifyingAll(): Generator<void, void, undefined> {
    for (let slice = 0; slice < this.#changes.length; slice++) {
      this.#modified.unite(slice, this.#blocks);
      yield;
    }
    for (const blocks of this.#dirty.lists()) {
      for (const block of blocks) this.#modified.add(block, block + 1);
      yield;
    }
  }

  /** Blocks that this state holds are modified if they are in `other`, in steps after which the event loop may turn. */
  *modifyingAs(other: CopyState): Generator<void, void, undefined> {
    for (let slice = 0; slice < this.#changes.length; slice++) {
      this.#modified.unite(slice, other.#modified);
      yield* this.#modified.retaining(slice, this.#blocks, this.#dirty.listsOf(slice));
      yield;
    }
  }

  /** As {@link dispose}, in steps after which the event loop may turn. */
  *disposing(): Generator<void, void, undefined> {
    yield* this.#dirty.disposing();
    this.dispose();
  }

  /** Frees the memory of all maps; the state cannot be used afterwards. */
  dispose(): void {
    this.#blocks.dispose();
    this.#modified.dispose();
    this.#dirty.dispose();
  }
}

const NONE: readonly number[] = [];
