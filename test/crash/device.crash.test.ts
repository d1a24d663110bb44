/**
 * Devices that crash at each of their operations, and again while they recover. A failure prints the seed and the place; run it alone with
 * COD_CRASH_SEED=… .
 */

import { describe, expect, it } from 'vitest';
import { openDeviceIn } from '../../src/device/open.ts';
import { bytesSource } from '../../src/sources/bytes.ts';
import { CrashingFileSystem, type Random, SimulatedClock, seededRandom } from '../../src/testing/index.ts';
import { ByteHistory } from '../support/byte-history.ts';
import { expectBytes } from '../support/bytes.ts';

const SEED = Number(process.env['COD_CRASH_SEED'] ?? 1);

interface Shape {
  name: string;
  size: number;
  blockSize: number;
  hydrate: boolean;
}

const SHAPES: readonly Shape[] = [
  { name: 'one block', size: 4096, blockSize: 4096, hydrate: false },
  { name: 'a short last block', size: 5 * 4096 + 700, blockSize: 4096, hydrate: true },
  { name: 'no background copy', size: 8 * 4096, blockSize: 4096, hydrate: false },
  { name: 'blocks of 64 KiB', size: 3 * 65536 + 1000, blockSize: 65536, hydrate: true },
];

interface Life {
  fileSystem: CrashingFileSystem;
  clock: SimulatedClock;
}

function sourceOf(shape: Shape): Uint8Array {
  return seededRandom(99)
    .fill(new Uint8Array(shape.size))
    .map((byte) => byte | 1);
}

function open(shape: Shape, life: Life, random: Random) {
  return openDeviceIn(
    { clock: life.clock, randomBytes: (into) => random.fill(into) },
    {
      source: bytesSource(sourceOf(shape), { identity: 'the source' }),
      fileSystem: life.fileSystem,
      target: 'disk',
      blockSize: shape.blockSize,
      hydrate: shape.hydrate ? {} : false,
      checkpointIntervalMs: 50,
    },
  );
}

/** Some users at once, each doing what its numbers say, until the file system freezes. */
async function workload(shape: Shape, life: Life, history: ByteHistory, random: Random): Promise<void> {
  const device = await open(shape, life, random);
  const user = async (mine: Random): Promise<void> => {
    for (let step = 0; step < 6; step++) {
      const offset = mine.below(shape.size);
      const length = 1 + mine.below(Math.min(shape.size - offset, mine.oneIn(2) ? 3 * shape.blockSize : 900));
      switch (mine.below(8)) {
        case 0: {
          const done = history.beginFlush();
          await device.flush();
          done();
          break;
        }
        case 1:
          await device.checkpoint();
          break;
        case 2:
          await device.read(new Uint8Array(length), offset);
          break;
        case 3: {
          const write = history.begin(offset, new Uint8Array(length));
          await device.writeZeroes(offset, length);
          write.acknowledged = true;
          break;
        }
        case 4: {
          const start = Math.ceil(offset / shape.blockSize) * shape.blockSize;
          const end = offset + length === shape.size ? shape.size : Math.floor((offset + length) / shape.blockSize) * shape.blockSize;
          const write = start < end ? history.begin(start, new Uint8Array(end - start)) : undefined;
          await device.discard(offset, length);
          if (write !== undefined) write.acknowledged = true;
          break;
        }
        default: {
          const bytes = mine.fill(new Uint8Array(length));
          const fua = mine.oneIn(4);
          const write = history.begin(offset, bytes);
          await device.write(bytes, offset, { fua });
          write.acknowledged = true;
          if (fua) write.durable = true;
        }
      }
    }
  };
  await Promise.all([user(random.fork()), user(random.fork())]);
  await device.close();
}

function newLife(random: Random, bootId: string | undefined): Life {
  const clock = new SimulatedClock();
  return { clock, fileSystem: new CrashingFileSystem({ random: random.fork(), clock, ...(bootId === undefined ? {} : { bootId }) }) };
}

function crashed(life: Life, kind: 'process' | 'power', random: Random): Life {
  return { clock: life.clock, fileSystem: life.fileSystem.crash({ kind, random }) };
}

/** Runs until the work is done or the file system is frozen; what else it says is a failure. */
async function runUntilCrash(life: Life, work: Promise<unknown>): Promise<void> {
  work.catch(() => undefined);
  await life.clock.run(Promise.race([work, life.fileSystem.crashed]));
}

async function readAll(device: { size: number; read(into: Uint8Array, offset: number): Promise<void> }): Promise<Uint8Array> {
  const bytes = new Uint8Array(device.size);
  await device.read(bytes, 0);
  return bytes;
}

/** One crash of a workload at operation `at`; returns false if the workload ended before. */
async function crashOnce(shape: Shape, kind: 'process' | 'power', bootId: string | undefined, at: number, seed: number): Promise<boolean> {
  const random = seededRandom(seed);
  const history = new ByteHistory(sourceOf(shape));
  let life = newLife(random, bootId);
  let over = false;
  life.fileSystem.crashAt(at);
  for (let lives = 0; ; lives++) {
    if (lives === 0) {
      const work = workload(shape, life, history, random).then(() => (over = true));
      await runUntilCrash(life, work);
      if (over) return false;
    }
    life = crashed(life, kind, random.fork());
    // Recovery is cut as well, in some of the cases at its first operations.
    if (lives < 2 && random.oneIn(2)) {
      life.fileSystem.crashAt(1 + random.below(40));
      let opened = false;
      const work = open(shape, life, random).then(() => (opened = true));
      await runUntilCrash(life, work);
      if (!opened) continue;
      life = crashed(life, kind, random.fork());
    }
    break;
  }
  const counts = kind === 'process' && bootId !== undefined ? 'acknowledged' : 'durable';
  const device = await life.clock.run(open(shape, life, random));
  const found = await life.clock.run(readAll(device));
  const wrong = history.violation(found, counts);
  if (wrong !== undefined) throw new Error(wrong);
  if (!shape.hydrate) return life.clock.run(device.close()).then(() => true);
  await life.clock.run(device.hydrated);
  expectBytes(await life.clock.run(readAll(device)), found);
  await life.clock.run(device.finish());
  const target = await life.clock.run(life.fileSystem.open('disk'));
  const copied = new Uint8Array(shape.size);
  await life.clock.run(target.read(copied, 0));
  expectBytes(copied, found);
  return true;
}

describe.each(SHAPES)('a device of $name', (shape) => {
  it.each([
    { kind: 'process', bootId: 'boot' },
    { kind: 'process', bootId: undefined },
    { kind: 'power', bootId: 'boot' },
    { kind: 'power', bootId: undefined },
  ] as const)('keeps its promises through a $kind crash at each operation (boot: $bootId)', async ({ kind, bootId }) => {
    let crashes = 0;
    for (let round = 0; round < Number(process.env['COD_CRASH_ROUNDS'] ?? 2); round++) {
      const seed = SEED * 1000 + round;
      for (let at = 1; ; at++) {
        try {
          if (!(await crashOnce(shape, kind, bootId, at, seed))) break;
          crashes++;
        } catch (error) {
          throw new Error(`seed ${seed}, crash at operation ${at}: ${(error as Error).message}`, { cause: error });
        }
      }
    }
    expect(crashes).toBeGreaterThan(50);
  });
});
