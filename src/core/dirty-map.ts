/**
 * The dirty map of a device: which parts of which unsynced blocks the target has. Held in the wasm core's memory.
 *
 * Invariants: the parts of a block ascend and neither touch nor overlap; no block is covered wholly; equal contents have
 * equal bytes, whatever happened before.
 */

import { CodError } from '../errors.ts';
import { COMPLETE, DIRTY, LIMIT, LISTED } from '../wasm/codes.ts';
import type { Core } from '../wasm/core.ts';
import { DIRTY_MAP } from '../wasm/generated/interface.ts';
import { bytesOfBlock, checkBlock, checkBlocks, type Geometry } from './geometry.ts';
import { MAX_BLOCK_PARTS } from './layout.ts';

/**
 * The most parts, and the most blocks, that a map takes by default: at most 300 MiB of memory, reached only if each of so many
 * blocks was written in part.
 */
export const DEFAULT_MAX_PARTS: number = 4 * 2 ** 20;

const OUTCOMES = { [DIRTY]: 'dirty', [COMPLETE]: 'complete', [LIMIT]: 'full' } as const;

/** A part of a block, in bytes within it: [start, end). */
export type Part = readonly [start: number, end: number];

export class DirtyMap {
  readonly #core: Core;
  readonly #geometry: Geometry;
  readonly #maxBlocks: number;
  readonly #maxParts: number;
  #handle: number;
  #section = new Uint32Array(256);

  /** An empty map. Its limits are kept by {@link add}; what a checkpoint or a log brings in was within them once. */
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

  /** Where the map lies in the core's memory; for other parts of the core only. */
  get handle(): number {
    if (this.#handle === 0) throw new Error('the dirty map was disposed of');
    return this.#handle;
  }

  get blockCount(): number {
    return this.#core.u32(this.handle + DIRTY_MAP.blocks);
  }

  get partCount(): number {
    return this.#core.u32(this.handle + DIRTY_MAP.parts);
  }

  /** Whether less than seven eighths of both limits are used. */
  get hasRoom(): boolean {
    return this.blockCount < this.#maxBlocks * 0.875 && this.partCount < this.#maxParts * 0.875;
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

  /** The first dirty block of [from, limit), or `limit`; looks at one after the other. */
  nextDirty(from: number, limit: number): number {
    if (this.blockCount === 0) return limit;
    let block = from;
    while (block < limit && !this.has(block)) block++;
    return block;
  }

  /**
   * Adds the bytes [start, end) of a block.
   *
   * @returns `complete` if the whole block is now covered: it was dropped from the map, and the caller marks it synced;
   * `full` if a limit would be passed (of the map, or {@link MAX_BLOCK_PARTS}): nothing has changed
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
        `bytes [${start}, ${end}) are no part of block ${block}, which has ${bytesOfBlock(this.#geometry, block)}`,
      );
    }
    return OUTCOMES[this.#core.exports.dirtyAdd(this.handle, block, start, end, 1) as keyof typeof OUTCOMES];
  }

  /** The parts of a block, ascending; none if it is not dirty. */
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

  /** All dirty blocks of this moment, ascending. */
  blocks(): Float64Array<ArrayBuffer> {
    const count = this.#core.exports.dirtyList(this.handle);
    const blocks = new Float64Array(count);
    const at = this.#core.exports.output();
    for (let i = 0; i < count; i++) blocks[i] = this.#core.u64(at + i * 8);
    return blocks;
  }

  /** The dirty section of a checkpoint of format 2: a view of a kept buffer, valid until the next call. */
  serialize(): Uint8Array<ArrayBuffer> {
    const blocks = this.blocks();
    const length = blocks.length * 4 + this.partCount * 2;
    if (this.#section.length < length) this.#section = new Uint32Array(length + (length >> 2));
    const section = this.#section;
    let next = 0;
    for (const block of blocks) {
      const { count, at } = this.#find(block);
      const { words } = this.#core;
      section[next++] = block % 2 ** 32;
      section[next++] = Math.floor(block / 2 ** 32);
      section[next++] = count;
      section[next++] = 0;
      for (let i = 0; i < count * 2; i++) section[next++] = words[at + i]!;
    }
    return new Uint8Array(section.buffer, 0, length * 4);
  }

  /**
   * Replaces the contents by those of a dirty section.
   *
   * @throws {@link CodError} COD_CORRUPT if it is not exactly what {@link serialize} writes; the map is then empty
   */
  load(section: Uint8Array): void {
    this.clear();
    const view = new DataView(section.buffer, section.byteOffset, section.byteLength);
    let at = 0;
    let next = 0;
    const refuse = (what: string): CodError => {
      this.clear();
      return new CodError('COD_CORRUPT', `dirty section: ${what}, at byte ${at} of ${section.length}`, {
        details: { offset: at, length: section.length },
      });
    };
    while (at < section.length) {
      if (section.length - at < 16) throw refuse('ends within a block');
      const block = view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32;
      const count = view.getUint32(at + 8, true);
      if (block < next || block >= this.#geometry.blockCount)
        throw refuse(`block ${block} where one from ${next} on is due`);
      if (view.getUint32(at + 12, true) !== 0 || count === 0 || count > MAX_BLOCK_PARTS)
        throw refuse(`block ${block} of ${count} parts`);
      if (count * 8 > section.length - at - 16) throw refuse(`block ${block} of ${count} parts, which do not fit`);
      const whole = bytesOfBlock(this.#geometry, block);
      at += 16;
      let before = -1;
      for (let i = 0; i < count; i++, at += 8) {
        const start = view.getUint32(at, true);
        const end = view.getUint32(at + 4, true);
        if (start <= before || start >= end || end > whole || end - start === whole) {
          throw refuse(`part [${start}, ${end}) of block ${block}, of ${whole} bytes, after one up to ${before}`);
        }
        this.#core.exports.dirtyAdd(this.handle, block, start, end, 0);
        before = end;
      }
      next = block + 1;
    }
  }

  clear(): void {
    this.#core.exports.dirtyVisit(this.handle, 0, this.#geometry.blockCount, 1);
  }

  /** Gives the memory back; the map cannot be used afterwards. */
  dispose(): void {
    if (this.#handle !== 0 && !this.#core.failure) this.#core.exports.dirtyClose(this.#handle);
    this.#handle = 0;
  }

  /** How many parts a block has, and where, as an index of the core's words. */
  #find(block: number): { count: number; at: number } {
    const slot = this.#core.exports.dirtyFind(this.handle, block) >>> 2;
    const { words } = this.#core;
    if (words[slot] === 0 && words[slot + 1] === 0) return { count: 0, at: 0 };
    const high = words[slot + 3]!;
    return high >= LISTED ? { count: high - LISTED, at: words[slot + 2]! >>> 2 } : { count: 1, at: slot + 2 };
  }
}
