/** All devices of a thread share an instance of the core, and recoveries share another one. */

import { Volume } from 'memfs';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { CopyState } from '../../src/core/copy-state.ts';
import { geometry } from '../../src/core/geometry.ts';
import { openDeviceIn } from '../../src/device/open.ts';
import type { InlineDevice } from '../../src/device/types.ts';
import type { FileSystem } from '../../src/fs/file-system.ts';
import { memfsFileSystem } from '../../src/fs/memfs.ts';
import { inspectMetadata } from '../../src/log/inspect.ts';
import type { Source } from '../../src/sources/source.ts';
import { SimulatedClock, seededRandom } from '../../src/testing/index.ts';
import { Core } from '../../src/wasm/core.ts';
import { parsing, sharedCore } from '../../src/wasm/cores.ts';
import { ended } from '../core/models.ts';

const BLOCK = 4096;
const SIZE = 2 ** 20;
const GIB = 2 ** 30;

afterEach(() => vi.restoreAllMocks());

const source: Source = { size: SIZE, identity: 'zeros', read: async () => undefined, close: async () => undefined };
const noMemory = { code: 'COD_NO_MEMORY' };
const poisoned = { code: 'COD_POISONED' };

function files(): FileSystem {
  return memfsFileSystem(new Volume());
}

function open(fileSystem = files()): Promise<InlineDevice> {
  return openDeviceIn(
    { clock: new SimulatedClock(), randomBytes: (into) => into.fill(1) },
    { source, fileSystem, target: 'disk', hydrate: false, checkpointIntervalMs: Number.POSITIVE_INFINITY },
  );
}

/** Leaves `count` blocks dirty, some of them with several parts. */
async function makeDirty(device: InlineDevice, count: number): Promise<void> {
  for (let block = 0; block < count; block++)
    for (let part = 0; part <= block % 5; part++)
      await device.write(new Uint8Array(7).fill(block), block * BLOCK + part * 20);
}

/** Makes the next call of the shared instance trap. */
function breakShared(): void {
  expect(() => sharedCore().exports.crc32c(2 ** 31, 1024, 0)).toThrow();
}

describe('the shared instance', () => {
  it('returns all memory of devices that are closed, poisoned or not opened', async () => {
    const core = sharedCore();
    const random = seededRandom(5);
    const cycle = async (): Promise<void> => {
      const fileSystem = files();
      const device = await open(fileSystem);
      await makeDirty(device, random.below(20));
      if (random.oneIn(3)) await device.checkpoint();
      await device.close();
      const again = await open(fileSystem);
      await makeDirty(again, 3);
      await again.close();
      const refused = openDeviceIn(
        { clock: new SimulatedClock(), randomBytes: () => undefined },
        { source, fileSystem, target: 'disk', hydrate: { order: [{ offset: 2 ** 40, length: 1 }] } },
      );
      await expect(refused).rejects.toThrow(RangeError);
      await inspectMetadata(fileSystem, 'disk');
    };
    for (let round = 0; round < 20; round++) await cycle();
    // The end of the memory shows in what is left of it.
    const isLeft = (bytes: number): boolean => core.hasRoom(0, bytes);
    let [low, high] = [0, 2 * GIB];
    while (high - low > 1) {
      const middle = Math.floor((low + high) / 2);
      if (isLeft(middle)) low = middle;
      else high = middle;
    }
    for (let round = 0; round < 180; round++) await cycle();
    expect(sharedCore()).toBe(core);
    expect([isLeft(low), isLeft(low + 1)]).toEqual([true, false]);
  });

  it('has the state of a copy that is opened, as its metadata says', async () => {
    const fileSystem = files();
    const device = await open(fileSystem);
    await makeDirty(device, 50);
    await device.checkpoint();
    await makeDirty(device, 60);
    const before = (await inspectMetadata(fileSystem, 'disk')).dirty;
    await device.close();
    const create = vi.spyOn(Core, 'create');
    const again = await open(fileSystem);
    expect(create).not.toHaveBeenCalled();
    expect(again.status().dirtyBlocks).toBe(60);
    expect((await inspectMetadata(fileSystem, 'disk')).dirty).toEqual(before);
    await again.close();
  });

  it('that traps poisons each of its devices at its next call, and later devices get another', async () => {
    const fileSystem = files();
    const devices = [await open(fileSystem), await open(), await open(), await open()];
    for (const device of devices) await makeDirty(device, 10);
    const core = sharedCore();
    breakShared();
    const [one, two, three, four] = devices as [InlineDevice, InlineDevice, InlineDevice, InlineDevice];
    await expect(one.write(new Uint8Array(10), 100_000)).rejects.toMatchObject(poisoned);
    await expect(two.read(new Uint8Array(BLOCK), 0)).rejects.toMatchObject(poisoned);
    await expect(three.flush()).rejects.toMatchObject(poisoned);
    expect(four.status()).toMatchObject({ state: 'poisoned', syncedBlocks: 0 });
    for (const device of devices) await device.close();
    expect(sharedCore()).not.toBe(core);
    const again = await open(fileSystem);
    expect(again.status().dirtyBlocks).toBe(10);
    await again.close();
  });

  it('that is nearly full refuses what needs more, and poisons no device', async () => {
    const [device, other] = [await open(), await open()];
    await makeDirty(device, 3);
    const core = sharedCore();
    const taken = [GIB, GIB / 2, GIB / 4, GIB / 8].map((bytes) => [core.exports.alloc(bytes), bytes] as const);
    // A write in part would leave a block dirty. The block is fetched and becomes whole as long as records have room.
    await device.write(new Uint8Array(5).fill(1), 10 * BLOCK + 5);
    expect(device.status()).toMatchObject({ syncedBlocks: 1, dirtyBlocks: 3 });
    await device.flush();
    taken.push([core.exports.alloc(GIB / 16), GIB / 16]);
    await expect(device.write(new Uint8Array(BLOCK), 11 * BLOCK)).rejects.toMatchObject(noMemory);
    await device.write(new Uint8Array(5).fill(2), 10 * BLOCK + 5);
    await device.flush();
    expect([device.status().state, other.status().state]).toEqual(['idle', 'idle']);
    // A new device gets another instance.
    const late = await open();
    await makeDirty(late, 5);
    expect(sharedCore()).not.toBe(core);
    for (const each of [device, other, late]) await each.close();
    for (const [at, bytes] of taken) core.exports.free(at, bytes);
  });

  it('has no place for more than an instance holds', () => {
    expect(() => sharedCore(2 * GIB)).toThrow(expect.objectContaining(noMemory));
  });
});

describe('a state that moves to another instance', () => {
  it('is the same there, and leaves nothing behind', async () => {
    const shape = geometry({ size: 2 ** 37, blockSize: BLOCK });
    const [from, to] = [Core.create(), Core.create()];
    const state = await CopyState.open(from, shape);
    const random = seededRandom(9);
    for (let write = 0; write < 20_000; write++) state.apply(random.below(2 ** 36 - 4100), 1 + random.below(4000));
    const before = [...state.dirtyBlocks()];
    await ended(state.moving(to));
    expect([...state.dirtyBlocks()]).toEqual(before);
    from.exports.setLimit(1);
    state.apply(0, 1);
    state.dispose();
  });
});

describe('the parsing instance', () => {
  it('is kept for the next task, unless it has grown or failed', async () => {
    const first = await parsing(async (core) => core);
    expect(await parsing(async (core) => core)).toBe(first);
    await parsing(async ({ exports }) => exports.free(exports.alloc(2 ** 25), 2 ** 25));
    const second = await parsing(async (core) => core);
    expect(second).not.toBe(first);
    const failing = parsing(async ({ exports }) => exports.crc32c(2 ** 31, 1024, 0));
    await expect(failing).rejects.toMatchObject({ code: 'COD_BUG' });
    expect(await parsing(async (core) => core)).not.toBe(second);
  });

  it('serves recoveries and inspections that overlap', async () => {
    const copies = await Promise.all(
      Array.from({ length: 30 }, async (_, index) => {
        const fileSystem = files();
        const device = await open(fileSystem);
        await makeDirty(device, index);
        if (index % 2 === 0) await device.close();
        return { fileSystem, device, index };
      }),
    );
    await Promise.all(
      copies.map(async ({ fileSystem, device, index }) => {
        expect((await inspectMetadata(fileSystem, 'disk')).dirty.length).toBe(index);
        if (index % 2 === 1) return device.close();
        const again = await open(fileSystem);
        expect(again.status().dirtyBlocks).toBe(index);
        await again.close();
      }),
    );
  });
});
