/**
 * Many concurrent users of one device and a background copy, over a source and a file system that answer in random
 * order. Every byte read must be allowed by the overlapping writes. A failure prints its seed.
 *
 * COD_CONCURRENCY_SEED=… runs that seed only; COD_CONCURRENCY_ROUNDS=… sets the number of seeds.
 */

import { setImmediate as immediate } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { openDeviceIn } from '../../src/device/open.ts';
import { memfsFileSystem } from '../../src/fs/memfs.ts';
import { type Device, isCodError } from '../../src/index.ts';
import { type Random, seededRandom } from '../../src/testing/index.ts';
import { expectBytes } from '../support/bytes.ts';
import { ControlledSource } from '../support/controlled-source.ts';
import { effort } from '../support/effort.ts';
import { Scheduler, slowFileSystem } from '../support/scheduler.ts';

const BLOCK = 4096;
const ROUNDS = effort('COD_CONCURRENCY_ROUNDS', { short: 20, long: 400 });
const ONLY_SEED = process.env['COD_CONCURRENCY_SEED'];

interface TimedWrite {
  readonly start: number;
  readonly end: number;
  /** The value of all bytes of the write. */
  readonly value: number;
  readonly from: number;
  /** When the write became visible for good: when it resolved or a reader saw it. Infinite if it failed. */
  until: number;
}

/** The values that reads may return for each byte when writes and reads overlap in time. */
class ConcurrentHistory {
  readonly #source: Uint8Array;
  readonly #writes: TimedWrite[] = [];
  #tick = 0;

  constructor(source: Uint8Array) {
    this.#source = source;
  }

  /** Ticks are finer than turns: no two events share a tick. */
  tick(): number {
    return ++this.#tick;
  }

  beginWrite(start: number, end: number, value: number): TimedWrite {
    const write = { start, end, value, from: this.tick(), until: Number.POSITIVE_INFINITY };
    this.#writes.push(write);
    return write;
  }

  /** The error in a read that began at `began` and ends now, if any. */
  violation(found: Uint8Array, offset: number, began: number): string | undefined {
    const ended = this.tick();
    const end = offset + found.length;
    const near = this.#writes.filter((write) => write.start < end && write.end > offset);
    const edges = [...new Set([offset, end, ...near.flatMap((write) => [write.start, write.end])])]
      .filter((edge) => edge >= offset && edge <= end)
      .sort((a, b) => a - b);
    const seen = new Map<TimedWrite, Set<number>>();
    const fromSource: { at: number; covering: TimedWrite[] }[] = [];
    for (let index = 0; index + 1 < edges.length; index++) {
      const from = edges[index]!;
      const covering = near.filter((write) => write.start <= from && from < write.end);
      // A write that was visible for good before the read began supersedes all writes visible before it began.
      const gone = Math.max(0, ...covering.filter((write) => write.until < began).map((write) => write.from));
      const allowed = covering.filter((write) => write.until > gone);
      for (let at = from; at < edges[index + 1]!; at++) {
        const value = found[at - offset];
        if (gone === 0 && value === this.#source[at]) {
          if (at === from || at % BLOCK === 0) fromSource.push({ at, covering });
          continue;
        }
        const by = allowed.filter((write) => write.value === value);
        if (by.length === 0) {
          const writes = covering.map((write) => `${write.value} (${write.from} to ${write.until})`);
          const place = `byte ${at} (block ${Math.floor(at / BLOCK)}) reads ${value} from ${began} to ${ended}`;
          return `${place}; the source has ${this.#source[at]}, writes: ${writes.join(', ') || 'none'}`;
        }
        if (by.length === 1) seen.set(by[0]!, (seen.get(by[0]!) ?? new Set()).add(Math.floor(at / BLOCK)));
      }
    }
    // Reads and writes of one block exclude each other, so a write seen in part of a block was in all of the block.
    for (const { at, covering } of fromSource) {
      const torn = covering.find((write) => seen.get(write)?.has(Math.floor(at / BLOCK)));
      if (torn !== undefined)
        return `byte ${at} is the source's ${this.#source[at]}, but its block has bytes of the write of ${torn.value}`;
    }
    // A write is atomic in each block but not across blocks, so only a write within one block is visible for good here.
    for (const write of seen.keys()) {
      if (Math.floor(write.start / BLOCK) === Math.floor((write.end - 1) / BLOCK))
        write.until = Math.min(write.until, ended);
    }
    return undefined;
  }
}

interface Round {
  readonly random: Random;
  readonly history: ConcurrentHistory;
  readonly size: number;
  readonly value: () => number;
}

const EXPECTED_ERRORS = ['COD_SOURCE_IO', 'COD_SHORT_READ'] as const;

/** Whether an operation succeeded; false if the source failed. */
async function unlessSourceFails(task: Promise<void>): Promise<boolean> {
  try {
    await task;
    return true;
  } catch (error) {
    if (EXPECTED_ERRORS.some((code) => isCodError(error, code))) return false;
    throw error;
  }
}

async function user(device: Device, { random, history, size, value }: Round, steps: number): Promise<void> {
  for (let step = 0; step < steps; step++) {
    for (let turns = random.below(4); turns > 0; turns--) await immediate();
    const offset = random.below(size);
    const length = 1 + random.below(Math.min(size - offset, random.oneIn(2) ? 4 * BLOCK : 600));
    switch (random.below(10)) {
      case 0:
        await (random.oneIn(3) ? device.checkpoint() : device.flush());
        break;
      case 1: {
        const start = Math.ceil(offset / BLOCK) * BLOCK;
        const end = offset + length === size ? size : Math.floor((offset + length) / BLOCK) * BLOCK;
        const write = start < end ? history.beginWrite(start, end, 0) : undefined;
        await device.discard(offset, length);
        if (write !== undefined) write.until = Math.min(write.until, history.tick());
        break;
      }
      case 2: {
        const write = history.beginWrite(offset, offset + length, 0);
        if (await unlessSourceFails(device.writeZeroes(offset, length)))
          write.until = Math.min(write.until, history.tick());
        break;
      }
      case 3:
      case 4:
      case 5: {
        const write = history.beginWrite(offset, offset + length, value());
        const bytes = new Uint8Array(length).fill(write.value);
        if (await unlessSourceFails(device.write(bytes, offset, { fua: random.oneIn(8) }))) {
          write.until = Math.min(write.until, history.tick());
        }
        break;
      }
      default: {
        const began = history.tick();
        const found = new Uint8Array(length).fill(0xee);
        if (!(await unlessSourceFails(device.read(found, offset)))) break;
        const wrong = history.violation(found, offset, began);
        if (wrong !== undefined) throw new Error(wrong);
      }
    }
  }
}

async function round(seed: number): Promise<void> {
  const random = seededRandom(seed);
  const size = 10 * BLOCK + random.below(10 * BLOCK);
  // Source bytes are at least 128, written bytes are below 128, and discards give 0.
  const content = random.fill(new Uint8Array(size)).map((byte) => byte | 128);
  const history = new ConcurrentHistory(content);
  let values = 0;
  const plan: Round = { random: random.fork(), history, size, value: () => 1 + (values++ % 127) };
  const chaos = random.fork();
  const readErrors = random.oneIn(3);
  const streamErrors = random.oneIn(6);
  const source = new ControlledSource(content, {
    streams: random.oneIn(2),
    pieceBytes: () => 1 + chaos.below(chaos.oneIn(3) ? 3 * BLOCK : 1500),
  });
  const patience = 1 + random.below(8);
  const scheduler = new Scheduler(random.fork(), () => {
    for (const answer of chaos.shuffle([...source.pending])) {
      if (!chaos.oneIn(patience)) continue;
      const fails = answer.ask.kind === 'read' ? readErrors : streamErrors;
      if (fails && chaos.oneIn(25)) answer.fail();
      else answer.release();
    }
  });
  const fileSystem = slowFileSystem(memfsFileSystem(), scheduler, random.fork());
  const open = (hydrating: boolean): Promise<Device> =>
    openDeviceIn(
      { clock: scheduler, randomBytes: (into) => into.fill(1) },
      {
        source,
        fileSystem,
        target: 'disk',
        checkpointIntervalMs: 200,
        hydrate: hydrating && {
          ...(random.oneIn(2) && { concurrency: 1 + random.below(4) }),
          ...(random.oneIn(2) && { extentBytes: 1 + random.below(5 * BLOCK) }),
        },
      },
    );
  const work = async (): Promise<void> => {
    for (let life = 0; life < 2; life++) {
      const device = await open(life > 0 || !random.oneIn(4));
      await Promise.all(Array.from({ length: 6 }, () => user(device, plan, 8)));
      await device.close();
    }
    // All operations have ended, and the source no longer fails.
    const before = new Uint8Array(size);
    const calm = new ControlledSource(content, { pieceBytes: () => 3000 });
    const last = await openDeviceIn(
      { clock: scheduler, randomBytes: (into) => into.fill(1) },
      { source: calm, fileSystem, target: 'disk', hydrate: false },
    );
    const began = history.tick();
    await calm.serve(last.read(before, 0));
    const wrong = history.violation(before, 0, began);
    if (wrong !== undefined) throw new Error(`at the end, ${wrong}`);
    await last.close();
    const hydrating = await openDeviceIn(
      { clock: scheduler, randomBytes: (into) => into.fill(1) },
      { source: calm, fileSystem, target: 'disk' },
    );
    await calm.serve(hydrating.hydrated);
    const after = new Uint8Array(size);
    await hydrating.read(after, 0);
    expectBytes(after, before);
    await hydrating.finish();
    const target = await fileSystem.open('disk');
    await target.read(after, 0);
    expectBytes(after, before);
  };
  await scheduler.run(work());
}

describe('many concurrent users', () => {
  it(
    'read bytes that the overlapping writes allow, and at the end the last writes',
    async () => {
      const seeds =
        ONLY_SEED === undefined ? Array.from({ length: ROUNDS }, (_, index) => index + 1) : [Number(ONLY_SEED)];
      for (const seed of seeds) {
        try {
          await round(seed);
        } catch (error) {
          throw new Error(`seed ${seed} (COD_CONCURRENCY_SEED=${seed}): ${(error as Error).message}`, { cause: error });
        }
      }
      expect(seeds.length).toBeGreaterThan(0);
    },
    60_000 + 1000 * ROUNDS,
  );
});
