/** Which blocks the background copy fetches first, and how much an order speeds up the second boot of an image. */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as immediate } from 'node:timers/promises';
import fc from 'fast-check';
import { afterEach, describe, expect, it, onTestFinished } from 'vitest';
import { geometry } from '../../src/core/geometry.ts';
import { HydrationOrder } from '../../src/device/hydration-order.ts';
import { openDeviceIn } from '../../src/device/open.ts';
import {
  type ByteExtent,
  bytesSource,
  type Device,
  type OpenDeviceOptions,
  openDevice,
  type ReadExtent,
  ReadRecorder,
  type Source,
} from '../../src/index.ts';
import { nodeFileSystem } from '../../src/node.ts';
import { CrashingFileSystem, SimulatedClock, seededRandom } from '../../src/testing/index.ts';
import { expectBytes } from '../support/bytes.ts';
import { ControlledSource, TimedSource } from '../support/controlled-source.ts';

const BLOCK = 4096;
const MIB = 2 ** 20;

/** The simplest map of synced blocks. */
class PlainMap {
  readonly synced = new Set<number>();

  nextUnsynced(from: number, limit: number): number {
    let block = from;
    while (block < limit && this.synced.has(block)) block++;
    return block;
  }
}

const untaken = () => undefined;

describe('an order', () => {
  it('is used as given if its extents are far apart', () => {
    const order = new HydrationOrder(
      [
        { offset: 9 * MIB, length: 10 },
        { offset: 0, length: BLOCK + 1 },
        { offset: 5 * MIB - 1, length: 2 },
      ],
      geometry({ size: 10 * MIB, blockSize: BLOCK }),
    );
    const map = new PlainMap();
    const taken = [];
    for (let next = order.next(map, untaken); next !== undefined; next = order.next(map, untaken)) {
      taken.push([next.start, next.end]);
      for (let block = next.start; block < next.end; block++) map.synced.add(block);
    }
    expect(taken).toEqual([
      [2304, 2305],
      [0, 2],
      [1279, 1281],
    ]);
  });

  it('joins extents that are close in time and place, and no extents far apart in time', () => {
    const near: ByteExtent[] = [
      { offset: 2 * MIB, length: BLOCK },
      { offset: 8 * MIB, length: BLOCK },
      { offset: 2 * MIB + 100_000, length: BLOCK },
      { offset: 2 * MIB - 200_000, length: BLOCK },
    ];
    // More bytes than a group may hold are between these extents and the last.
    const late = [
      { offset: 20 * MIB, length: 5 * MIB },
      { offset: 8 * MIB + BLOCK, length: BLOCK },
    ];
    const order = new HydrationOrder([...near, ...late], geometry({ size: 32 * MIB, blockSize: BLOCK }));
    const map = new PlainMap();
    const first = order.next(map, untaken)!;
    expect(first).toEqual({
      start: Math.floor((2 * MIB - 200_000) / BLOCK),
      end: Math.ceil((2 * MIB + 100_000 + BLOCK) / BLOCK),
    });
    expect(order.next(map, (block) => (block < 1000 ? first : undefined))).toEqual({ start: 2048, end: 2049 });
  });

  it('returns every unsynced and free block of its extents exactly once', () => {
    const extent = fc.record({ offset: fc.nat(99 * BLOCK), length: fc.integer({ min: 1, max: BLOCK }) });
    fc.assert(
      fc.property(fc.array(extent, { maxLength: 30 }), fc.array(fc.nat(99)), (extents, synced) => {
        const order = new HydrationOrder(extents, geometry({ size: 100 * BLOCK, blockSize: BLOCK }));
        const map = new PlainMap();
        for (const block of synced) map.synced.add(block);
        const had: { start: number; end: number }[] = [];
        const takenBy = (block: number) => had.find(({ start, end }) => start <= block && block < end);
        for (let next = order.next(map, takenBy); next !== undefined; next = order.next(map, takenBy)) {
          expect(takenBy(next.start)).toBeUndefined();
          expect(map.synced.has(next.start)).toBe(false);
          // As the hydrator does: up to the next block that is synced or taken.
          let end = next.start;
          while (end < next.end && !map.synced.has(end) && takenBy(end) === undefined) end++;
          had.push({ start: next.start, end });
        }
        for (const { offset, length } of extents) {
          for (const at of [offset, offset + length - 1]) {
            const block = Math.floor(at / BLOCK);
            expect(map.synced.has(block) || takenBy(block) !== undefined, `block ${block}`).toBe(true);
          }
        }
      }),
    );
  });
});

const opened: Device[] = [];

afterEach(async () => {
  for (const device of opened.splice(0)) await device.close().catch(() => undefined);
});

async function open(clock: SimulatedClock, source: Source, options: Partial<OpenDeviceOptions>): Promise<Device> {
  const fileSystem = new CrashingFileSystem({ bootId: 'boot' });
  const environment = { clock, randomBytes: (into: Uint8Array) => void into.fill(7) };
  const device = await openDeviceIn(environment, { source, fileSystem, target: 'disk', ...options });
  opened.push(device);
  return device;
}

describe('a device with an order', () => {
  it.each([
    { streams: true, concurrency: 1 },
    { streams: false, concurrency: 1 },
  ])(
    'fetches the order first, then the rest, and no byte twice: streams $streams',
    async ({ streams, concurrency }) => {
      const clock = new SimulatedClock({ settle: () => immediate() });
      const bytes = seededRandom(3).fill(new Uint8Array(8 * MIB + 77));
      const source = new ControlledSource(bytes, { streams, pieceBytes: () => 100_000 });
      const order = [
        { offset: 6 * MIB, length: 300_000 },
        { offset: 3 * MIB + 5, length: 400_000 },
        { offset: 8 * MIB + 70, length: 7 },
      ];
      const device = await open(clock, source, { hydrate: { order, concurrency } });
      await source.serve(device.hydrated);
      expect(source.asked().slice(0, 3)).toEqual([
        [6 * MIB, 303_104],
        [3 * MIB, 401_408],
        [8 * MIB, 77],
      ]);
      expect(source.deliveredBytes).toBe(bytes.length);
      const found = new Uint8Array(bytes.length);
      await device.read(found, 0);
      expectBytes(found, bytes);
    },
  );

  it('refuses an order outside its source', async () => {
    const clock = new SimulatedClock();
    const source = new ControlledSource(new Uint8Array(BLOCK));
    for (const extent of [
      { offset: -1, length: 1 },
      { offset: 1, length: BLOCK },
      { offset: 0.5, length: 1 },
      { offset: 0, length: Number.NaN },
    ]) {
      await expect(open(clock, source, { hydrate: { order: [extent] } })).rejects.toThrow(RangeError);
    }
  });

  it('reports reads by users, and none by the background copy', async () => {
    const clock = new SimulatedClock({ settle: () => immediate() });
    const source = new ControlledSource(new Uint8Array(4 * MIB));
    const reads: [number, number][] = [];
    const device = await open(clock, source, { onRead: (offset, length) => void reads.push([offset, length]) });
    await source.serve(device.read(new Uint8Array(10), 5 * BLOCK + 7));
    await source.serve(device.hydrated);
    await device.read(new Uint8Array(3), 9);
    await device.read(new Uint8Array(0), 9);
    await expect(device.read(new Uint8Array(3), 4 * MIB)).rejects.toThrow(RangeError);
    expect(reads).toEqual([
      [5 * BLOCK + 7, 10],
      [9, 3],
    ]);
  });
});

it('reports synchronous reads too', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'cod-order-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  const reads: [number, number][] = [];
  const device = await openDevice({
    source: bytesSource(new Uint8Array(BLOCK)),
    fileSystem: nodeFileSystem(directory),
    target: 'disk',
    onRead: (offset, length) => void reads.push([offset, length]),
  });
  opened.push(device);
  await device.hydrated;
  await device.read(new Uint8Array(5), 70);
  await expect(device.read(new Uint8Array(5), BLOCK)).rejects.toThrow(RangeError);
  expect(reads).toEqual([[70, 5]]);
});

describe('the second boot of an image', () => {
  const SIZE = 2 ** 32;
  const LATENCY_MS = 20;
  const FIRMWARE_MS = 400;

  /** The reads of a boot: runs of files all over the image, each after some work of the guest. */
  function bootReads(seed: number): { offset: number; length: number; workMs: number }[] {
    const random = seededRandom(seed);
    const reads = [];
    for (let file = 0; file < 120; file++) {
      const offset = random.below(SIZE / BLOCK - 200) * BLOCK;
      const pieces = 1 + random.below(6);
      for (let piece = 0; piece < pieces; piece++) {
        reads.push({ offset: offset + piece * 32_768, length: 1 + random.below(32_768), workMs: 1 + random.below(8) });
      }
    }
    return reads;
  }

  /** Boots from a fresh copy. Returns the number of reads that waited for the source, and the recorded extents. */
  async function boot(order: readonly ByteExtent[]): Promise<{ reads: number; waited: number; noted: ReadExtent[] }> {
    const clock = new SimulatedClock({ settle: () => immediate() });
    const source = new TimedSource(clock, {
      size: SIZE,
      latencyMs: LATENCY_MS,
      bytesPerMs: 60_000,
      pieceBytes: 2 ** 18,
    });
    const recorder = new ReadRecorder({ size: SIZE, clock });
    const device = await open(clock, source, {
      hydrate: { order },
      onRead: (offset, length) => recorder.read(offset, length),
    });
    const reads = bootReads(11);
    let waited = 0;
    const guest = async (): Promise<void> => {
      await clock.sleep(FIRMWARE_MS);
      for (const { offset, length, workMs } of reads) {
        const before = clock.now();
        await device.read(new Uint8Array(length), offset);
        if (clock.now() > before) waited++;
        await clock.sleep(workMs);
      }
    };
    await clock.run(guest());
    const noted = recorder.take();
    await clock.run(device.close());
    return { reads: reads.length, waited, noted };
  }

  it('waits for no read, although the first waited for most reads', async () => {
    const first = await boot([]);
    expect(first.waited).toBeGreaterThan(0.5 * first.reads);
    const second = await boot(first.noted);
    expect(second.waited).toBe(0);
  });
});
