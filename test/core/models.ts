/** Plain models for comparison with the core: sets of bytes, and bytewise writers of both log formats. */
import { RoaringBitmap32, roaringLibraryInitialize } from 'roaring-wasm/browser';
import { BlockMap } from '../../src/core/block-map.ts';
import { concat } from '../../src/core/concat.ts';
import { CopyState } from '../../src/core/copy-state.ts';
import { DirtyMap, type Part } from '../../src/core/dirty-map.ts';
import { bytesOfBlock, type Geometry, geometry } from '../../src/core/geometry.ts';
import { GrowingBuffer } from '../../src/core/growing-buffer.ts';
import type { Replay } from '../../src/core/replay.ts';
import type { Core } from '../../src/wasm/core.ts';

await roaringLibraryInitialize();

/** Which bytes of each touched block are on the target; whole blocks are in their own set. */
export class Model {
  readonly geometry: Geometry;
  readonly synced: Set<number> = new Set();
  readonly parts: Map<number, Uint8Array> = new Map();

  constructor(geometry: Geometry) {
    this.geometry = geometry;
  }

  sync(block: number): void {
    this.synced.add(block);
  }

  write(block: number, start: number, end: number): void {
    let bytes = this.parts.get(block);
    if (!bytes) this.parts.set(block, (bytes = new Uint8Array(bytesOfBlock(this.geometry, block))));
    bytes.fill(1, start, end);
  }

  extent(offset: number, length: number): void {
    const { blockSize } = this.geometry;
    for (let block = Math.floor(offset / blockSize); block * blockSize < offset + length; block++) {
      const base = block * blockSize;
      const start = Math.max(0, offset - base);
      const end = Math.min(bytesOfBlock(this.geometry, block), offset + length - base);
      if (start === 0 && end === bytesOfBlock(this.geometry, block)) this.sync(block);
      else this.write(block, start, end);
    }
  }

  /** Synced blocks, ascending, and dirty blocks with their parts. */
  state(): { synced: number[]; dirty: [number, Part[]][] } {
    const synced = new Set(this.synced);
    for (const [block, bytes] of this.parts) if (bytes.every((byte) => byte === 1)) synced.add(block);
    const dirty = [...this.parts.keys()]
      .filter((block) => !synced.has(block))
      .sort((a, b) => a - b)
      .map((block): [number, Part[]] => [block, partsOf(this.parts.get(block)!)])
      .filter(([, parts]) => parts.length > 0);
    return { synced: [...synced].sort((a, b) => a - b), dirty };
  }
}

function partsOf(bytes: Uint8Array): Part[] {
  const parts: Part[] = [];
  for (let at = 0; at < bytes.length; ) {
    const start = bytes.indexOf(1, at);
    if (start < 0) break;
    const zero = bytes.indexOf(0, start);
    const end = zero < 0 ? bytes.length : zero;
    parts.push([start, end]);
    at = end;
  }
  return parts;
}

/** The same, read from the core's maps. */
export function stateOf(map: BlockMap, dirty: DirtyMap): { synced: number[]; dirty: [number, Part[]][] } {
  const synced: number[] = [];
  for (const [start, end] of map.runs()) for (let block = start; block < end; block++) synced.push(block);
  return { synced, dirty: [...dirty.blocks()].map((block): [number, Part[]] => [block, [...dirty.parts(block)]]) };
}

/** Passes new maps to `use`, and disposes of them afterwards. */
export async function withMaps<T>(
  core: Core,
  geometry: Geometry,
  use: (map: BlockMap, dirty: DirtyMap) => T,
): Promise<T> {
  const map = await BlockMap.open(geometry);
  const dirty = new DirtyMap(core, geometry);
  try {
    return use(map, dirty);
  } finally {
    map.dispose();
    dirty.dispose();
  }
}

/** u64 words as bytes. */
export function words(...values: (number | bigint)[]): Uint8Array {
  const bytes = new Uint8Array(values.length * 8);
  const view = new DataView(bytes.buffer);
  for (const [i, value] of values.entries()) view.setBigUint64(i * 8, BigInt(value), true);
  return bytes;
}

/** CRC32C bit by bit, as defined. */
export function slowCrc32c(bytes: Uint8Array, seed = 0): number {
  let crc = ~seed;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  return ~crc >>> 0;
}

/** The canonical bytes of a set: without runs, then each container in its smallest form. */
export function canonicalBytes(values: Iterable<number>): Uint8Array {
  const bitmap = new RoaringBitmap32([...values]);
  bitmap.removeRunCompression();
  bitmap.runOptimize();
  const bytes = bitmap.serialize('portable');
  bitmap.dispose();
  return bytes;
}

/** A frame of format 2, as docs/FORMAT.md specifies it. */
export function frame(
  fields: { epoch: number; sequence: number; firm?: number },
  records: [bigint | number, bigint | number][],
): Uint8Array {
  const length = 24 + records.length * 16;
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, length, true);
  view.setUint16(2, ~length & 0xffff, true);
  view.setUint32(4, fields.epoch, true);
  view.setUint32(8, fields.sequence, true);
  view.setUint32(12, fields.firm ?? 0, true);
  for (const [i, [first, second]] of records.entries()) {
    view.setBigUint64(16 + i * 16, BigInt(first), true);
    view.setBigUint64(24 + i * 16, BigInt(second), true);
  }
  view.setUint32(length - 8, slowCrc32c(bytes.subarray(0, length - 8)), true);
  bytes.set(new TextEncoder().encode('end!'), length - 4);
  return bytes;
}

/** A write within one cell. */
export function written(offset: number, length: number, sum = 0): [bigint, bigint] {
  return [(1n << 56n) | BigInt(offset), BigInt(length) | (BigInt(sum) << 32n)];
}
export function filled(offset: number, length: number): [bigint, number] {
  return [(7n << 56n) | BigInt(offset), length];
}
/** A write of two whole cells. */
export function writtenPair(offset: number, one = 0, two = 0): [bigint, bigint] {
  return [(6n << 56n) | BigInt(offset), BigInt(one) | (BigInt(two) << 32n)];
}
export function mayRead(cellOffset: number, sum = 0): [bigint, number] {
  return [(5n << 56n) | BigInt(cellOffset), sum];
}
export function modified(offset: number, length: number): [bigint, number] {
  return [(8n << 56n) | BigInt(offset), length];
}
export function barrier(through: number): [bigint, number] {
  return [2n << 56n, through];
}
export const CONTINUED: [bigint, number] = [3n << 56n, 0];
export const BASED: [bigint, number] = [4n << 56n, 0];

/** A log's body: frames in sequence, each in the next sector if it does not fit; then zeros up to `sectors`. */
export function logBody(frames: Uint8Array[], sectors?: number): Uint8Array {
  const pieces: Uint8Array[] = [];
  let at = 0;
  for (const bytes of frames) {
    const room = 512 - (at % 512);
    if (bytes.length > room) {
      pieces.push(new Uint8Array(room));
      at += room;
    }
    pieces.push(bytes);
    at += bytes.length;
  }
  const total = Math.max(Math.ceil(at / 512), sectors ?? 0) * 512;
  return concat(...pieces, new Uint8Array(total - at));
}

/** Runs steps to their end at once, and returns their result. */
export function ended<T>(steps: Generator<void, T, undefined>): T {
  for (let step = steps.next(); ; step = steps.next()) if (step.done) return step.value;
}

/** A slice of a block map in portable Roaring format. */
export function sliceOf(map: BlockMap, slice: number): Uint8Array {
  const buffer = new GrowingBuffer();
  map.serialize(slice, buffer);
  return buffer.bytes;
}

/** Merges a replay into maps like the state of a copy. */
export function merge(replay: Replay, map: BlockMap, dirty: DirtyMap): void {
  // A merge uses these maps only, so any geometry and any third map suffice.
  ended(new CopyState(geometry({ size: 1, blockSize: 4096 }), map, dirty, map).merging(replay));
}
