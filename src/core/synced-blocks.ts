/**
 * A snapshot of the synced blocks of a device, for users: the serialized bitmaps and an index of their containers.
 *
 * Invariant: it holds a copy of the bytes and no memory of roaring-wasm, so that it needs no `dispose`.
 */
import { checkBlock, type Geometry } from './geometry.ts';
import { padded, SHARD_BLOCKS } from './layout.ts';
import { type PortableBitmap, parsePortable, portableHas, runsOf } from './portable.ts';

/** An immutable set of synced blocks. */
export class SyncedBlocks {
  readonly #geometry: Geometry;
  readonly #shards: { bytes: Uint8Array; bitmap: PortableBitmap }[] = [];
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
      at += 8 + padded(length);
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
}
