/**
 * The dirty map of a device: the parts of unsynced blocks that the target has. It is in the memory of the WASM core.
 *
 * Invariants: the parts of a block ascend, and neither touch nor overlap. The parts never cover a whole block. Equal
 * contents have equal bytes, whatever their history.
 */

import { CodError } from '../errors.ts';
import { COMPLETE, DIRTY, LIMIT, LISTED } from '../wasm/codes.ts';
import type { Core } from '../wasm/core.ts';
import { DIRTY_MAP } from '../wasm/generated/interface.ts';
import { bytesOfBlock, checkBlock, checkBlocks, type Geometry } from './geometry.ts';
import { MAX_BLOCK_PARTS } from './layout.ts';

/**
 * The default limit of a map, for its parts and for its blocks. The map then takes at most 300 MiB, which it reaches
 * only if each part is in a block of its own.
 */
export const DEFAULT_MAX_PARTS: number = 4 * 2 ** 20;

const OUTCOMES = { [DIRTY]: 'dirty', [COMPLETE]: 'complete', [LIMIT]: 'full' } as const;

/** A part of a block: the bytes [start, end) of the block. */
export type Part = readonly [start: number, end: number];

export class DirtyMap {
  readonly #core: Core;
  readonly #geometry: Geometry;
  readonly #maxBlocks: number;
  readonly #maxParts: number;
  #handle: number;
  #section = new Uint32Array(256);

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

  get blockCount(): number {
    return this.#core.u32(this.handle + DIRTY_MAP.blocks);
  }

  get partCount(): number {
    return this.#core.u32(this.handle + DIRTY_MAP.parts);
  }

  /** Whether less than 7/8 of both limits is used. */
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

  /** The first dirty block of [from, limit), or `limit` if there is none. Linear in the distance. */
  nextDirty(from: number, limit: number): number {
    if (this.blockCount === 0) return limit;
    let block = from;
    while (block < limit && !this.has(block)) block++;
    return block;
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

  /** All dirty blocks, ascending. */
  blocks(): Float64Array<ArrayBuffer> {
    const count = this.#core.exports.dirtyList(this.handle);
    const blocks = new Float64Array(count);
    const at = this.#core.exports.output();
    for (let i = 0; i < count; i++) blocks[i] = this.#core.u64(at + i * 8);
    return blocks;
  }

  /** Serializes the dirty section of a checkpoint of format 2 into a kept buffer: a view, valid until the next call. */
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
   * Replaces the contents by a dirty section.
   *
   * @throws {@link CodError} COD_CORRUPT if {@link serialize} cannot have written the section. The map is empty then.
   */
  load(section: Uint8Array): void {
    this.clear();
    const view = new DataView(section.buffer, section.byteOffset, section.byteLength);
    let at = 0;
    let next = 0;
    const refuse = (what: string): CodError => {
      this.clear();
      return new CodError('COD_CORRUPT', `dirty section, byte ${at} of ${section.length}: ${what}`, {
        details: { offset: at, length: section.length },
      });
    };
    while (at < section.length) {
      if (section.length - at < 16) throw refuse('a block entry is cut short');
      const block = view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32;
      const count = view.getUint32(at + 8, true);
      if (block < next || block >= this.#geometry.blockCount)
        throw refuse(`block ${block} is not within [${next}, ${this.#geometry.blockCount})`);
      if (view.getUint32(at + 12, true) !== 0 || count === 0 || count > MAX_BLOCK_PARTS)
        throw refuse(
          `block ${block} has ${count} parts, not 1 to ${MAX_BLOCK_PARTS}, or its unused bytes are not zero`,
        );
      if (count * 8 > section.length - at - 16)
        throw refuse(`block ${block} has ${count} parts, but the section ends before them`);
      const whole = bytesOfBlock(this.#geometry, block);
      at += 16;
      let before = -1;
      for (let i = 0; i < count; i++, at += 8) {
        const start = view.getUint32(at, true);
        const end = view.getUint32(at + 4, true);
        if (start <= before || start >= end || end > whole || end - start === whole) {
          throw refuse(
            `part [${start}, ${end}) of block ${block} (${whole} bytes) is invalid: the previous one ends at ${before}`,
          );
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

  /** Returns the memory to the core. The map cannot be used afterwards. */
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
