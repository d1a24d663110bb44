/** Which blocks users wrote, to compare with the map of modified blocks. */

import type { ModifiedView } from '../../src/core/views.ts';
import type { Counting } from './byte-history.ts';

/** First block, and the one after the last. */
type Run = readonly [number, number];

export class ModifiedHistory {
  readonly #blockSize: number;
  /** Blocks of writes that began, that were acknowledged, and that were flushed after that. */
  readonly #begun = new Set<number>();
  readonly #acknowledged = new Set<number>();
  readonly #durable = new Set<number>();
  /** What was modified at the last check, when it is known what was modified from the start. */
  #settled: readonly Run[] | undefined;

  constructor(blockSize: number) {
    this.#blockSize = blockSize;
  }

  #blocksOf(offset: number, length: number): number[] {
    const blocks: number[] = [];
    for (let block = Math.floor(offset / this.#blockSize); block * this.#blockSize < offset + length; block++)
      blocks.push(block);
    return blocks;
  }

  begin(offset: number, length: number): void {
    for (const block of this.#blocksOf(offset, length)) this.#begun.add(block);
  }

  acknowledge(offset: number, length: number, options: { durable: boolean }): void {
    for (const block of this.#blocksOf(offset, length)) {
      this.#acknowledged.add(block);
      if (options.durable) this.#durable.add(block);
    }
  }

  /** Returns what to call when the flush is done. */
  beginFlush(): () => void {
    const covered = [...this.#acknowledged];
    return () => {
      for (const block of covered) this.#durable.add(block);
    };
  }

  /** A block that was promised and is missing, or that no user wrote. */
  violation(modified: ModifiedView, counts: Counting): string | undefined {
    const runs = [...modified.runs()];
    const missing = (block: number): string => `block ${block} was written, but is not modified`;
    for (const block of counts === 'durable' ? this.#durable : this.#acknowledged)
      if (!modified.has(block)) return missing(block);
    if (this.#settled === undefined) return undefined;
    for (const block of outside(this.#settled, runs)) return missing(block);
    for (const block of outside(runs, this.#settled))
      if (!this.#begun.has(block)) return `block ${block} is modified, but was never written`;
    return undefined;
  }

  /** What is modified now is durable. */
  settle(modified: ModifiedView): void {
    this.#settled = [...modified.runs()];
    this.#acknowledged.clear();
    this.#durable.clear();
  }
}

/** The blocks of `runs` that none of `others` has; both are in order. */
function* outside(runs: readonly Run[], others: readonly Run[]): Generator<number> {
  let index = 0;
  for (const [start, end] of runs) {
    for (let block = start; block < end; ) {
      while (index < others.length && others[index]![1] <= block) index++;
      const [from, to] = others[index] ?? [end, end];
      if (from <= block) block = to;
      else yield block++;
    }
  }
}
