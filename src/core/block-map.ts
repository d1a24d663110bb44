/**
 * The set of synced blocks of a device, on roaring-wasm: one bitmap for each shard of 2^32 blocks.
 *
 * Invariants: every argument is checked here, since roaring-wasm wraps silently; bytes from outside are checked before it
 * sees them; `count` is kept, since roaring-wasm counts anew after each change; blocks are only ever added; a shard that is
 * marked canonical has each container in the form that the format wants.
 */
import { RoaringBitmap32, RoaringUint8Array, roaringLibraryInitialize } from 'roaring-wasm/browser';
import { CodError } from '../errors.ts';
import { concat } from './concat.ts';
import { checkBlock, checkBlocks, type Geometry } from './geometry.ts';
import { arraysWrittenAsRuns, maximumOf, type PortableBitmap, parsePortable, portableHas, runsOf } from './portable.ts';

/** Blocks of one bitmap. */
export const SHARD_BLOCKS: number = 2 ** 32;
/** Blocks of one of its containers. */
const CONTAINER_BLOCKS = 2 ** 16;
/** Blocks of one bitmap of format 1, which is one less. */
const FORMAT1_SHARD_BLOCKS = 2 ** 32 - 1;
/** So many values at once are safe: roaring-wasm's `addMany` traps when its heap grows in the middle of 983,041 of them. */
const CHUNK_VALUES = 2 ** 19;

/**
 * After so many calls of `add` containers are put into the form that fits them: roaring-wasm leaves one of runs as it is, however scattered the blocks that come to it,
 * and moves half of it at each (25 µs with 30,000 runs). For a map of 1 TiB it takes 0.6 ms.
 */
const TIDY_ADDS = 2048;

/** A maximal run of blocks of one state within a range that was asked for. */
export interface Extent {
  readonly start: number;
  readonly end: number;
  readonly synced: boolean;
}

export class BlockMap {
  readonly #geometry: Geometry;
  readonly #shards: RoaringBitmap32[];
  /** For each shard, whether it is as the last {@link serialize} left it: its containers need not be looked at again. */
  readonly #canonical: boolean[];
  #count = 0;
  #untidyAdds = 0;
  /** Each shard as it was serialized last: a new one is made zeros first, which takes as long as writing it. */
  readonly #written: (RoaringUint8Array | undefined)[] = [];

  /** An empty map, once roaring-wasm is ready. */
  static async open(geometry: Geometry): Promise<BlockMap> {
    await roaringLibraryInitialize();
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
    // A lookup of one block takes a fraction of a range's time.
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
      // roaring-wasm 1.1.0: intersectsWithRange leaves the range's last value out.
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

  /** The first unsynced block of [from, limit), or `limit`, which is the number of blocks unless given. */
  nextUnsynced(from: number, limit: number = this.#geometry.blockCount): number {
    return this.#gallop(from, limit, (start, end) => this.hasRange(start, end));
  }

  /** The first synced block of [from, limit), or `limit`, which is the number of blocks unless given. */
  nextSynced(from: number, limit: number = this.#geometry.blockCount): number {
    return this.#gallop(from, limit, (start, end) => !this.hasAny(start, end));
  }

  /** The maximal runs of either state within [start, end), ascending; each is looked up when it is asked for. */
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
   * Adds the blocks of a bitmap in portable Roaring format; its value 0 is the first block of the shard.
   *
   * @throws {@link CodError} COD_CORRUPT if the bytes are no such bitmap, or hold blocks beyond the device: nothing was added
   */
  union(shardIndex: number, portableBytes: Uint8Array): void {
    if (!Number.isInteger(shardIndex) || shardIndex < 0 || shardIndex >= this.#shards.length) {
      throw new RangeError(`shard ${shardIndex} is not one of ${this.#shards.length}`);
    }
    const bitmap = parsePortable(portableBytes, `bitmap ${shardIndex}`);
    const blocks = this.#geometry.blockCount - shardIndex * SHARD_BLOCKS;
    const maximum = maximumOf(portableBytes, bitmap);
    if (maximum >= blocks) {
      throw new CodError(
        'COD_CORRUPT',
        `bitmap ${shardIndex}: value ${maximum} is beyond the ${blocks} blocks of its shard`,
        {
          details: { shard: shardIndex, value: maximum, blocks },
        },
      );
    }
    this.#merge(shardIndex, portableBytes, bitmap.cardinality, bitmap.touching);
  }

  /** Like {@link union}, for bytes that the core itself has just made. */
  unionTrusted(shardIndex: number, portableBytes: Uint8Array): void {
    this.#merge(shardIndex, portableBytes, undefined, false);
  }

  /**
   * The bitmaps' section of a checkpoint of format 2, in pieces that are views of roaring-wasm's heap: valid until it is used again. Equal sets have
   * equal bytes.
   */
  serialize(): Uint8Array[] {
    for (const [index, shard] of this.#shards.entries()) {
      if (!this.#canonical[index]) shard.runOptimize();
      this.#write(index);
      if (this.#canonical[index]) continue;
      const wasteful = arraysWrittenAsRuns(this.#written[index]!.asTypedArray());
      for (const values of wasteful) {
        // Added anew to an empty container, they are an array.
        const first = values[0]! - (values[0]! % CONTAINER_BLOCKS);
        shard.removeRange(first, first + CONTAINER_BLOCKS);
        shard.addMany(values);
      }
      if (wasteful.length > 0) this.#write(index);
      this.#canonical[index] = true;
    }
    // Only now, since the heap may have moved while one after the other was written.
    return this.#written.flatMap((written) => {
      const length = new Uint8Array(8);
      new DataView(length.buffer).setBigUint64(0, BigInt(written!.byteLength), true);
      return [length, written!.asTypedArray(), new Uint8Array(-written!.byteLength & 7)];
    });
  }

  /**
   * Replaces the contents by those of a bitmaps' section of format 2.
   *
   * @throws {@link CodError} COD_CORRUPT if it is none, or not one of this device; the map is then empty
   */
  load(section: Uint8Array): void {
    this.#clear();
    try {
      const view = new DataView(section.buffer, section.byteOffset, section.byteLength);
      let at = 0;
      for (let shard = 0; shard < this.#shards.length; shard++) {
        if (section.length - at < 8)
          throw corruptSection(at, `ends before bitmap ${shard} of ${this.#shards.length}`, section);
        const length = Number(view.getBigUint64(at, true));
        if (length > section.length - at - 8)
          throw corruptSection(at, `bitmap ${shard} of ${length} bytes does not fit`, section);
        this.union(shard, section.subarray(at + 8, at + 8 + length));
        const padded = Math.ceil(length / 8) * 8;
        if (8 + padded > section.length - at)
          throw corruptSection(at, `the padding of bitmap ${shard} is missing`, section);
        for (let i = length; i < padded; i++) {
          if (section[at + 8 + i] !== 0)
            throw corruptSection(at + 8 + i, `the padding of bitmap ${shard} is not zero`, section);
        }
        at += 8 + padded;
      }
      if (at !== section.length) throw corruptSection(at, `has ${section.length - at} bytes too many`, section);
    } catch (error) {
      this.#clear();
      throw error;
    }
  }

  /**
   * Adds the blocks of a bitmap of a checkpoint of format 1, which starts at block `bitmapIndex` × (2^32 - 1). Blocks beyond
   * the device are dropped: that format counts one block too many.
   *
   * @throws {@link CodError} COD_CORRUPT if the bytes are no such bitmap: nothing was added
   */
  loadFormat1(bitmapIndex: number, portableBytes: Uint8Array): void {
    if (!Number.isInteger(bitmapIndex) || bitmapIndex < 0) throw new RangeError(`bitmap ${bitmapIndex} is none`);
    const bitmap = parsePortable(portableBytes, `bitmap ${bitmapIndex}`);
    const base = bitmapIndex * FORMAT1_SHARD_BLOCKS;
    if (bitmap.cardinality === 0 || base >= this.#geometry.blockCount) return;
    const values = RoaringBitmap32.deserialize(portableBytes, 'portable');
    try {
      // Bitmap i begins i blocks before the end of shard i - 1: a copy moved up goes there, one moved down into shard i.
      this.#take(bitmapIndex, values, -bitmapIndex);
      if (bitmapIndex > 0) this.#take(bitmapIndex - 1, values, SHARD_BLOCKS - bitmapIndex);
    } finally {
      values.dispose();
    }
  }

  /** The set as it is now, which stays as it is whatever happens to the map. */
  snapshot(): SyncedBlocks {
    return new SyncedBlocks(this.#geometry, concat(...this.serialize()));
  }

  /** Whether each of `blocks`, ascending, is synced; faster than to ask for one after another. */
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

  /** Gives the memory back; the map cannot be used afterwards. */
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

  /** Writes a shard in portable format. */
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

  /** The first block of [from, limit) up to which `uniform` does not hold; it holds of the empty range. */
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

/** An immutable set of synced blocks. Holds no foreign memory. */
export class SyncedBlocks {
  readonly #geometry: Geometry;
  #shards: { bytes: Uint8Array; bitmap: PortableBitmap }[] = [];
  /** Number of blocks. */
  readonly size: number;

  /** @param section a bitmaps' section of format 2 of this device, which must not change any more */
  constructor(geometry: Geometry, section: Uint8Array) {
    this.#geometry = geometry;
    const view = new DataView(section.buffer, section.byteOffset, section.byteLength);
    let size = 0;
    for (let at = 0; at < section.length; ) {
      const length = Number(view.getBigUint64(at, true));
      const bytes = section.subarray(at + 8, at + 8 + length);
      const bitmap = parsePortable(bytes, `bitmap ${this.#shards.length}`);
      this.#shards.push({ bytes, bitmap });
      size += bitmap.cardinality;
      at += 8 + Math.ceil(length / 8) * 8;
    }
    this.size = size;
  }

  has(block: number): boolean {
    checkBlock(this.#geometry, block);
    const shard = this.#shards[Math.floor(block / SHARD_BLOCKS)];
    return shard !== undefined && portableHas(shard.bytes, shard.bitmap, block % SHARD_BLOCKS);
  }

  /** The maximal runs of synced blocks, ascending, as [start, end). */
  *extents(): Generator<[start: number, end: number], void, undefined> {
    let pending: [number, number] | undefined;
    for (const [index, { bytes, bitmap }] of this.#shards.entries()) {
      const base = index * SHARD_BLOCKS;
      for (const [start, end] of runsOf(bytes, bitmap)) {
        if (pending && pending[1] === base + start) {
          pending[1] = base + end;
        } else {
          if (pending) yield pending;
          pending = [base + start, base + end];
        }
      }
    }
    if (pending) yield pending;
  }

  /** Forgets everything. */
  dispose(): void {
    this.#shards = [];
  }
}

/** Where the shard of `block` ends, but not behind `limit`. */
function shardEnd(block: number, limit: number): number {
  return Math.min(limit, (Math.floor(block / SHARD_BLOCKS) + 1) * SHARD_BLOCKS);
}

/** `end` as a value in the shard of `start`; 2^32 at its end. */
function inShard(start: number, end: number): number {
  return end - Math.floor(start / SHARD_BLOCKS) * SHARD_BLOCKS;
}

/** Joins runs that touch: made anew from the other forms, runs are maximal. */
function normalize(bitmap: RoaringBitmap32): void {
  bitmap.removeRunCompression();
  bitmap.runOptimize();
}

function corruptSection(offset: number, what: string, section: Uint8Array): CodError {
  return new CodError('COD_CORRUPT', `bitmaps' section: ${what}, at byte ${offset} of ${section.length}`, {
    details: { offset, length: section.length },
  });
}
