/** The map of modified blocks: what is in it after each kind of change, crash and checkpoint. */

import { describe, expect, it } from 'vitest';
import type { ModifiedView } from '../../src/core/views.ts';
import { openDeviceIn } from '../../src/device/open.ts';
import type { InlineDevice } from '../../src/device/types.ts';
import { CodError } from '../../src/errors.ts';
import { type Inspection, inspectMetadata } from '../../src/log/inspect.ts';
import { type IntentLog, openIntentLog } from '../../src/log.ts';
import { bytesSource } from '../../src/sources/bytes.ts';
import { SimulatedClock } from '../../src/testing/index.ts';
import { type Images, MemoryFiles } from './memory-files.ts';

const BLOCK = 4096;
const BLOCKS = 2 ** 14;
const SIZE = (BLOCKS - 1) * BLOCK + 100;
const source = new Uint8Array(SIZE).fill(7);

async function open(files = new MemoryFiles()): Promise<{ files: MemoryFiles; device: InlineDevice }> {
  const device = await openDeviceIn(
    { clock: new SimulatedClock(), randomBytes: (into) => into.fill(1) },
    { source: bytesSource(source), fileSystem: files, target: 'disk', hydrate: false },
  );
  return { files, device };
}

/** Copies a range, and waits until it is recorded: readers do not wait for that. */
async function copy(device: InlineDevice, offset: number, length: number): Promise<void> {
  await device.hydrateRange(offset, length);
  await new Promise(setImmediate);
}

function modifiedIn(device: { readonly modified: ModifiedView }): number[][] {
  return Array.from(device.modified.runs(), ([start, end]) => [start, end]);
}

/** What the metadata of these files says. */
function meaning(images: Images): Promise<Inspection> {
  return inspectMetadata(new MemoryFiles(images), 'disk');
}

/** The files after a power cut that lost what the target and the logs had not synced: here all of the target. */
function withoutTarget(images: Images): Images {
  return new Map([...images].filter(([name]) => name !== 'disk'));
}

describe('a block', () => {
  it('is not modified by reads, and is by each kind of change', async () => {
    const { files, device } = await open();
    await device.read(new Uint8Array(4 * BLOCK), 0);
    await copy(device, 10 * BLOCK, 5 * BLOCK);
    expect(modifiedIn(device)).toEqual([]);
    await device.write(new Uint8Array(10), 2 * BLOCK - 5);
    await device.write(new Uint8Array(10), 20 * BLOCK);
    await device.writeZeroes(30 * BLOCK + 1, BLOCK);
    await device.discard(40 * BLOCK, 2 * BLOCK);
    await device.write(new Uint8Array(100), SIZE - 100);
    // Reading the rest of a block makes it whole, and it is still modified.
    await device.read(new Uint8Array(BLOCK), 20 * BLOCK);
    const expected = [
      [1, 3],
      [20, 21],
      [30, 32],
      [40, 42],
      [BLOCKS - 1, BLOCKS],
    ];
    expect(modifiedIn(device)).toEqual([[1, 3], ...expected.slice(1)]);
    const inclusive = expected.map(([start, end]) => [start, end! - 1]);
    expect((await meaning(files.images())).modified).toEqual(inclusive);
    await device.checkpoint();
    expect(await meaning(withoutTarget(files.images()))).toMatchObject({ modified: inclusive, modifiedBlocks: 8 });
    await device.close();
    const again = await open(new MemoryFiles(files.images()));
    expect(modifiedIn(again.device)).toEqual(expected);
    expect([again.device.modified.count, again.device.modified.has(2), again.device.modified.has(3)]).toEqual([
      8,
      true,
      false,
    ]);
    await again.device.close();
  });

  it('that was copied is named before its first write, and not again', async () => {
    const { files, device } = await open();
    await copy(device, 0, 2 * BLOCK);
    await device.flush();
    files.calls.length = 0;
    await device.write(new Uint8Array(100).fill(1), 50);
    await device.write(new Uint8Array(100).fill(2), 3000);
    await device.flush();
    await device.write(new Uint8Array(100).fill(3), 50);
    expect(files.calls.filter(({ kind }) => kind === 'write').map(({ name }) => name)).toEqual([
      'disk.wil.1',
      'disk',
      'disk',
      // The barrier.
      'disk.wil.1',
      'disk',
    ]);
    await device.close();
  });

  it('is modified after a crash between its name in the log and its write, if the target holds it', async () => {
    const { files, device } = await open();
    await copy(device, 5 * BLOCK, BLOCK);
    await device.flush();
    let named: Images | undefined;
    files.before = async ({ kind, name }) => {
      if (kind === 'write' && name === 'disk') named = files.images();
    };
    await device.write(new Uint8Array(100).fill(1), 5 * BLOCK);
    expect(await meaning(named!)).toMatchObject({ synced: [[5, 5]], modified: [[5, 5]] });
    await device.close();
  });

  it('that a power cut takes from the target is not modified', async () => {
    const { files, device } = await open();
    // Copied and named, but neither is firm.
    await copy(device, 5 * BLOCK, BLOCK);
    await device.write(new Uint8Array(100).fill(1), 5 * BLOCK);
    await device.write(new Uint8Array(BLOCK).fill(1), 9 * BLOCK);
    expect(modifiedIn(device)).toEqual([
      [5, 6],
      [9, 10],
    ]);
    expect(await meaning(withoutTarget(files.images()))).toMatchObject({ synced: [], dirty: [], modified: [] });
    await device.close();
  });

  it('that a failed write may have changed is modified once it is copied', async () => {
    const { files, device } = await open();
    files.before = async ({ kind, name }) => {
      if (kind === 'write' && name === 'disk') throw new CodError('COD_TARGET_IO', 'failed');
    };
    await expect(device.write(new Uint8Array(100).fill(1), 5 * BLOCK)).rejects.toMatchObject({ code: 'COD_TARGET_IO' });
    files.before = undefined;
    await copy(device, 4 * BLOCK, 3 * BLOCK);
    await device.flush();
    expect(modifiedIn(device)).toEqual([[5, 6]]);
    expect(await meaning(files.images())).toMatchObject({ synced: [[4, 6]], modified: [[5, 5]] });
    await device.close();
  });

  it('that is copied while a write of it is in flight is modified', async () => {
    const { files, device } = await open();
    let release = (): void => undefined;
    let images: Images | undefined;
    files.before = async ({ kind, name, offset }) => {
      if (kind === 'write' && name === 'disk' && offset === 5 * BLOCK + 10)
        await new Promise<void>((resolve) => (release = resolve));
    };
    const reading = device.hydrateRange(4 * BLOCK, 3 * BLOCK);
    const writing = device.write(new Uint8Array(100).fill(1), 5 * BLOCK + 10);
    const flushing = reading.then(() => device.flush()).then(() => (images = files.images()));
    for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve));
    // Either the block is not copied yet, or its change is in the log.
    images ??= files.images();
    const { synced, modified } = await meaning(images);
    const isCopied = synced.some(([first, last]) => first <= 5 && 5 <= last);
    expect(modified).toEqual(isCopied ? [[5, 5]] : []);
    release();
    await Promise.all([reading, writing, flushing]);
    expect(modifiedIn(device)).toEqual([[5, 6]]);
    await device.close();
  });

  it('of a long range of zeros is modified, though it is recorded like a copy', async () => {
    const { files, device } = await open();
    await device.writeZeroes(3 * BLOCK, 2 ** 25);
    const end = 3 + 2 ** 25 / BLOCK;
    expect(modifiedIn(device)).toEqual([[3, end]]);
    expect(await meaning(withoutTarget(files.images()))).toMatchObject({ modified: [[3, end - 1]] });
    await device.close();
  });
});

describe('copyondemand/log', () => {
  const storage = {
    bytes: new Uint8Array(SIZE),
    read: async (into: Uint8Array, offset: number) => {
      into.set(storage.bytes.subarray(offset, offset + into.length));
    },
    sync: async () => undefined,
  };

  async function put(log: IntentLog, kind: 'intend' | 'fill', value: number, offset: number, length: number) {
    const transaction = log.begin();
    const bytes = new Uint8Array(length).fill(value);
    await transaction[kind](offset, bytes);
    storage.bytes.set(bytes, offset);
    await log.commit(transaction);
  }

  it('tells writes from copies', async () => {
    const files = new MemoryFiles();
    const log = await openIntentLog({ fileSystem: files, name: 'disk', size: SIZE, storage });
    await put(log, 'fill', 7, 0, 8 * BLOCK);
    await put(log, 'intend', 1, 2 * BLOCK + 5, 10);
    await put(log, 'intend', 2, 20 * BLOCK, BLOCK);
    expect([log.blocks.count, modifiedIn(log)]).toEqual([
      9,
      [
        [2, 3],
        [20, 21],
      ],
    ]);
    // Killed: copies are not firm yet, so what lies over them has a record of its own.
    const image = { bytes: storage.bytes, size: SIZE };
    expect(await meaning(new Map(files.images()).set('disk', image))).toMatchObject({
      synced: [[20, 20]],
      dirty: [{ block: 2, ranges: [[5, 10]] }],
      modified: [
        [2, 2],
        [20, 20],
      ],
    });
    await log.close();
    const again = await openIntentLog({ fileSystem: files, name: 'disk', size: SIZE, storage });
    expect([again.blocks.count, modifiedIn(again)]).toEqual([9, modifiedIn(again)]);
    expect(again.modified.count).toBe(2);
    await again.close();
  });

  it('announces a copy over a cell that a record names', async () => {
    const files = new MemoryFiles();
    storage.bytes.fill(0);
    const log = await openIntentLog({ fileSystem: files, name: 'disk', size: SIZE, storage });
    await put(log, 'intend', 1, BLOCK, 100);
    // The rest of the block, as a copy. Its process is killed before the commit.
    const transaction = log.begin();
    const rest = new Uint8Array(BLOCK - 100).fill(7);
    await transaction.fill(BLOCK + 100, rest);
    storage.bytes.set(rest, BLOCK + 100);
    const image = { bytes: storage.bytes, size: SIZE };
    expect(await meaning(new Map(files.images()).set('disk', image))).toMatchObject({
      dirty: [{ block: 1, ranges: [[0, 100]] }],
    });
    await log.commit(transaction);
    await log.close();
  });
});
