/**
 * Stores the source's bytes: around the written parts of a block, never over them, and only in unsynced blocks.
 *
 * A fill and its record need no lock between them: a user's write in between only makes more of the blocks complete.
 */

import { after, type Done, ending, inSequence, promised, type Settled } from '../async/done.ts';
import type { Geometry } from '../core/geometry.ts';
import type { BlockRange } from '../core/runs.ts';
import { isZero } from '../platform/zeros.ts';
import type { HydrationTarget } from './hydrator.ts';
import type { Target } from './target.ts';

/** Zeros are looked for in units of this many bytes. A piece may begin and end within a unit. */
const ZERO_UNIT_BYTES = 65_536;

export class Filler implements HydrationTarget {
  readonly #target: Target;

  constructor(target: Target) {
    this.#target = target;
  }

  get geometry(): Geometry {
    return this.#target.state.geometry;
  }

  get syncedBlocks(): number {
    return this.#target.state.blocks.count;
  }

  get preferredWriteBytes(): number | undefined {
    return this.#target.preferredWriteBytes;
  }

  nextUnsynced(from: number, limit?: number): number {
    return this.#target.state.nextUnsynced(from, limit);
  }

  nextSynced(from: number, limit?: number): number {
    return this.#target.state.nextSynced(from, limit);
  }

  /**
   * Stores the source's bytes where the target holds nothing, now or later. The bytes may begin and end within a block.
   */
  store(from: Uint8Array, offset: number): Done {
    if (from.length === 0) return undefined;
    const stored = after(this.#target.lock(offset, from.length, 'fill'), (lock) =>
      ending(
        () => inSequence(this.#storeHoles(from, offset)),
        () => lock.release(),
      ),
    );
    return stored as Done;
  }

  /** As {@link store}, and lets the event loop turn when it is due. */
  async fill(from: Uint8Array, offset: number): Promise<void> {
    await (this.store(from, offset) ?? this.#target.pace());
  }

  /** As {@link fill} with zeros. */
  async fillZeroes(offset: number, length: number): Promise<void> {
    const lock = await this.#target.lock(offset, length, 'fill');
    try {
      for (const { start, end } of this.#holes(offset, length)) await this.#fillZeroes(start, end - start);
    } finally {
      lock.release();
    }
  }

  /** Records blocks as complete. All of their bytes must have been stored. */
  filled(blocks: BlockRange): Promise<void> {
    return promised((settled) => this.record(blocks, settled));
  }

  /** As {@link filled}. */
  record(blocks: BlockRange, settled: Settled): void {
    this.#target.recordBlocks(blocks, settled);
  }

  flush(): Promise<void> {
    return this.#target.log.flush();
  }

  /** The bytes of a range that are neither synced nor dirty, at this moment. */
  #holes(offset: number, length: number): { start: number; end: number }[] {
    return this.#target.state.pieces(offset, length).filter(({ from }) => from === 'source');
  }

  *#storeHoles(from: Uint8Array, offset: number): Generator<Done> {
    for (const { start, end } of this.#holes(offset, from.length)) {
      yield* this.#storeSparse(from.subarray(start - offset, end - offset), start);
    }
  }

  /** Leaves out units of zeros: a sparse target reads as zeros there. */
  *#storeSparse(from: Uint8Array, offset: number): Generator<Done> {
    let dataStart = 0;
    for (let at = 0; at < from.length; ) {
      const next = Math.min(from.length, at + ZERO_UNIT_BYTES - ((offset + at) % ZERO_UNIT_BYTES));
      if (isZero(from.subarray(at, next))) {
        if (dataStart < at) yield this.#target.fill(from.subarray(dataStart, at), offset + dataStart);
        yield this.#fillZeroes(offset + at, next - at);
        dataStart = next;
      }
      at = next;
    }
    if (dataStart < from.length) yield this.#target.fill(from.subarray(dataStart), offset + dataStart);
  }

  /** A blank target has zeros in every hole. */
  #fillZeroes(offset: number, length: number): Done {
    return this.#target.isBlank ? undefined : this.#target.zero(offset, length);
  }
}
