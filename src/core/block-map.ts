/**
 * A set of blocks of a device, on roaring-wasm: one bitmap for each slice of 2^24 blocks. Docstrings call the blocks of
 * the set synced, which is what most sets are about.
 *
 * Invariants:
 * - Every argument is checked here, since roaring-wasm wraps values silently.
 * - Bytes from outside are checked before roaring-wasm reads them.
 * - `count` is kept here, since roaring-wasm counts all values again after each change.
 * - Blocks are only ever added, except by {@link retaining}. A call that fails for lack of memory, COD_NO_MEMORY, may
 *   have added a part of its blocks: the owner must not use the map any more.
 * - Each container of a slice that is marked canonical has the form that the format requires.
 */
import { RoaringBitmap32 } from 'roaring-wasm/browser';
import { CodError } from '../errors.ts';
import { allocating, bitmapsReady, checkHeap, checkRoom, noMemory } from './bitmap-heap.ts';
import { blocksOfSlice, checkBlock, checkBlocks, type Geometry, sliceCount } from './geometry.ts';
import { GrowingBuffer } from './growing-buffer.ts';
import { CONTAINER_BLOCKS, SLICE_BLOCKS } from './layout.ts';
import { arraysWrittenAsRuns, maximumOf, parsePortable, runsOf } from './portable.ts';

/** The most values of one call: `addMany` of roaring-wasm traps if its heap grows while it adds 983,041 values. */
const CHUNK_VALUES = 2 ** 19;

/**
 * After this many additions to a slice, each of its containers is converted to its best form. roaring-wasm keeps a
 * container of runs however scattered the added blocks are, and each addition moves half of the runs (25 µs with 30,000
 * runs). The conversion takes 0.2 ms.
 */
const TIDY_ADDS = 2048;

/** Additions after which room is looked for again: each takes 16 KiB at most. */
const ADDS_IN_ROOM = 256;
let addsInRoom = 0;

/** A maximal run of blocks of one state within the requested range. */
export interface Extent {
  readonly start: number;
  readonly end: number;
  readonly synced: boolean;
}

export class BlockMap {
  readonly #geometry: Geometry;
  readonly #slices: RoaringBitmap32[];
  /** For each slice, whether it is unchanged since {@link serialize}: its containers have their best form. */
  readonly #canonical: boolean[];
  /** For each slice, the additions since its containers were converted. */
  readonly #untidyAdds: number[];
  #count = 0;

  /** Creates an empty map when roaring-wasm is ready. */
  static async open(geometry: Geometry): Promise<BlockMap> {
    await bitmapsReady();
    return new BlockMap(geometry);
  }

  private constructor(geometry: Geometry) {
    this.#geometry = geometry;
    this.#slices = Array.from({ length: sliceCount(geometry) }, () => allocating(() => new RoaringBitmap32()));
    this.#canonical = this.#slices.map(() => false);
    this.#untidyAdds = this.#slices.map(() => 0);
  }

  /** Number of synced blocks. */
  get count(): number {
    return this.#count;
  }

  has(block: number): boolean {
    checkBlock(this.#geometry, block);
    return this.#slice(block).has(block % SLICE_BLOCKS);
  }

  /** Whether all of [start, end) is synced; true if it is empty. */
  hasRange(start: number, end: number): boolean {
    // A lookup of one block takes a fraction of the time of a range.
    if (end - start === 1) return this.has(start);
    checkBlocks(this.#geometry, start, end);
    for (let at = start; at < end; ) {
      const stop = sliceEnd(at, end);
      if (!this.#slice(at).hasRange(at % SLICE_BLOCKS, inSlice(at, stop))) return false;
      at = stop;
    }
    return true;
  }

  /** Whether any block of [start, end) is synced. */
  hasAny(start: number, end: number): boolean {
    if (end - start === 1) return this.has(start);
    checkBlocks(this.#geometry, start, end);
    for (let at = start; at < end; ) {
      const stop = sliceEnd(at, end);
      // intersectsWithRange of roaring-wasm 1.1.0 ignores the last value of the range.
      if (this.#slice(at).rangeCardinality(at % SLICE_BLOCKS, inSlice(at, stop)) > 0) return true;
      at = stop;
    }
    return false;
  }

  /** Marks the blocks [start, end) synced. */
  add(start: number, end: number): void {
    checkBlocks(this.#geometry, start, end);
    checkHeap();
    for (let at = start; at < end; ) {
      const stop = sliceEnd(at, end);
      const index = Math.floor(at / SLICE_BLOCKS);
      const slice = this.#slices[index]!;
      const from = at % SLICE_BLOCKS;
      const to = inSlice(at, stop);
      if (--addsInRoom < 0) {
        checkRoom();
        addsInRoom = ADDS_IN_ROOM;
      }
      this.#canonical[index] = false;
      try {
        if (to - from === 1) {
          if (slice.tryAdd(from)) this.#count++;
        } else {
          const added = to - from - slice.rangeCardinality(from, to);
          slice.addRange(from, to);
          this.#count += added;
        }
        if (++this.#untidyAdds[index]! >= TIDY_ADDS) {
          this.#untidyAdds[index] = 0;
          slice.runOptimize();
        }
      } catch (error) {
        throw noMemory(error);
      }
      at = stop;
    }
  }

  /** The first unsynced block of [from, limit), or `limit` if there is none. */
  nextUnsynced(from: number, limit: number = this.#geometry.blockCount): number {
    return this.#gallop(from, limit, (start, end) => this.hasRange(start, end));
  }

  /** The first synced block of [from, limit), or `limit` if there is none. */
  nextSynced(from: number, limit: number = this.#geometry.blockCount): number {
    return this.#gallop(from, limit, (start, end) => !this.hasAny(start, end));
  }

  /** The maximal runs of either state within [start, end), ascending. The iterator looks up one run at a time. */
  *extents(start: number, end: number): Generator<Extent, void, undefined> {
    checkBlocks(this.#geometry, start, end);
    for (let at = start; at < end; ) {
      const synced = this.has(at);
      const stop = synced ? this.nextUnsynced(at, end) : this.nextSynced(at, end);
      yield { start: at, end: stop, synced };
      at = stop;
    }
  }

  /** Yields the maximal runs of synced blocks from the slice of `from` on, ascending, as [start, end). */
  *runs(from: number = 0): Generator<[start: number, end: number], void, undefined> {
    const buffer = new GrowingBuffer();
    let pending: [number, number] | undefined;
    for (let index = Math.floor(from / SLICE_BLOCKS); index < this.#slices.length; index++) {
      checkHeap();
      const slice = this.#slices[index]!;
      if (slice.isEmpty) continue;
      buffer.truncate(0);
      // As it is: to bring a slice into its canonical form changes it, and may fail half way for lack of memory.
      write(slice, buffer);
      const base = index * SLICE_BLOCKS;
      for (const [start, end] of runsOf(buffer.bytes, parsePortable(buffer.bytes, `bitmap ${index}`))) {
        if (pending?.[1] === base + start) pending[1] = base + end;
        else {
          if (pending) yield pending;
          pending = [base + start, base + end];
        }
      }
    }
    if (pending) yield pending;
  }

  /** Adds to `counts` the number of synced blocks in each part of [start, end). A part begins at its `edge`. */
  countParts(counts: Float64Array, start: number, end: number, edge: (part: number) => number): void {
    let part = 0;
    for (const [from, to] of this.runs(start)) {
      if (from >= end) break;
      for (let at = Math.max(from, start); at < Math.min(to, end); ) {
        while (edge(part + 1) <= at) part++;
        const stop = Math.min(to, edge(part + 1));
        counts[part]! += stop - at;
        at = stop;
      }
    }
  }

  /**
   * Adds the blocks of a bitmap in portable Roaring format, in two steps between which the event loop may turn. The
   * bitmap's value 0 is the first block of the slice.
   *
   * @throws {@link CodError} COD_CORRUPT if the bytes are not a bitmap or exceed the slice. Nothing is added.
   */
  *uniting(sliceIndex: number, portableBytes: Uint8Array): Generator<void, void, undefined> {
    if (!Number.isInteger(sliceIndex) || sliceIndex < 0 || sliceIndex >= this.#slices.length) {
      throw new RangeError(`slice ${sliceIndex} is not within the map (${this.#slices.length} slices)`);
    }
    const bitmap = parsePortable(portableBytes, `bitmap ${sliceIndex}`);
    const blocks = blocksOfSlice(this.#geometry, sliceIndex);
    const maximum = maximumOf(portableBytes, bitmap);
    if (maximum >= blocks) {
      throw new CodError(
        'COD_CORRUPT',
        `bitmap ${sliceIndex}: block ${maximum} is beyond its slice (${blocks} blocks)`,
        {
          details: { slice: sliceIndex, value: maximum, blocks },
        },
      );
    }
    yield;
    this.#merge(sliceIndex, portableBytes, bitmap.touching);
  }

  /** As {@link uniting}, at once, for bytes that this program has written: they are not checked. */
  unionTrusted(sliceIndex: number, portableBytes: Uint8Array): void {
    this.#merge(sliceIndex, portableBytes, false);
  }

  /** Adds the blocks of a slice of another set of this device. */
  unite(sliceIndex: number, other: BlockMap): void {
    allocating(() => {
      const blocks = other.#slices[sliceIndex]!.clone();
      this.#or(sliceIndex, blocks);
      blocks.dispose();
    });
  }

  /**
   * Drops the blocks of a slice that are neither in `other` nor in one of `lists`, in steps after which the event loop
   * may turn. A list has blocks of the slice, at most 2^16 of them.
   */
  *retaining(sliceIndex: number, other: BlockMap, lists: Iterable<Float64Array>): Generator<void, void, undefined> {
    checkHeap();
    const slice = this.#slices[sliceIndex]!;
    if (slice.isSubset(other.#slices[sliceIndex]!)) return;
    const kept = allocating(() => other.#slices[sliceIndex]!.clone());
    try {
      for (const blocks of lists) {
        allocating(() => kept.addMany(Uint32Array.from(blocks, (block) => block % SLICE_BLOCKS)));
        yield;
      }
      this.#count -= slice.size;
      allocating(() => slice.andInPlace(kept));
      this.#count += slice.size;
      this.#canonical[sliceIndex] = false;
    } finally {
      kept.dispose();
    }
  }

  /** The number of synced blocks of a slice. */
  countOf(sliceIndex: number): number {
    checkHeap();
    return this.#slices[sliceIndex]!.size;
  }

  /**
   * Appends a slice to `into` in portable Roaring format; nothing if the slice is empty. Equal sets have equal bytes.
   *
   * @returns the number of bytes
   */
  serialize(sliceIndex: number, into: GrowingBuffer): number {
    checkHeap();
    const slice = this.#slices[sliceIndex]!;
    if (slice.isEmpty) return 0;
    const isCanonical = this.#canonical[sliceIndex]!;
    if (!isCanonical) allocating(() => slice.runOptimize());
    const start = into.length;
    write(slice, into);
    if (!isCanonical) {
      const wasteful = arraysWrittenAsRuns(into.bytes.subarray(start));
      for (const values of wasteful) {
        // Values that are added to an empty container become an array.
        const first = values[0]! - (values[0]! % CONTAINER_BLOCKS);
        allocating(() => {
          slice.removeRange(first, first + CONTAINER_BLOCKS);
          slice.addMany(values);
        });
      }
      if (wasteful.length > 0) {
        into.truncate(start);
        write(slice, into);
      }
      this.#canonical[sliceIndex] = true;
    }
    return into.length - start;
  }

  /** The synced blocks among `blocks`, which must ascend. Faster than {@link has} for each block. */
  filter(blocks: Float64Array): number[] {
    const found: number[] = [];
    for (let at = 0; at < blocks.length; ) {
      const index = Math.floor(blocks[at]! / SLICE_BLOCKS);
      const slice = this.#slices[index]!;
      const values: number[] = [];
      for (
        ;
        at < blocks.length && values.length < CHUNK_VALUES && Math.floor(blocks[at]! / SLICE_BLOCKS) === index;
        at++
      ) {
        values.push(blocks[at]! % SLICE_BLOCKS);
      }
      allocating(() => {
        const asked = new RoaringBitmap32(Uint32Array.from(values));
        asked.andInPlace(slice);
        for (const value of asked.toUint32Array()) found.push(index * SLICE_BLOCKS + value);
        asked.dispose();
      });
    }
    return found;
  }

  /** Frees the memory of roaring-wasm. The map cannot be used afterwards. */
  dispose(): void {
    for (const slice of this.#slices) {
      try {
        slice.dispose();
      } catch {
        // A call that failed for lack of memory has left it broken. Its memory is lost.
      }
    }
  }

  #slice(block: number): RoaringBitmap32 {
    checkHeap();
    return this.#slices[Math.floor(block / SLICE_BLOCKS)]!;
  }

  #merge(sliceIndex: number, bytes: Uint8Array, touching: boolean): void {
    allocating(() => {
      const other = RoaringBitmap32.deserialize(bytes, 'portable');
      try {
        if (touching) normalize(other);
        this.#or(sliceIndex, other);
      } finally {
        other.dispose();
      }
    });
  }

  #or(sliceIndex: number, other: RoaringBitmap32): void {
    const slice = this.#slices[sliceIndex]!;
    const before = slice.size;
    this.#canonical[sliceIndex] = false;
    if (slice.isEmpty) RoaringBitmap32.swap(slice, other);
    else slice.orInPlace(other);
    this.#count += slice.size - before;
  }

  /** The first block of [from, limit) at which `uniform` fails, or `limit`; `uniform` must hold for an empty range. */
  #gallop(from: number, limit: number, uniform: (start: number, end: number) => boolean): number {
    checkBlocks(this.#geometry, from, limit);
    let step = 1;
    let low = from;
    while (low < limit) {
      const high = Math.min(low + step, limit);
      if (!uniform(low, high)) {
        // The answer is in [low, high).
        let end = high;
        while (end - low > 1) {
          const middle = low + Math.floor((end - low) / 2);
          if (uniform(low, middle)) low = middle;
          else end = middle;
        }
        return low;
      }
      low = high;
      step *= 4;
    }
    return limit;
  }
}

/** The end of the slice of `block`, at most `limit`. */
function sliceEnd(block: number, limit: number): number {
  return Math.min(limit, (Math.floor(block / SLICE_BLOCKS) + 1) * SLICE_BLOCKS);
}

/** `end` relative to the slice of `start`; 2^24 at the end of the slice. */
function inSlice(start: number, end: number): number {
  return end - Math.floor(start / SLICE_BLOCKS) * SLICE_BLOCKS;
}

function write(slice: RoaringBitmap32, into: GrowingBuffer): void {
  allocating(() => slice.serialize('portable', into.extend(slice.getSerializationSizeInBytes('portable'))));
}

/** Joins runs that touch: `runOptimize` builds maximal runs from the other forms. */
function normalize(bitmap: RoaringBitmap32): void {
  bitmap.removeRunCompression();
  bitmap.runOptimize();
}
