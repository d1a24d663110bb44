/**
 * What the log says about the target that no barrier has made firm yet. Recovery believes it only where the target
 * reads as a record says (docs/FORMAT.md, "Which records count"), so a change of such bytes must be announced.
 *
 * A flush or a checkpoint makes a generation firm: what was recorded until it began. What is recorded later stays,
 * since the barrier does not cover its frame.
 */

import { BitSet } from '../core/bit-set.ts';
import { CELL_BYTES, FILLED, WRITTEN_PAIR } from '../core/layout.ts';

/** A record about bytes of the target takes this many numbers: type, offset, low and high half of the second word. */
export const RECORD_NUMBERS = 4;

/** With more unfirm claims, an append waits for a checkpoint: recovery reads their cells and keeps them in memory. */
export const MAX_CLAIMS: number = 2 ** 18;

/** Whole groups of so many blocks are kept as one number: one record may fill the whole device. */
const GROUP_BLOCKS = 1024;

/** What was recorded between two flushes. */
class Generation {
  /** Cells whose content records name. */
  readonly cells = new BitSet();
  /** Blocks that hold the source's bytes, according to these records only. */
  readonly #fills = new BitSet();
  readonly #groups = new BitSet();
  /** The number of times that records name a cell. */
  claims = 0;

  get hasFills(): boolean {
    return !this.#fills.isEmpty || !this.#groups.isEmpty;
  }

  /** Adds the blocks [start, end) to those that only fills hold. */
  fill(start: number, end: number): void {
    const first = Math.ceil(start / GROUP_BLOCKS);
    const last = Math.floor(end / GROUP_BLOCKS);
    if (first < last) {
      this.#groups.add(first, last);
      this.#fills.add(start, first * GROUP_BLOCKS);
      this.#fills.add(last * GROUP_BLOCKS, end);
    } else {
      this.#fills.add(start, end);
    }
  }

  isFilled(start: number, end: number): boolean {
    const inGroups = this.#groups.hasAny(Math.floor(start / GROUP_BLOCKS), Math.ceil(end / GROUP_BLOCKS));
    return inGroups || this.#fills.hasAny(start, end);
  }
}

export class Firmness {
  readonly #blockSize: number;
  /** The present generation, and those that flushes and checkpoints in progress make firm, by number. */
  #present = new Generation();
  #number = 0;
  readonly #aged = new Map<number, Generation>();
  /** Records whose append has not ended. */
  readonly #pending = new Set<readonly number[]>();

  constructor(blockSize: number) {
    this.#blockSize = blockSize;
  }

  /** Whether unfirm records name the content of any cell of these bytes. */
  isNamed(offset: number, length: number): boolean {
    if (this.#present.cells.isEmpty && this.#aged.size === 0) return false;
    const { start, end } = cellsOf(offset, length);
    return this.#any(({ cells }) => cells.hasAny(start, end));
  }

  /** Whether any block of these bytes is synced by an unfirm fill. */
  isFilled(offset: number, length: number): boolean {
    if (!this.#present.hasFills && this.#aged.size === 0) return false;
    const start = Math.floor(offset / this.#blockSize);
    const end = Math.ceil((offset + length) / this.#blockSize);
    return this.#any((generation) => generation.isFilled(start, end));
  }

  #any(holds: (generation: Generation) => boolean): boolean {
    if (holds(this.#present)) return true;
    for (const generation of this.#aged.values()) if (holds(generation)) return true;
    return false;
  }

  /** The number of times that records since the last flush began name a cell. */
  get newClaims(): number {
    return this.#present.claims;
  }

  /** The number of times that unfirm records name a cell: recovery reads these cells. */
  get claims(): number {
    let { claims } = this.#present;
    for (const generation of this.#aged.values()) claims += generation.claims;
    return claims;
  }

  /** Notes records whose append ends later: a change that follows must be announced from now on. */
  begin(records: readonly number[]): void {
    this.#pending.add(records);
    this.#note(records);
  }

  /** Notes that the append of these records has ended. A flush that began before does not cover them. */
  end(records: readonly number[]): void {
    this.#pending.delete(records);
    this.#present.claims += this.#note(records);
  }

  /** The append of these records has failed: they stay noted until the next flush or checkpoint at most. */
  drop(records: readonly number[]): void {
    this.#pending.delete(records);
  }

  /** Returns how often the records name a cell. */
  #note(records: readonly number[]): number {
    const present = this.#present;
    let claims = 0;
    for (let at = 0; at < records.length; at += RECORD_NUMBERS) {
      const type = records[at]!;
      const first = records[at + 1]!;
      if (hasSum(type)) {
        const cell = Math.floor(first / CELL_BYTES);
        const count = type === WRITTEN_PAIR ? 2 : 1;
        present.cells.add(cell, cell + count);
        claims += count;
      } else if (type === FILLED) {
        const length = records[at + 2]! + records[at + 3]! * 2 ** 32;
        present.fill(Math.floor(first / this.#blockSize), Math.ceil((first + length) / this.#blockSize));
      }
    }
    return claims;
  }

  /** A flush or a checkpoint begins. Returns the number of the generation that it makes firm, with all before. */
  age(): number {
    // Otherwise each flush without a record would leave a generation behind.
    if (this.#present.cells.isEmpty && !this.#present.hasFills) return this.#number - 1;
    this.#aged.set(this.#number, this.#present);
    this.#present = new Generation();
    return this.#number++;
  }

  /** The barrier or the checkpoint of a generation is durable. */
  firm(number: number): void {
    for (const aged of this.#aged.keys()) if (aged <= number) this.#aged.delete(aged);
    for (const records of this.#pending) this.#note(records);
  }
}

/** Whether a record of this type, which is about bytes of the target, has the sum of a cell. */
export function hasSum(type: number): boolean {
  return type < FILLED;
}

/** The cells that these bytes touch. */
export function cellsOf(offset: number, length: number): { start: number; end: number } {
  return { start: Math.floor(offset / CELL_BYTES), end: Math.ceil((offset + length) / CELL_BYTES) };
}
