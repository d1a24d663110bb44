/** Which blocks are in flight, when they are recorded, and which readers are woken; without a source and a loop. */

import { describe, expect, it } from 'vitest';
import { geometry } from '../../src/core/geometry.ts';
import type { BlockRange } from '../../src/core/runs.ts';
import { type Stretch, Stretches } from '../../src/device/stretches.ts';
import { SimulatedClock } from '../../src/testing/index.ts';

const BLOCK = 4096;
const MIB = 2 ** 20;

interface PendingRecord {
  resolve(): void;
  reject(error: unknown): void;
}

/** Stretches over a plain set of synced blocks. The test completes or fails their records. */
class Rig {
  readonly clock = new SimulatedClock();
  readonly synced = new Set<number>();
  readonly recorded: [start: number, end: number][] = [];
  readonly failures: unknown[] = [];
  readonly stretches: Stretches;
  /** While true, records wait for {@link write} or {@link fail}. */
  isSlow = false;
  #pending: PendingRecord[] = [];

  constructor(size: number) {
    const { synced } = this;
    const shape = geometry({ size, blockSize: BLOCK });
    const next = (isWanted: (block: number) => boolean, from: number, limit = shape.blockCount): number => {
      let block = from;
      while (block < limit && !isWanted(block)) block++;
      return block;
    };
    this.stretches = new Stretches({
      clock: this.clock,
      target: {
        geometry: shape,
        nextSynced: (from, limit) => next((block) => synced.has(block), from, limit),
        nextUnsynced: (from, limit) => next((block) => !synced.has(block), from, limit),
        filled: (blocks) => this.#filled(blocks),
      },
      onRecord: () => undefined,
      onRecordFailure: (error) => this.failures.push(error),
    });
  }

  sync(start: number, end: number): void {
    for (let block = start; block < end; block++) this.synced.add(block);
  }

  /** Completes the waiting records. */
  async write(): Promise<void> {
    for (const { resolve } of this.#pending.splice(0)) resolve();
    await this.clock.advance(0);
  }

  /** Fails the waiting records. */
  async fail(error: Error): Promise<void> {
    for (const { reject } of this.#pending.splice(0)) reject(error);
    await this.clock.advance(0);
  }

  async #filled({ start, end }: BlockRange): Promise<void> {
    this.recorded.push([start, end]);
    if (this.isSlow)
      await new Promise<void>((resolve, reject) => {
        this.#pending.push({ resolve, reject });
      });
    this.sync(start, end);
  }
}

function settled(promise: Promise<unknown> | undefined): () => boolean {
  let done = false;
  void promise?.then(() => (done = true));
  return () => done;
}

function progress({ at, recorded, filled }: Stretch): { at: number; recorded: number; filled: number } {
  return { at, recorded, filled };
}

describe('the next free block', () => {
  it('is the first that is neither synced nor in a stretch', () => {
    const rig = new Rig(20 * BLOCK);
    const { stretches } = rig;
    rig.sync(0, 2);
    rig.sync(6, 7);
    expect(stretches.nextFree(0)).toBe(2);
    const first = stretches.begin({ start: 2, end: 6 });
    expect(stretches.nextFree(0)).toBe(7);
    stretches.begin({ start: 7, end: 10 });
    expect(stretches.nextFree(0)).toBe(10);
    expect(stretches.nextFree(15)).toBe(15);
    expect(stretches.takenBy(5)).toBe(first);
    expect(stretches.takenBy(6)).toBeUndefined();
    stretches.finish(first);
    expect(stretches.nextFree(0)).toBe(2);
    expect(stretches.size).toBe(1);
  });

  it('is the number of blocks if all are synced or in a stretch', () => {
    const rig = new Rig(10 * BLOCK);
    rig.sync(0, 5);
    rig.stretches.begin({ start: 5, end: 10 });
    expect(rig.stretches.nextFree(0)).toBe(10);
  });
});

describe('a stretch ends', () => {
  it.each([
    { maxBytes: 3 * BLOCK, end: 3 },
    { maxBytes: 2 * BLOCK + 1, end: 3 },
    { maxBytes: 1, end: 1 },
    { maxBytes: 0, end: 1 },
    { maxBytes: 1e9, end: 20 },
  ])('after $maxBytes bytes, and at least a block: before block $end', ({ maxBytes, end }) => {
    expect(new Rig(20 * BLOCK - 1).stretches.endOf(0, { maxBytes, skipBytes: BLOCK })).toBe(end);
  });

  it('before the next stretch', () => {
    const { stretches } = new Rig(20 * BLOCK);
    stretches.begin({ start: 12, end: 15 });
    stretches.begin({ start: 8, end: 10 });
    stretches.begin({ start: 0, end: 3 });
    expect(stretches.endOf(3, { maxBytes: MIB, skipBytes: BLOCK })).toBe(8);
    expect(stretches.endOf(10, { maxBytes: MIB, skipBytes: BLOCK })).toBe(12);
  });

  it('before a long run of synced blocks, and not before a short one', () => {
    const rig = new Rig(30 * BLOCK);
    rig.sync(4, 6);
    rig.sync(10, 13);
    expect(rig.stretches.endOf(0, { maxBytes: MIB, skipBytes: 3 * BLOCK })).toBe(10);
    expect(rig.stretches.endOf(0, { maxBytes: MIB, skipBytes: 2 * BLOCK })).toBe(4);
    expect(rig.stretches.endOf(0, { maxBytes: MIB, skipBytes: 4 * BLOCK })).toBe(30);
  });

  it('before a run of synced blocks of any length that lasts to its limit', () => {
    const rig = new Rig(30 * BLOCK);
    rig.sync(9, 11);
    expect(rig.stretches.endOf(0, { maxBytes: 10 * BLOCK, skipBytes: MIB })).toBe(9);
  });
});

describe('the progress of a stretch', () => {
  it('counts whole blocks, and a short last block as a whole one', () => {
    const stretch = new Rig(5 * BLOCK + 7).stretches.begin({ start: 2, end: 6 });
    expect(progress(stretch)).toEqual({ at: 2 * BLOCK, recorded: 2, filled: 2 });
    stretch.advance(BLOCK + 10);
    expect(progress(stretch)).toEqual({ at: 3 * BLOCK + 10, recorded: 2, filled: 3 });
    stretch.advance(2 * BLOCK - 10);
    expect(stretch.filled).toBe(5);
    stretch.advance(6);
    expect(stretch.filled).toBe(5);
    stretch.advance(1);
    expect(stretch.filled).toBe(6);
  });

  it('is recorded once per block, in order', async () => {
    const rig = new Rig(10 * BLOCK);
    const stretch = rig.stretches.begin({ start: 0, end: 10 });
    await stretch.recordAll();
    stretch.advance(3 * BLOCK + 5);
    await stretch.recordAll();
    await stretch.recordAll();
    stretch.advance(2 * BLOCK);
    await stretch.recordAll();
    expect(rig.recorded).toEqual([
      [0, 3],
      [3, 5],
    ]);
    expect(stretch.recorded).toBe(5);
  });

  it('continues after zeros, up to the end of a short last block', async () => {
    const rig = new Rig(9 * BLOCK + 1);
    const stretch = rig.stretches.begin({ start: 4, end: 10 });
    await stretch.recordZeroes(6);
    expect(progress(stretch)).toEqual({ at: 6 * BLOCK, recorded: 6, filled: 6 });
    await stretch.recordZeroes(10);
    expect(progress(stretch)).toEqual({ at: 9 * BLOCK + 1, recorded: 10, filled: 10 });
    expect(rig.recorded).toEqual([
      [4, 6],
      [6, 10],
    ]);
  });

  it('is due for a record after 1 MiB, after 250 ms, or when a reader waits', async () => {
    const rig = new Rig(8 * MIB);
    const stretch = rig.stretches.begin({ start: 0, end: (8 * MIB) / BLOCK });
    await rig.clock.advance(1000);
    stretch.beginRequest();
    stretch.advance(MIB - 1);
    expect(stretch.isRecordDue).toBe(false);
    stretch.advance(1);
    expect(stretch.isRecordDue).toBe(true);
    await stretch.recordAll();
    expect(stretch.isRecordDue).toBe(false);
    await rig.clock.advance(249);
    expect(stretch.isRecordDue).toBe(false);
    await rig.clock.advance(1);
    expect(stretch.isRecordDue).toBe(true);
    await stretch.recordAll();
    void stretch.reaching(1000);
    expect(stretch.isRecordDue).toBe(true);
  });

  it('is recorded while the copy continues, one record after the other', async () => {
    const rig = new Rig(10 * BLOCK);
    rig.isSlow = true;
    const stretch = rig.stretches.begin({ start: 0, end: 10 });
    stretch.advance(2 * BLOCK);
    await stretch.startNextRecord();
    expect(rig.recorded).toEqual([[0, 2]]);
    stretch.advance(BLOCK);
    const next = settled(stretch.startNextRecord());
    await rig.clock.advance(0);
    expect(next()).toBe(false);
    expect(rig.recorded.length).toBe(1);
    await rig.write();
    expect(next()).toBe(true);
    expect(rig.recorded).toEqual([
      [0, 2],
      [2, 3],
    ]);
    const all = settled(stretch.recordAll());
    await rig.clock.advance(0);
    expect(all()).toBe(false);
    await rig.write();
    expect(all()).toBe(true);
    expect(stretch.recorded).toBe(3);
  });

  it('reports a failed record at once, and records nothing afterwards', async () => {
    const rig = new Rig(10 * BLOCK);
    rig.isSlow = true;
    const stretch = rig.stretches.begin({ start: 0, end: 10 });
    stretch.advance(BLOCK);
    stretch.startRecord();
    const failure = new Error('no space');
    await rig.fail(failure);
    expect(rig.failures).toEqual([failure]);
    stretch.advance(BLOCK);
    await expect(stretch.recordAll()).rejects.toBe(failure);
    expect(rig.recorded).toEqual([[0, 1]]);
    expect(stretch.recorded).toBe(0);
  });
});

describe('a reader', () => {
  function flowing(): { rig: Rig; stretch: Stretch } {
    const rig = new Rig(100 * BLOCK);
    const stretch = rig.stretches.begin({ start: 10, end: 50 });
    stretch.advance(10 * BLOCK);
    return { rig, stretch };
  }

  it.each([
    { blocks: { start: 9, end: 11 }, waits: false, name: 'before the stretch' },
    { blocks: { start: 10, end: 20 }, waits: true, name: 'on the target' },
    { blocks: { start: 20, end: 23 }, waits: true, name: 'within reach' },
    { blocks: { start: 20, end: 24 }, waits: false, name: 'beyond reach' },
    { blocks: { start: 48, end: 51 }, waits: false, name: 'beyond the end' },
  ])('of blocks $name waits: $waits', ({ blocks, waits }) => {
    const { rig } = flowing();
    expect(rig.stretches.reaching(blocks, 3 * BLOCK) !== undefined).toBe(waits);
  });

  it('of blocks on the target has them recorded at once', async () => {
    const { rig } = flowing();
    const reached = settled(rig.stretches.reaching({ start: 12, end: 15 }, 0));
    expect(rig.recorded).toEqual([[10, 20]]);
    await rig.clock.advance(0);
    expect(reached()).toBe(true);
  });

  it('of blocks that are recorded does not wait', async () => {
    const { rig, stretch } = flowing();
    await stretch.recordAll();
    expect(rig.stretches.reaching({ start: 12, end: 15 }, MIB)).toBeUndefined();
    expect(rig.stretches.reaching({ start: 19, end: 21 }, MIB)).toBeUndefined();
  });

  it('is woken when its last block is recorded, and not by an earlier record', async () => {
    const { rig, stretch } = flowing();
    const near = settled(rig.stretches.reaching({ start: 20, end: 22 }, MIB));
    const far = settled(rig.stretches.reaching({ start: 20, end: 23 }, MIB));
    stretch.advance(2 * BLOCK + 100);
    await stretch.recordAll();
    await rig.clock.advance(0);
    expect([near(), far()]).toEqual([true, false]);
    expect(stretch.isRecordDue).toBe(true);
    stretch.advance(BLOCK);
    await stretch.recordAll();
    await rig.clock.advance(0);
    expect(far()).toBe(true);
    expect(stretch.isRecordDue).toBe(false);
  });

  it('is woken when its stretch ends, complete or not, and when the rate limit delays the copy', async () => {
    for (const end of ['finish', 'wakeAll']) {
      const { rig, stretch } = flowing();
      const reached = settled(rig.stretches.reaching({ start: 45, end: 50 }, MIB));
      if (end === 'finish') rig.stretches.finish(stretch);
      else stretch.wakeAll();
      await rig.clock.advance(0);
      expect(reached()).toBe(true);
    }
  });
});
