/** An inode of ext2, ext3 or ext4, and the places of its contents: a tree of extents, or blocks of block numbers. */

import { type Bytes, u64, VolumeError, viewOf } from './bytes.ts';
import { type FileInfo, type Run, Runs } from './volume.ts';

export const FILE_TYPE = { directory: 4, file: 8, link: 10 } as const;
export const INODE_FLAG = { encrypted: 0x800, extents: 0x80000, inlineData: 0x10000000 } as const;

const EXTENT_MAGIC = 0xf30a;
const MAX_DEPTH = 5;
const MAP_AT = 40;
const MAP_BYTES = 60;
/** A longer length marks an extent that is reserved and not written yet. */
const MAX_WRITTEN_BLOCKS = 32_768;

export class Inode {
  /** A value of {@link FILE_TYPE}, or another type. */
  readonly type: number;
  readonly size: number;
  readonly flags: number;
  readonly #modifiedMs: number;
  /** Whether the inode has blocks besides those of its attributes. */
  readonly #hasBlocks: boolean;
  readonly #map: Uint8Array;
  readonly #volume: { readonly bytes: Bytes; readonly blockBytes: number; readonly blockCount: number };

  constructor(raw: Uint8Array, volume: { bytes: Bytes; blockBytes: number; blockCount: number }) {
    const view = viewOf(raw);
    this.#volume = volume;
    this.type = view.getUint16(0, true) >> 12;
    this.flags = view.getUint32(32, true);
    // The upper half of the size is valid for files. Directories have one only with the feature of large directories.
    const isLong = this.type === FILE_TYPE.file;
    this.size = isLong
      ? u64(viewOf(Uint8Array.of(...raw.subarray(4, 8), ...raw.subarray(108, 112))), 0)
      : view.getUint32(4, true);
    // Seconds are signed. The large inodes of ext4 have two more bits.
    const more = raw.length >= 160 && view.getUint16(128, true) >= 12 ? (view.getUint32(136, true) & 3) * 2 ** 32 : 0;
    this.#modifiedMs = (view.getInt32(16, true) + more) * 1000;
    const attributeBlocks = view.getUint32(104, true) === 0 ? 0 : volume.blockBytes / 512;
    this.#hasBlocks = view.getUint32(28, true) > attributeBlocks;
    this.#map = raw.slice(MAP_AT, MAP_AT + MAP_BYTES);
  }

  /**
   * Returns the file of this inode.
   * @throws {@link VolumeError} when the contents are in extended attributes, which are not read here.
   */
  file(): FileInfo {
    const { size } = this;
    const base = { size, modifiedMs: this.#modifiedMs };
    const isInline =
      (this.flags & INODE_FLAG.inlineData) !== 0 ||
      (this.type === FILE_TYPE.link && size < MAP_BYTES && !this.#hasBlocks);
    if (isInline) {
      if (size > MAP_BYTES || this.type === FILE_TYPE.directory)
        throw new VolumeError('contents in extended attributes are not supported');
      const inline = this.#map.slice(0, size);
      return { ...base, inline, runs: async function* () {} };
    }
    return { ...base, runs: (signal) => this.#runs(signal) };
  }

  /** Converts blocks into runs of bytes. The runs cover the file's size, including its holes. */
  async *#runs(signal: AbortSignal | undefined): AsyncGenerator<Run> {
    const { blockBytes, blockCount } = this.#volume;
    const blocks =
      this.flags & INODE_FLAG.extents ? this.#extents(this.#map, undefined, 0, signal) : this.#pointers(signal);
    const runs = new Runs();
    let at = 0;
    const put = function* (offset: number | undefined, length: number): Generator<Run> {
      const run = length > 0 ? runs.add(offset, length) : undefined;
      at += Math.max(0, length);
      if (run !== undefined) yield run;
    };
    for await (const { logical, block, count } of blocks) {
      const start = logical * blockBytes;
      if (start >= this.size) break;
      if (start < at) throw new VolumeError('the extents of this file overlap');
      if (block !== undefined && block + count > blockCount)
        throw new VolumeError(`this file has block ${block + count - 1}, beyond the volume (${blockCount} blocks)`);
      yield* put(undefined, start - at);
      yield* put(block === undefined ? undefined : block * blockBytes, Math.min(count * blockBytes, this.size - at));
    }
    yield* put(undefined, this.size - at);
    const last = runs.end();
    if (last !== undefined) yield last;
  }

  /**
   * Yields the extents below a node. It ends for any image: a child's depth is one less than its parent's, no node
   * below the root is empty, and logical block numbers increase.
   */
  async *#extents(
    node: Uint8Array,
    depth: number | undefined,
    from: number,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<Blocks> {
    signal?.throwIfAborted();
    const view = viewOf(node);
    const count = view.getUint16(2, true);
    const found = view.getUint16(6, true);
    const sound = view.getUint16(0, true) === EXTENT_MAGIC && 12 + count * 12 <= node.length && found <= MAX_DEPTH;
    if (!sound || (depth !== undefined && (found !== depth || count === 0)))
      throw new VolumeError('the extent tree of this file is damaged');
    let next = from;
    for (let at = 12; at < 12 + count * 12; at += 12) {
      const logical = view.getUint32(at, true);
      if (logical < next) throw new VolumeError('the extent tree of this file is out of order');
      if (found > 0) {
        const child = view.getUint32(at + 4, true) + view.getUint16(at + 8, true) * 2 ** 32;
        yield* this.#extents(await this.#block(child, signal), found - 1, logical, signal);
        next = logical + 1;
        continue;
      }
      const stored = view.getUint16(at + 4, true);
      const isWritten = stored <= MAX_WRITTEN_BLOCKS;
      const length = isWritten ? stored : stored - MAX_WRITTEN_BLOCKS;
      if (length === 0) throw new VolumeError('the extent tree of this file has an empty extent');
      const block = view.getUint32(at + 8, true) + view.getUint16(at + 6, true) * 2 ** 32;
      yield { logical, block: isWritten ? block : undefined, count: length };
      next = logical + length;
    }
  }

  /** Yields the blocks of the old format: 12 direct blocks, then an indirect, a double and a triple indirect block. */
  async *#pointers(signal: AbortSignal | undefined): AsyncGenerator<Blocks> {
    const view = viewOf(this.#map);
    const perBlock = this.#volume.blockBytes / 4;
    const seen = new Set<number>();
    let logical = 0;
    for (let index = 0; index < 15 && logical * this.#volume.blockBytes < this.size; index++) {
      const depth = Math.max(0, index - 11);
      yield* this.#pointer(view.getUint32(index * 4, true), { depth, logical, seen }, signal);
      logical += perBlock ** depth;
    }
  }

  /**
   * Yields the blocks below a pointer. `seen` has the blocks of pointers that were read: a damaged image may name one
   * of them billions of times.
   */
  async *#pointer(
    block: number,
    { depth, logical, seen }: { depth: number; logical: number; seen: Set<number> },
    signal: AbortSignal | undefined,
  ): AsyncGenerator<Blocks> {
    if (block === 0 || logical * this.#volume.blockBytes >= this.size) return;
    if (depth === 0) {
      yield { logical, block, count: 1 };
      return;
    }
    signal?.throwIfAborted();
    if (seen.has(block)) throw new VolumeError(`this file uses block ${block} of its block numbers twice`);
    seen.add(block);
    const view = viewOf(await this.#block(block, signal));
    const perBlock = this.#volume.blockBytes / 4;
    for (let index = 0; index < perBlock; index++) {
      const below = logical + index * perBlock ** (depth - 1);
      yield* this.#pointer(view.getUint32(index * 4, true), { depth: depth - 1, logical: below, seen }, signal);
    }
  }

  #block(block: number, signal: AbortSignal | undefined): Promise<Uint8Array> {
    const { bytes, blockBytes } = this.#volume;
    return bytes.read(block * blockBytes, blockBytes, signal);
  }
}

/** Consecutive blocks of a file. `block` is undefined if they are reserved and not written. */
interface Blocks {
  readonly logical: number;
  readonly block: number | undefined;
  readonly count: number;
}
