/**
 * The dirty map of a device: the parts of unsynced blocks that the target has. It is in the memory of the WASM core.
 *
 * Invariants: the parts of a block ascend, and neither touch nor overlap. The parts never cover a whole block. Equal
 * contents have equal bytes, whatever their history.
 */

import { CodError, outOfMemory } from '../errors.ts';
import { COMPLETE, DIRTY, LIMIT, LISTED } from '../wasm/codes.ts';
import type { Core } from '../wasm/core.ts';
import { DIRTY_MAP, TABLE } from '../wasm/generated/interface.ts';
import { nextBit } from './bit-set.ts';
import { blocksOfSlice, bytesOfBlock, checkBlock, checkBlocks, type Geometry, sliceCount } from './geometry.ts';
import { GrowingBuffer } from './growing-buffer.ts';
import { CONTAINER_BLOCKS, MAX_BLOCK_PARTS, SLICE_BLOCKS } from './layout.ts';

/**
 * The default limit of a map, for its parts and for its blocks. The map then takes at most 300 MiB, which it reaches
 * only if each part is in a block of its own.
 */
export const DEFAULT_MAX_PARTS: number = 4 * 2 ** 20;

/** Bytes of a block's entry before its parts, and of each part. */
const ENTRY_BYTES = 8;
const PART_BYTES = 8;
/** A part may need slots of 16 bytes in tables that are filled to a third, and their smaller predecessors. */
const MOST_BYTES_OF_PART = 160;
/** The fields of a map, and its list of tables: 12 bytes for each 2^16 of at most 1.5 × 2^33 blocks. */
const MOST_BYTES_OF_MAP = 2 ** 22;
/** Blocks and parts that are looked at before the event loop may turn, which takes 1 ms. A table counts as some. */
const STEP_BLOCKS = 8192;
const TABLE_COST = 64;
/** Blocks of a dirty section that are written together: each may have many parts. */
const APPENDED_BLOCKS = 64;

/** The core has a table for each 2^16 blocks. Each call takes time in proportion to one table at most. */
const TABLE_BLOCKS = CONTAINER_BLOCKS;

const OUTCOMES = { [DIRTY]: 'dirty', [COMPLETE]: 'complete', [LIMIT]: 'full' } as const;

/** A part of a block: the bytes [start, end) of the block. */
export type Part = readonly [start: number, end: number];

export class DirtyMap {
  readonly #core: Core;
  readonly #geometry: Geometry;
  readonly #maxBlocks: number;
  readonly #maxParts: number;
  #handle: number;

  /** An empty map. Only {@link add} enforces the limits: checkpoints and logs were written within them. */
  constructor(core: Core, geometry: Geometry, limits: { maxBlocks?: number; maxParts?: number } = {}) {
    this.#core = core;
    this.#geometry = geometry;
    this.#maxBlocks = limits.maxBlocks ?? DEFAULT_MAX_PARTS;
    this.#maxParts = limits.maxParts ?? DEFAULT_MAX_PARTS;
    this.#handle = core.exports.dirtyOpen(
      geometry.size,
      Math.log2(geometry.blockSize),
      this.#maxBlocks,
      this.#maxParts,
    );
  }

  /** The address of the map in the memory of the core; only for src/core. */
  get handle(): number {
    if (this.#handle === 0) throw new Error('the dirty map is disposed');
    return this.#handle;
  }

  /** Whether the core has failed. */
  get isLost(): boolean {
    return this.#core.failure !== undefined;
  }

  get blockCount(): number {
    return this.#core.u32(this.handle + DIRTY_MAP.blocks);
  }

  get partCount(): number {
    return this.#core.u32(this.handle + DIRTY_MAP.parts);
  }

  /** Whether less than 7/8 of both limits is used, and of the memory that this map shares with others. */
  get hasRoom(): boolean {
    const isBelowLimits = this.blockCount < this.#maxBlocks * 0.875 && this.partCount < this.#maxParts * 0.875;
    return isBelowLimits && this.#core.hasRoom(1 / 8);
  }

  /** @throws {@link CodError} COD_NO_MEMORY if the memory that this map shares with others is nearly full */
  checkMemory(): void {
    if (this.#core.hasRoom(1 / 32)) return;
    throw this.#core.failure ?? outOfMemory('the block maps: close other devices');
  }

  /** The most bytes that the map takes in a core. Tables and lists that grow leave their old memory behind. */
  get mostBytes(): number {
    return this.partCount * MOST_BYTES_OF_PART + MOST_BYTES_OF_MAP;
  }

  has(block: number): boolean {
    checkBlock(this.#geometry, block);
    return this.#core.u64(this.#core.exports.dirtyFind(this.handle, block)) !== 0;
  }

  /** Whether any of the blocks [start, end) is dirty. */
  hasAny(start: number, end: number): boolean {
    checkBlocks(this.#geometry, start, end);
    return this.#core.exports.dirtyVisit(this.handle, start, end, 0) !== 0;
  }

  /** The first dirty block of [from, limit), or `limit` if there is none. */
  nextDirty(from: number, limit: number): number {
    const stop = Math.ceil(limit / TABLE_BLOCKS);
    for (let block = from; block < limit; ) {
      const table = this.#nextTable(Math.floor(block / TABLE_BLOCKS), stop);
      const first = table * TABLE_BLOCKS;
      if (first >= limit) break;
      const end = Math.min(limit - first, TABLE_BLOCKS);
      const found = nextBit(this.#bits(table), Math.max(0, block - first), end);
      if (found < end) return first + found;
      block = first + end;
    }
    return limit;
  }

  /**
   * Adds the bytes [start, end) of a block.
   *
   * @returns `complete` if the parts cover the whole block now: the map drops it, and the caller must mark it synced.
   * `full` if a limit of the map or {@link MAX_BLOCK_PARTS} would be passed: nothing has changed.
   */
  add(block: number, start: number, end: number): 'dirty' | 'complete' | 'full' {
    checkBlock(this.#geometry, block);
    if (
      !Number.isInteger(start) ||
      !Number.isInteger(end) ||
      start < 0 ||
      start >= end ||
      end > bytesOfBlock(this.#geometry, block)
    ) {
      throw new RangeError(
        `bytes [${start}, ${end}) are not a part of block ${block} (${bytesOfBlock(this.#geometry, block)} bytes)`,
      );
    }
    return OUTCOMES[this.#core.exports.dirtyAdd(this.handle, block, start, end, 1) as keyof typeof OUTCOMES];
  }

  /** The parts of a block, ascending; empty if the block is not dirty. */
  parts(block: number): readonly Part[] {
    checkBlock(this.#geometry, block);
    const { count, at } = this.#find(block);
    const { words } = this.#core;
    return Array.from({ length: count }, (_, i): Part => [words[at + i * 2]!, words[at + i * 2 + 1]!]);
  }

  /** Drops the blocks [start, end). */
  remove(start: number, end: number): void {
    checkBlocks(this.#geometry, start, end);
    this.#core.exports.dirtyVisit(this.handle, start, end, 1);
  }

  /** All dirty blocks, ascending. Between two of them the map may change: the iterator then misses some changes. */
  *blocks(): Generator<number, void, undefined> {
    for (const blocks of this.lists()) yield* blocks;
  }

  /** All dirty blocks in lists of at most {@link TABLE_BLOCKS}, ascending, each as it is when it is asked for. */
  *lists(): Generator<Float64Array, void, undefined> {
    for (const table of this.#tables(0, this.#geometry.blockCount)) yield this.#list(table);
  }

  /** As {@link lists}, of a slice. */
  *listsOf(slice: number): Generator<Float64Array, void, undefined> {
    for (const table of this.#tablesOf(slice)) yield this.#list(table);
  }

  /** Adds to `counts` the number of dirty blocks in each part of [start, end). A part begins at its `edge`. */
  countParts(counts: Float64Array, start: number, end: number, edge: (part: number) => number): void {
    const stop = start < end ? Math.ceil(end / TABLE_BLOCKS) : 0;
    let part = 0;
    let partEnd = edge(1);
    /** Counts the blocks that a table has from `at` on, part by part. */
    const countTable = (table: number, from: number): void => {
      const bits = this.#bits(table);
      const first = table * TABLE_BLOCKS;
      for (let at = from; at < Math.min(end, first + TABLE_BLOCKS); ) {
        while (partEnd <= at) partEnd = edge(++part + 1);
        const next = Math.min(end, first + TABLE_BLOCKS, partEnd);
        counts[part]! += countBits(bits, at - first, next - first);
        at = next;
      }
    };
    // Reads the words itself: a call for each of 65,536 tables would take longer than all else.
    const stride = TABLE.bytes >>> 2;
    let { words } = this.#core;
    let table = Math.floor(start / TABLE_BLOCKS);
    for (let at = this.#blockCountAt(table); table < stop; table++, at += stride) {
      const blocks = words[at]!;
      if (blocks === 0) continue;
      const first = table * TABLE_BLOCKS;
      while (partEnd <= first) partEnd = edge(++part + 1);
      if (first >= start && first + TABLE_BLOCKS <= partEnd) {
        counts[part]! += blocks;
      } else {
        countTable(table, Math.max(first, start));
        ({ words } = this.#core);
      }
    }
  }

  #tablesOf(slice: number): Generator<number, void, undefined> {
    const first = slice * SLICE_BLOCKS;
    return this.#tables(first, first + blocksOfSlice(this.#geometry, slice));
  }

  /** The tables of [start, end) that have dirty blocks when it is their turn. `start` begins a table. */
  *#tables(start: number, end: number): Generator<number, void, undefined> {
    const stop = Math.ceil(end / TABLE_BLOCKS);
    for (let table = start / TABLE_BLOCKS; (table = this.#nextTable(table, stop)) < stop; table++) yield table;
  }

  /** The first table of [from, stop) with dirty blocks, or `stop`. */
  #nextTable(from: number, stop: number): number {
    if (this.blockCount === 0) return stop;
    const { words } = this.#core;
    let at = this.#blockCountAt(from);
    let table = from;
    for (; table < stop && words[at] === 0; at += TABLE.bytes >>> 2) table++;
    return table;
  }

  #blocksOfTable(table: number): number {
    return this.#core.words[this.#blockCountAt(table)]!;
  }

  /** The index of the number of a table's dirty blocks in the words of the core. */
  #blockCountAt(table: number): number {
    return (this.#core.u32(this.handle + DIRTY_MAP.tables) + table * TABLE.bytes + TABLE.blocks) >>> 2;
  }

  /** The dirty blocks of a table as a bitset: a view, valid until the next call of the core. */
  #bits(table: number): Uint32Array {
    this.#core.exports.dirtyList(this.handle, table);
    const at = this.#core.exports.output() >>> 2;
    return this.#core.words.subarray(at, at + TABLE_BLOCKS / 32);
  }

  #list(table: number): Float64Array {
    const blocks = new Float64Array(this.#blocksOfTable(table));
    const bits = this.#bits(table);
    let count = 0;
    // Most tables of a large device have few blocks.
    for (let index = 0; count < blocks.length; index++) {
      for (let rest = bits[index]!; rest !== 0; rest &= rest - 1)
        blocks[count++] = table * TABLE_BLOCKS + index * 32 + 31 - Math.clz32(rest & -rest);
    }
    return blocks;
  }

  /**
   * Appends the dirty section of a slice to `into`, in steps after which the event loop may turn. A block that becomes
   * dirty or synced meanwhile is in the section or not.
   *
   * @returns the number of blocks in the section
   */
  *serializing(slice: number, into: GrowingBuffer): Generator<void, number, undefined> {
    let count = 0;
    let cost = 0;
    for (const table of this.#tablesOf(slice)) {
      const blocks = this.#list(table);
      for (let at = 0; at < blocks.length; at += APPENDED_BLOCKS) {
        const begin = into.length;
        count += this.#append(blocks.subarray(at, at + APPENDED_BLOCKS), into);
        cost += (into.length - begin) / PART_BYTES;
        if (cost >= STEP_BLOCKS) {
          yield;
          cost = 0;
        }
      }
      cost += TABLE_COST;
    }
    // Slices with few dirty blocks may share a turn otherwise.
    if (cost > 0) yield;
    return count;
  }

  /** The most bytes of the dirty section of a slice. */
  sectionBytes(slice: number): number {
    let blocks = 0;
    for (const table of this.#tablesOf(slice)) blocks += this.#blocksOfTable(table);
    // Each block of other slices has a part at least.
    const parts = blocks === 0 ? 0 : this.partCount - (this.blockCount - blocks);
    return blocks * ENTRY_BYTES + parts * PART_BYTES;
  }

  #append(blocks: Float64Array, into: GrowingBuffer): number {
    let section = wordsOf(into, blocks.length * 4);
    let next = 0;
    let found = 0;
    for (let i = 0; i < blocks.length; i++) {
      const { count, at } = this.#find(blocks[i]!);
      if (count === 0) continue;
      if (next + 2 + count * 2 > section.length) {
        into.truncate(into.length - (section.length - next) * 4);
        section = wordsOf(into, (blocks.length - i) * 4 + count * 2);
        next = 0;
      }
      const { words } = this.#core;
      section[next++] = blocks[i]! % SLICE_BLOCKS;
      section[next++] = count;
      for (let word = 0; word < count * 2; word++) section[next++] = words[at + word]!;
      found++;
    }
    into.truncate(into.length - (section.length - next) * 4);
    return found;
  }

  /**
   * Adds the dirty section of a slice that has no dirty blocks yet, in steps after which the event loop may turn.
   *
   * @throws {@link CodError} COD_CORRUPT if {@link serializing} cannot have written the section. A part of it is added.
   */
  *loading(slice: number, section: Uint8Array): Generator<void, void, undefined> {
    const view = new DataView(section.buffer, section.byteOffset, section.byteLength);
    const first = slice * SLICE_BLOCKS;
    const blocks = blocksOfSlice(this.#geometry, slice);
    let at = 0;
    let next = 0;
    const refuse = (what: string): CodError =>
      new CodError('COD_CORRUPT', `dirty section of slice ${slice}, byte ${at} of ${section.length}: ${what}`, {
        details: { slice, offset: at, length: section.length },
      });
    for (let step = 0; at < section.length; ) {
      if (at - step >= STEP_BLOCKS * PART_BYTES) {
        yield;
        step = at;
      }
      if (section.length - at < ENTRY_BYTES) throw refuse('a block entry is cut short');
      const block = view.getUint32(at, true);
      const count = view.getUint32(at + 4, true);
      if (block < next || block >= blocks)
        throw refuse(`block ${block} of the slice is not within [${next}, ${blocks})`);
      if (count === 0 || count > MAX_BLOCK_PARTS)
        throw refuse(`block ${block} of the slice has ${count} parts, not 1 to ${MAX_BLOCK_PARTS}`);
      if (count * PART_BYTES > section.length - at - ENTRY_BYTES)
        throw refuse(`block ${block} of the slice has ${count} parts, but the section ends before them`);
      const whole = bytesOfBlock(this.#geometry, first + block);
      at += ENTRY_BYTES;
      let before = -1;
      for (let i = 0; i < count; i++, at += PART_BYTES) {
        const start = view.getUint32(at, true);
        const end = view.getUint32(at + 4, true);
        if (start <= before || start >= end || end > whole || end - start === whole) {
          throw refuse(
            `part [${start}, ${end}) of block ${block} of the slice (${whole} bytes) is invalid: ` +
              `the previous one ends at ${before}`,
          );
        }
        this.#core.exports.dirtyAdd(this.handle, first + block, start, end, 0);
        before = end;
      }
      next = block + 1;
    }
  }

  /** Moves the map to the memory of another core, in steps after which the event loop may turn. */
  *moving(core: Core): Generator<void, DirtyMap, undefined> {
    const moved = new DirtyMap(core, this.#geometry);
    const section = new GrowingBuffer();
    for (let slice = 0; slice < sliceCount(this.#geometry); slice++) {
      section.truncate(0);
      yield* this.serializing(slice, section);
      yield* moved.loading(slice, section.bytes);
    }
    yield* this.disposing();
    return moved;
  }

  /** Returns the memory to the core, in steps after which the event loop may turn. The map cannot be used meanwhile. */
  *disposing(): Generator<void, void, undefined> {
    if (this.#handle === 0 || this.#core.failure) return;
    for (const table of this.#tables(0, this.#geometry.blockCount)) {
      this.#core.exports.dirtyVisit(this.handle, table * TABLE_BLOCKS, (table + 1) * TABLE_BLOCKS, 1);
      yield;
    }
    this.dispose();
  }

  /** As {@link disposing}, at once. Idempotent. */
  dispose(): void {
    if (this.#handle !== 0 && !this.#core.failure) this.#core.exports.dirtyClose(this.#handle);
    this.#handle = 0;
  }

  /** The number of parts of a block, and the index of the first part in the words of the core. */
  #find(block: number): { count: number; at: number } {
    const slot = this.#core.exports.dirtyFind(this.handle, block) >>> 2;
    const { words } = this.#core;
    if (words[slot] === 0 && words[slot + 1] === 0) return { count: 0, at: 0 };
    const high = words[slot + 3]!;
    return high >= LISTED ? { count: high - LISTED, at: words[slot + 2]! >>> 2 } : { count: 1, at: slot + 2 };
  }
}

/** Adds so many u32 of undefined content. */
function wordsOf(into: GrowingBuffer, count: number): Uint32Array {
  const room = into.extend(count * 4);
  return new Uint32Array(room.buffer, room.byteOffset, count);
}

/** The number of bits [start, end) that are set. */
function countBits(words: Uint32Array, start: number, end: number): number {
  const first = start >>> 5;
  const last = (end - 1) >>> 5;
  const head = 0xffff_ffff << start;
  const tail = 0xffff_ffff >>> (31 - ((end - 1) & 31));
  if (first === last) return bitsOf(words[first]! & head & tail);
  let count = bitsOf(words[first]! & head) + bitsOf(words[last]! & tail);
  for (let index = first + 1; index < last; index++) count += bitsOf(words[index]!);
  return count;
}

function bitsOf(word: number): number {
  if (word === 0) return 0;
  const pairs = word - ((word >>> 1) & 0x5555_5555);
  const fours = (pairs & 0x3333_3333) + ((pairs >>> 2) & 0x3333_3333);
  return Math.imul((fours + (fours >>> 4)) & 0x0f0f_0f0f, 0x0101_0101) >>> 24;
}
