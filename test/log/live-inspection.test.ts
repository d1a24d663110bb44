/**
 * An inspection while a device has the copy open: whatever the device does between any two reads of the inspection, it
 * reports no damage, and no acknowledged write is missing.
 */

import { expect, it } from 'vitest';
import { openDeviceIn } from '../../src/device/open.ts';
import { bytesSource, type Device, type FileSystem, type Inspection, inspectMetadata } from '../../src/index.ts';
import { CrashingFileSystem, SimulatedClock, seededRandom } from '../../src/testing/index.ts';
import { MemoryFiles } from './memory-files.ts';

const BLOCK = 4096;
const BLOCKS = 64;

function open(fileSystem: FileSystem): Promise<Device> {
  return openDeviceIn(
    { clock: new SimulatedClock(), randomBytes: (into) => into.fill(1) },
    { source: bytesSource(new Uint8Array(BLOCKS * BLOCK).fill(7)), fileSystem, target: 'disk', hydrate: false },
  );
}

/** The files as a reader sees them that is interrupted before each of its reads. */
function interrupted(files: FileSystem, before: (name: string) => Promise<unknown>): FileSystem {
  return {
    open: async (name, how) => {
      const file = await files.open(name, how);
      return {
        size: () => file.size(),
        read: async (into, offset) => {
          await before(name);
          await file.read(into, offset);
        },
        write: (from, offset) => file.write(from, offset),
        truncate: (size) => file.truncate(size),
        sync: () => file.sync(),
        close: () => file.close(),
      };
    },
    remove: (name) => files.remove(name),
  };
}

function syncedBlocks({ synced }: Inspection): Set<number> {
  return new Set(synced.flatMap(([first, last]) => Array.from({ length: last - first + 1 }, (_, at) => first + at)));
}

it.each([
  ['overwrites it', async (write: () => Promise<void>) => write()],
  [
    'makes it firm and overwrites it',
    async (write: () => Promise<void>, device: Device) => {
      await device.flush();
      await write();
    },
  ],
  [
    'overwrites it, makes it firm and overwrites it',
    async (write: () => Promise<void>, device: Device) => {
      await write();
      await device.flush();
      await write();
    },
  ],
  ['takes a checkpoint', async (_: unknown, device: Device) => device.checkpoint()],
])('sees a block that was never flushed if the owner %s before the target is read', async (_, act) => {
  const files = new MemoryFiles();
  const device = await open(files);
  let value = 1;
  const write = (): Promise<void> => device.write(new Uint8Array(BLOCK).fill(value++), 3 * BLOCK);
  await write();
  let acted = 0;
  const reader = interrupted(files, async (name) => {
    if (name === 'disk' && acted++ < 3) await act(write, device);
  });
  expect((await inspectMetadata(reader, 'disk')).synced).toEqual([[3, 3]]);
  expect(acted).toBeGreaterThan(0);
  await device.close();
});

it('is right whatever the owner does between its reads', async () => {
  for (let seed = 0; seed < 150; seed++) {
    const random = seededRandom(seed);
    const files = new MemoryFiles();
    const device = await open(files);
    const acknowledged = new Set<number>();
    const act = async (): Promise<void> => {
      const action = random.below(12);
      if (action === 0 || (seed % 3 === 0 && action < 6)) await device.checkpoint();
      else if (action === 1) await device.flush();
      else {
        // Few blocks, so that most writes meet an unfirm cell.
        const block = random.below(action < 9 ? 6 : BLOCKS);
        await device.write(random.fill(new Uint8Array(BLOCK)), block * BLOCK);
        acknowledged.add(block);
      }
    };
    for (let count = 0; count < 30; count++) await act();
    const before = new Set(acknowledged);
    let left = 40;
    const reader = interrupted(files, async () => {
      if (left-- > 0) await act();
    });
    const found = syncedBlocks(await inspectMetadata(reader, 'disk'));
    expect(
      [...before].filter((block) => !found.has(block)),
      `seed ${seed}`,
    ).toEqual([]);
    expect(
      [...found].filter((block) => !acknowledged.has(block)),
      `seed ${seed}`,
    ).toEqual([]);
    await device.close();
  }
});

it.each([1, 3, 5])('ends if the owner takes a checkpoint whenever it has read a checkpoint %i times', async (every) => {
  const files = new MemoryFiles();
  const device = await open(files);
  await device.write(new Uint8Array(BLOCK).fill(1), 60 * BLOCK);
  let writes = 0;
  let reads = 0;
  const reader = interrupted(files, async (name) => {
    if (!name.startsWith('disk.bak') || ++reads % every !== 0) return;
    // Always in another place, so that there is something to record.
    await device.write(new Uint8Array(8).fill(1), (writes % 32) * BLOCK + Math.floor(writes / 32) * 16);
    writes++;
    await device.checkpoint();
  });
  const inspecting = inspectMetadata(reader, 'disk');
  if (every === 1) await expect(inspecting).rejects.toMatchObject({ code: 'COD_LOCKED' });
  else {
    expect(await inspecting).toMatchObject({ synced: [[60, 60]], files: [{ name: 'disk.bak' }, {}, {}, {}] });
    expect(writes).toBeGreaterThan(3);
  }
  await device.close();
});

it('sees what was lost as lost, and damage as damage', async () => {
  let lost = 0;
  for (let seed = 0; seed < 40; seed++) {
    const before = new CrashingFileSystem();
    const device = await open(before);
    for (let block = 0; block < 8; block++) await device.write(new Uint8Array(BLOCK).fill(9), block * BLOCK);
    const after = before.crash({ kind: 'power', random: seededRandom(seed) });
    const { syncedBlocks } = await inspectMetadata(after, 'disk');
    const again = await open(after);
    expect(again.status().syncedBlocks).toBe(syncedBlocks);
    await again.close();
    if (syncedBlocks < 8) lost++;
  }
  expect(lost).toBeGreaterThan(10);
  const files = new MemoryFiles();
  const device = await open(files);
  await device.write(new Uint8Array(BLOCK).fill(9), 0);
  await device.flush();
  await device.close();
  const file = await files.open('disk.bak.1');
  await file.write(new Uint8Array(100).fill(3), 40);
  await expect(inspectMetadata(files, 'disk')).rejects.toMatchObject({ code: 'COD_CORRUPT' });
});
