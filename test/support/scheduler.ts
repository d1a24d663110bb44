/** Completes storage operations in a random order, over the turns of the event loop. */

import { setImmediate as immediate } from 'node:timers/promises';
import type { Clock, FileSystem } from '../../src/index.ts';
import type { Random } from '../../src/testing/index.ts';

/** Decides in which turn of the event loop each waiting operation resumes. Time is the number of turns. */
export class Scheduler implements Clock {
  readonly #random: Random;
  readonly #waiting: (() => void)[] = [];
  readonly #onTurn: () => void;
  /** The probability, in tenths, that a waiting operation resumes in a turn. */
  readonly #eagerness: number;
  #turns = 0;

  constructor(random: Random, onTurn: () => void) {
    this.#random = random;
    this.#eagerness = 1 + random.below(9);
    this.#onTurn = onTurn;
  }

  now(): number {
    return this.#turns;
  }

  /** Resolves in this turn or a later turn. */
  async turn(): Promise<void> {
    switch (this.#random.below(4)) {
      case 0:
        return;
      case 1:
        for (let count = this.#random.below(20); count > 0; count--) await undefined;
        return;
      default:
        await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  async sleep(ms: number, signal?: AbortSignal): Promise<void> {
    for (const end = this.#turns + ms / 100; this.#turns < end; ) {
      signal?.throwIfAborted();
      await immediate();
    }
  }

  async run<T>(work: Promise<T>): Promise<T> {
    let settled = false;
    const settle = (): void => {
      settled = true;
    };
    work.then(settle, settle);
    for (const limit = this.#turns + 100_000; !settled; this.#turns++) {
      if (this.#turns > limit) throw new Error('the work does not end');
      await immediate();
      this.#onTurn();
      for (const go of this.#random.shuffle(this.#waiting.splice(0))) {
        if (this.#random.below(10) < this.#eagerness) go();
        else this.#waiting.push(go);
      }
    }
    return work;
  }
}

/**
 * Delays every operation before and after its effect. Splits reads and writes into two parts, sometimes in reverse
 * order.
 */
export function slowFileSystem(inner: FileSystem, scheduler: Pick<Scheduler, 'turn'>, random: Random): FileSystem {
  const slowly = async <T>(task: () => Promise<T>): Promise<T> => {
    await scheduler.turn();
    const result = await task();
    await scheduler.turn();
    return result;
  };
  const inParts = (
    bytes: Uint8Array,
    offset: number,
    task: (part: Uint8Array, offset: number) => Promise<void>,
  ): Promise<void> =>
    slowly(async () => {
      const cut = random.below(bytes.length + 1);
      const parts = [
        { part: bytes.subarray(0, cut), at: offset },
        { part: bytes.subarray(cut), at: offset + cut },
      ];
      if (random.oneIn(2)) parts.reverse();
      for (const { part, at } of parts) {
        if (part.length > 0) await task(part, at);
        await scheduler.turn();
      }
    });
  return {
    bootId: inner.bootId ?? 'boot',
    remove: (name) => slowly(() => inner.remove(name)),
    open: async (name, options) => {
      const file = await slowly(() => inner.open(name, options));
      return {
        size: () => slowly(() => file.size()),
        read: (into, offset) => inParts(into, offset, (part, at) => file.read(part, at)),
        write: (from, offset) => inParts(from, offset, (part, at) => file.write(part, at)),
        truncate: (size) => slowly(() => file.truncate(size)),
        sync: () => slowly(() => file.sync()),
        close: () => file.close(),
      };
    },
  };
}
