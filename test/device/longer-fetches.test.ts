/** A cold read fetches what follows too, where that costs little beside the latency of the source. */

import { setImmediate as immediate } from 'node:timers/promises';
import { expect, it, onTestFinished } from 'vitest';
import { openDeviceIn } from '../../src/device/open.ts';
import { CodError, type Device, type OpenDeviceOptions } from '../../src/index.ts';
import type { InlineSource } from '../../src/sources/source.ts';
import { CrashingFileSystem, SimulatedClock } from '../../src/testing/index.ts';
import { TimedSource } from '../support/controlled-source.ts';

const BLOCK = 4096;
const FAST = { size: 2 ** 24, latencyMs: 20, bytesPerMs: 100_000 };

interface Rig {
  readonly clock: SimulatedClock;
  readonly device: Device;
  /** Reads a byte of each block, one block after the other. */
  read(...blocks: number[]): Promise<void>;
}

async function open(
  makeSource: (clock: SimulatedClock) => InlineSource,
  options: Partial<OpenDeviceOptions> = {},
): Promise<Rig> {
  const clock = new SimulatedClock({ settle: () => immediate() });
  const device = await openDeviceIn(
    { clock, randomBytes: (into) => into.fill(7) },
    { source: makeSource(clock), fileSystem: new CrashingFileSystem(), target: 'disk', hydrate: false, ...options },
  );
  onTestFinished(() => device.close());
  const read = async (...blocks: number[]): Promise<void> => {
    for (const block of blocks) await clock.run(device.read(new Uint8Array(1), block * BLOCK));
  };
  return { clock, device, read };
}

/** Requests as first block and the one after the last. */
function asked({ asks }: TimedSource): [number, number][] {
  return asks.map(({ offset, length }) => [offset / BLOCK, (offset + length) / BLOCK]);
}

it('asks for more with each answer', async () => {
  let source!: TimedSource;
  const { device, read } = await open((clock) => (source = new TimedSource(clock, FAST)));
  await read(1, 11, 21, 101, 201, 301, 401, 501, 601, 701);
  expect(asked(source).map(([start, end]) => [start, end - start])).toEqual([
    [1, 1],
    [11, 1],
    [21, 1],
    [101, 2],
    [201, 4],
    [301, 8],
    [401, 16],
    [501, 32],
    [601, 64],
    [701, 64],
  ]);
  await device.flush();
  expect(device.status().syncedBlocks).toBe(3 + 2 + 4 + 8 + 16 + 32 + 64 + 64);
});

it('ends before what is here, on its way, or past the end', async () => {
  let source!: TimedSource;
  const { clock, device, read } = await open((each) => (source = new TimedSource(each, { ...FAST, size: 2 ** 21 })));
  await read(1, 11, 21, 101, 201, 301);
  await device.write(new Uint8Array(BLOCK), 460 * BLOCK);
  source.asks.length = 0;
  const reads = [480, 470, 455].map((block) => device.read(new Uint8Array(1), block * BLOCK));
  await clock.run(Promise.all(reads));
  await read(505);
  expect(asked(source)).toEqual([
    [480, 496],
    [470, 480],
    [455, 460],
    [505, 512],
  ]);
});

it('asks for little from a slow line', async () => {
  let source!: TimedSource;
  // 16 KiB take 4 ms, a fifth of the latency.
  const { read } = await open((clock) => (source = new TimedSource(clock, { ...FAST, bytesPerMs: 4096 })));
  await read(...Array.from({ length: 64 }, (_, index) => index * 64));
  const longest = Math.max(...source.asks.map(({ length }) => length));
  expect(longest).toBe(32 * 1024);
});

it('does not fail for what follows', async () => {
  const asks: number[] = [];
  const { read } = await open((clock) => ({
    size: 2 ** 24,
    read: async (into, offset) => {
      asks.push(into.length / BLOCK);
      await clock.sleep(20);
      if (offset <= 102 * BLOCK && offset + into.length > 102 * BLOCK)
        throw new CodError('COD_SOURCE_IO', 'bad sector');
    },
    close: async () => undefined,
  }));
  await read(1, 11, 21, 101, 100);
  await expect(read(102)).rejects.toMatchObject({ code: 'COD_SOURCE_IO' });
  expect(asks).toEqual([1, 1, 1, 2, 1, 1, 1]);
});

it('asks for one block of a source that answers at once', async () => {
  const asks: number[] = [];
  const { read } = await open((clock) => ({
    size: 2 ** 24,
    read: () => Promise.reject(new Error('not used')),
    submitRead: (into) => {
      asks.push(into.length);
      return clock.sleep(20);
    },
    close: async () => undefined,
  }));
  await read(1, 11, 21, 101);
  expect(asks).toEqual([BLOCK, BLOCK, BLOCK, BLOCK]);
});

it('asks for one block to complete another that is written', async () => {
  let source!: TimedSource;
  const { clock, device, read } = await open((each) => (source = new TimedSource(each, { ...FAST, size: 2 ** 21 })));
  await read(1, 11, 21);
  for (let part = 0; part < 8; part++) await clock.run(device.write(new Uint8Array(100), 99 * BLOCK + part * 512));
  expect(asked(source).slice(3)).toEqual([]);
});

it.each([
  ['one block while the background copy comes by', {}, 1],
  ['more beside a copy that is held to a rate', { rateBytesPerSecond: 1000 }, 2],
])('asks for %s', async (_, hydrate, blocks) => {
  let source!: TimedSource;
  const { clock, read } = await open((each) => (source = new TimedSource(each, FAST)), { hydrate });
  await clock.advance(1);
  await read(2001, 2501, 3001, 3501);
  const [last] = asked(source).filter(([start]) => start === 3501);
  expect(last).toEqual([3501, 3501 + blocks]);
});
