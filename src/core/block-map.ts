/**
 * The set of synced blocks of a device, on roaring-wasm: one bitmap for each shard of 2^32 blocks.
 *
 * Invariants:
 * - Every argument is checked here, since roaring-wasm wraps values silently.
 * - Bytes from outside are checked before roaring-wasm reads them.
 * - `count` is kept here, since roaring-wasm counts all values again after each change.
 * - Blocks are only ever added.
 * - Each container of a shard that is marked canonical has the form that the format requires.
 */
import { RoaringBitmap32, RoaringUint8Array, roaringLibraryInitialize } from 'roaring-wasm/browser';
import { CodError } from '../errors.ts';
import { concat } from './concat.ts';
import { checkBlock, checkBlocks, type Geometry } from './geometry.ts';
import { CONTAINER_BLOCKS, FORMAT1_SHARD_BLOCKS, padded, SHARD_BLOCKS } from './layout.ts';
import { arraysWrittenAsRuns, maximumOf, parsePortable } from './portable.ts';
import { SyncedBlocks } from './synced-blocks.ts';

/** The most values of one call: `addMany` of roaring-wasm traps if its heap grows while it adds 983,041 values. */
const CHUNK_VALUES = 2 ** 19;

/**
 * After this many calls of `add`, each container is converted to its best form. roaring-wasm keeps a container of runs
 * however scattered the added blocks are, and each addition moves half of the runs (25 µs with 30,000 runs). The
 * conversion takes 0.6 ms for a map of 1 TiB.
 */
const TIDY_ADDS = 2048;

/** A maximal run of blocks of one state within the requested range. */
export interface Extent {
  readonly start: number;
  readonly end: number;
  readonly synced: boolean;
}

/** Resolves when roaring-wasm is ready, which takes one turn of the event loop or a few. */
export function bitmapsReady(): Promise<unknown> {
  return roaringLibraryInitialize();
}

export class BlockMap {
  readonly #geometry: Geometry;
  readonly #shards: RoaringBitmap32[];
  /** For each shard, whether it is unchanged since the last {@link serialize}: its containers have their best form. */
  readonly #canonical: boolean[];
  #count = 0;
  #untidyAdds = 0;
  /** The buffer of each serialized shard, for reuse: zeroing a new buffer takes as long as writing it. */
  readonly #written: (RoaringUint8Array | undefined)[] = [];

  /** Creates an empty map when roaring-wasm is ready. */
  static async open(geometry: Geometry): Promise<BlockMap> {
    await bitmapsReady();
    return new BlockMap(geometry);
  }

  private constructor(geometry: Geometry) {
    this.#geometry = geometry;
    this.#shards = Array.from({ length: Math.ceil(geometry.blockCount / SHARD_BLOCKS) }, () => new RoaringBitmap32());
    this.#canonical = this.#shards.map(() => false);
  }

  /** Number of synced blocks. */
  get count(): number {
    return this.#count;
  }

  has(block: number): boolean {
    checkBlock(this.#geometry, block);
    return this.#shard(block).has(block % SHARD_BLOCKS);
  }

  /** Whether all of [start, end) is synced; true if it is empty. */
  hasRange(start: number, end: number): boolean {
    // A lookup of one block takes a fraction of the time of a range.
    if (end - start === 1) return this.has(start);
    checkBlocks(this.#geometry, start, end);
    for (let at = start; at < end; ) {
      const stop = shardEnd(at, end);
      if (!this.#shard(at).hasRange(at % SHARD_BLOCKS, inShard(at, stop))) return false;
      at = stop;
    }
    return true;
  }

  /** Whether any block of [start, end) is synced. */
  hasAny(start: number, end: number): boolean {
    if (end - start === 1) return this.has(start);
    checkBlocks(this.#geometry, start, end);
    for (let at = start; at < end; ) {
      const stop = shardEnd(at, end);
      // intersectsWithRange of roaring-wasm 1.1.0 ignores the last value of the range.
      if (this.#shard(at).rangeCardinality(at % SHARD_BLOCKS, inShard(at, stop)) > 0) return true;
      at = stop;
    }
    return false;
  }

  /** Marks the blocks [start, end) synced. */
  add(start: number, end: number): void {
    checkBlocks(this.#geometry, start, end);
    for (let at = start; at < end; ) {
      const stop = shardEnd(at, end);
      const shard = this.#shard(at);
      const from = at % SHARD_BLOCKS;
      const to = inShard(at, stop);
      this.#canonical[Math.floor(at / SHARD_BLOCKS)] = false;
      if (to - from === 1) {
        if (shard.tryAdd(from)) this.#count++;
      } else {
        this.#count += to - from - shard.rangeCardinality(from, to);
        shard.addRange(from, to);
      }
      if (++this.#untidyAdds >= TIDY_ADDS) {
        this.#untidyAdds = 0;
        shard.runOptimize();
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

  /**
   * Adds the blocks of a bitmap in portable Roaring format. Its value 0 is the first block of the shard.
   *
   * @throws {@link CodError} COD_CORRUPT if the bytes are not a bitmap or exceed the device. Nothing is added.
   */
  union(shardIndex: number, portableBytes: Uint8Array): void {
    if (!Number.isInteger(shardIndex) || shardIndex < 0 || shardIndex >= this.#shards.length) {
      throw new RangeError(`shard ${shardIndex} is not within the map (${this.#shards.length} shards)`);
    }
    const bitmap = parsePortable(portableBytes, `bitmap ${shardIndex}`);
    const blocks = this.#geometry.blockCount - shardIndex * SHARD_BLOCKS;
    const maximum = maximumOf(portableBytes, bitmap);
    if (maximum >= blocks) {
      throw new CodError(
        'COD_CORRUPT',
        `bitmap ${shardIndex}: block ${maximum} is beyond its shard (${blocks} blocks)`,
        {
          details: { shard: shardIndex, value: maximum, blocks },
        },
      );
    }
    this.#merge(shardIndex, portableBytes, bitmap.cardinality, bitmap.touching);
  }

  /** Like {@link union}, for bytes that the core has written: they are not checked. */
  unionTrusted(shardIndex: number, portableBytes: Uint8Array): void {
    this.#merge(shardIndex, portableBytes, undefined, false);
  }

  /**
   * Serializes the section of bitmaps of a checkpoint of format 2. Equal sets have equal bytes.
   *
   * @returns pieces that are views of the heap of roaring-wasm, valid until roaring-wasm is used again
   */
  serialize(): Uint8Array[] {
    for (const [index, shard] of this.#shards.entries()) {
      if (!this.#canonical[index]) shard.runOptimize();
      this.#write(index);
      if (this.#canonical[index]) continue;
      const wasteful = arraysWrittenAsRuns(this.#written[index]!.asTypedArray());
      for (const values of wasteful) {
        // Values that are added to an empty container become an array.
        const first = values[0]! - (values[0]! % CONTAINER_BLOCKS);
        shard.removeRange(first, first + CONTAINER_BLOCKS);
        shard.addMany(values);
      }
      if (wasteful.length > 0) this.#write(index);
      this.#canonical[index] = true;
    }
    // Views are taken after all shards are written, since the heap may move meanwhile.
    return this.#written.flatMap((written) => {
      const length = new Uint8Array(8);
      new DataView(length.buffer).setBigUint64(0, BigInt(written!.byteLength), true);
      return [length, written!.asTypedArray(), new Uint8Array(padded(written!.byteLength) - written!.byteLength)];
    });
  }

  /**
   * Replaces the contents by a section of bitmaps of format 2.
   *
   * @throws {@link CodError} COD_CORRUPT if the section is damaged or of another device. The map is empty then.
   */
  load(section: Uint8Array): void {
    this.#clear();
    try {
      const view = new DataView(section.buffer, section.byteOffset, section.byteLength);
      let at = 0;
      for (let shard = 0; shard < this.#shards.length; shard++) {
        if (section.length - at < 8)
          throw corruptSection(at, `bitmap ${shard} of ${this.#shards.length} is missing`, section);
        const length = Number(view.getBigUint64(at, true));
        if (length > section.length - at - 8)
          throw corruptSection(
            at,
            `bitmap ${shard} has ${length} bytes, but ${section.length - at - 8} are left`,
            section,
          );
        this.union(shard, section.subarray(at + 8, at + 8 + length));
        const stored = padded(length);
        if (8 + stored > section.length - at)
          throw corruptSection(at, `the padding of bitmap ${shard} is missing`, section);
        for (let i = length; i < stored; i++) {
          if (section[at + 8 + i] !== 0)
            throw corruptSection(at + 8 + i, `the padding of bitmap ${shard} is not zero`, section);
        }
        at += 8 + stored;
      }
      if (at !== section.length)
        throw corruptSection(at, `${section.length - at} extra bytes after the last bitmap`, section);
    } catch (error) {
      this.#clear();
      throw error;
    }
  }

  /**
   * Adds the blocks of a bitmap of a checkpoint of format 1, which starts at block `bitmapIndex` × (2^32 - 1).
   * Blocks beyond the device are dropped, since format 1 counts one block too many.
   *
   * @throws {@link CodError} COD_CORRUPT if the bytes are not a bitmap. Nothing is added.
   */
  loadFormat1(bitmapIndex: number, portableBytes: Uint8Array): void {
    if (!Number.isInteger(bitmapIndex) || bitmapIndex < 0)
      throw new RangeError(`bitmap index ${bitmapIndex} is not an integer of at least 0`);
    const bitmap = parsePortable(portableBytes, `bitmap ${bitmapIndex}`);
    const base = bitmapIndex * FORMAT1_SHARD_BLOCKS;
    if (bitmap.cardinality === 0 || base >= this.#geometry.blockCount) return;
    const values = RoaringBitmap32.deserialize(portableBytes, 'portable');
    try {
      // Bitmap i begins i blocks before the end of shard i - 1, so a moved copy of it is added to each.
      this.#take(bitmapIndex, values, -bitmapIndex);
      if (bitmapIndex > 0) this.#take(bitmapIndex - 1, values, SHARD_BLOCKS - bitmapIndex);
    } finally {
      values.dispose();
    }
  }

  /** A copy of the set, which later changes of the map do not affect. */
  snapshot(): SyncedBlocks {
    return new SyncedBlocks(this.#geometry, concat(...this.serialize()));
  }

  /** The synced blocks among `blocks`, which must ascend. Faster than {@link has} for each block. */
  filter(blocks: Float64Array): number[] {
    const found: number[] = [];
    for (let at = 0; at < blocks.length; ) {
      const index = Math.floor(blocks[at]! / SHARD_BLOCKS);
      const shard = this.#shards[index]!;
      const values: number[] = [];
      for (
        ;
        at < blocks.length && values.length < CHUNK_VALUES && Math.floor(blocks[at]! / SHARD_BLOCKS) === index;
        at++
      ) {
        values.push(blocks[at]! % SHARD_BLOCKS);
      }
      const asked = new RoaringBitmap32(Uint32Array.from(values));
      asked.andInPlace(shard);
      for (const value of asked.toUint32Array()) found.push(index * SHARD_BLOCKS + value);
      asked.dispose();
    }
    return found;
  }

  /** Frees the memory of roaring-wasm. The map cannot be used afterwards. */
  dispose(): void {
    for (const shard of this.#shards) shard.dispose();
    for (const written of this.#written) written?.dispose();
  }

  #shard(block: number): RoaringBitmap32 {
    return this.#shards[Math.floor(block / SHARD_BLOCKS)]!;
  }

  #merge(shardIndex: number, bytes: Uint8Array, cardinality: number | undefined, touching: boolean): void {
    const shard = this.#shards[shardIndex]!;
    this.#canonical[shardIndex] = false;
    if (shard.isEmpty) {
      shard.deserialize(bytes, 'portable');
      if (touching) normalize(shard);
      this.#count += cardinality ?? shard.size;
      return;
    }
    const other = RoaringBitmap32.deserialize(bytes, 'portable');
    if (touching) normalize(other);
    this.#or(shard, other);
    other.dispose();
  }

  #or(shard: RoaringBitmap32, other: RoaringBitmap32): void {
    this.#count -= shard.size;
    shard.orInPlace(other);
    this.#count += shard.size;
  }

  #take(shardIndex: number, values: RoaringBitmap32, offset: number): void {
    const shard = this.#shards[shardIndex];
    if (!shard) return;
    const moved = RoaringBitmap32.addOffset(values, offset);
    try {
      const blocks = this.#geometry.blockCount - shardIndex * SHARD_BLOCKS;
      if (blocks < SHARD_BLOCKS) moved.removeRange(blocks, SHARD_BLOCKS);
      normalize(moved);
      this.#canonical[shardIndex] = false;
      this.#or(shard, moved);
    } finally {
      moved.dispose();
    }
  }

  #clear(): void {
    for (const shard of this.#shards) shard.clear();
    this.#canonical.fill(false);
    this.#count = 0;
  }

  /** Serializes a shard into its kept buffer, or into a new buffer if the size has changed. */
  #write(index: number): void {
    const shard = this.#shards[index]!;
    const kept = this.#written[index];
    if (kept?.byteLength === shard.getSerializationSizeInBytes('portable')) {
      shard.serialize('portable', kept);
      return;
    }
    kept?.dispose();
    this.#written[index] = undefined;
    this.#written[index] = shard.serialize('portable', RoaringUint8Array);
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

/** The end of the shard of `block`, at most `limit`. */
function shardEnd(block: number, limit: number): number {
  return Math.min(limit, (Math.floor(block / SHARD_BLOCKS) + 1) * SHARD_BLOCKS);
}

/** `end` relative to the shard of `start`; 2^32 at the end of the shard. */
function inShard(start: number, end: number): number {
  return end - Math.floor(start / SHARD_BLOCKS) * SHARD_BLOCKS;
}

/** Joins runs that touch: `runOptimize` builds maximal runs from the other forms. */
function normalize(bitmap: RoaringBitmap32): void {
  bitmap.removeRunCompression();
  bitmap.runOptimize();
}

function corruptSection(offset: number, what: string, section: Uint8Array): CodError {
  return new CodError('COD_CORRUPT', `bitmap section, byte ${offset} of ${section.length}: ${what}`, {
    details: { offset, length: section.length },
  });
}
