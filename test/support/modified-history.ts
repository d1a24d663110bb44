/** Which blocks users wrote, to compare with the map of modified blocks. */

import type { ModifiedView } from '../../src/core/views.ts';
import type { Counting } from './byte-history.ts';

export class ModifiedHistory {
  readonly #blockSize: number;
  /** Blocks of writes that began, that were acknowledged, and that were flushed after that. */
  readonly #begun = new Set<number>();
  readonly #acknowledged = new Set<number>();
  readonly #durable = new Set<number>();
  /** Whether it is known which blocks were modified from the start. */
  #isSettled = false;

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
    for (const block of counts === 'durable' ? this.#durable : this.#acknowledged)
      if (!modified.has(block)) return `block ${block} was written, but is not modified`;
    for (const [start, end] of this.#isSettled ? modified.runs() : [])
      for (let block = start; block < end; block++)
        if (!this.#begun.has(block)) return `block ${block} is modified, but was never written`;
    return undefined;
  }

  /** What is modified now is durable. */
  settle(modified: ModifiedView): void {
    this.#isSettled = true;
    this.#acknowledged.clear();
    this.#durable.clear();
    for (const [start, end] of modified.runs()) {
      for (let block = start; block < end; block++) {
        this.#begun.add(block);
        this.#acknowledged.add(block);
        this.#durable.add(block);
      }
    }
  }
}
