/** What a device in this process can do beside: answer inside the call, fetch on demand, say what state its blocks are in. */

import { Volume } from 'memfs';
import { describe, expect, test } from 'vitest';
import { memfsFileSystem } from '../../src/fs/memfs.ts';
import { CodError, type FileSystem, type LocalDevice, openDevice, type Source } from '../../src/index.ts';
import { bytesSource } from '../../src/sources/bytes.ts';
import type { InlineSource } from '../../src/sources/source.ts';
import { CrashingFileSystem, seededRandom } from '../../src/testing/index.ts';
import { expectBytes } from '../support/bytes.ts';

const BLOCK = 4096;
const BLOCKS = 64;
const IMAGE: Uint8Array = seededRandom(1).fill(new Uint8Array(BLOCKS * BLOCK - 100));

function open(volume = new Volume(), source: Source = bytesSource(IMAGE)): Promise<LocalDevice> {
  return openDevice({ source, fileSystem: memfsFileSystem(volume), target: 'disk', hydrate: false });
}

/** What has become of a write, as it is at the moment. */
interface Writing {
  outcome: 'refused' | 'pending' | 'acknowledged' | Error;
}

function writeNow(device: LocalDevice, from: Uint8Array, offset: number): Writing {
  const writing: Writing = { outcome: 'pending' };
  const begun = device.writeNow(from, offset, (error) => {
    expect(writing.outcome).toBe('pending');
    writing.outcome = error === undefined ? 'acknowledged' : (error as Error);
  });
  if (!begun) {
    expect(writing.outcome).toBe('pending');
    writing.outcome = 'refused';
  }
  return writing;
}

function readNow(device: LocalDevice, offset: number, length: number): Uint8Array | undefined {
  const bytes = new Uint8Array(length);
  return device.readNow(bytes, offset) ? bytes : undefined;
}

describe('reading inside the call', () => {
  test('gives what is synced, and nothing else', async () => {
    const device = await open();
    expect(readNow(device, 0, 10)).toBeUndefined();
    await device.hydrateRange(BLOCK, 2 * BLOCK);
    await device.flush();
    await expect.poll(() => device.status().syncedBlocks).toBe(2);
    expectBytes(readNow(device, BLOCK + 7, 2 * BLOCK - 9)!, IMAGE.subarray(BLOCK + 7, 3 * BLOCK - 2));
    for (const [offset, length] of [
      [BLOCK - 1, 10],
      [3 * BLOCK - 1, 2],
      [-1, 1],
      [IMAGE.length, 1],
      [Number.NaN, 1],
      [BLOCK, 0],
    ] as const) {
      expect(readNow(device, offset, length), `${offset} + ${length}`).toBeUndefined();
    }
    await device.close();
    expect(readNow(device, BLOCK, 10)).toBeUndefined();
  });

  test('gives what only a source has that answers at once, and stores it; blocks that the target has in part are left to others', async () => {
    const asked: [offset: number, length: number][] = [];
    const source: InlineSource = {
      ...bytesSource(IMAGE),
      size: IMAGE.length,
      readNow: (into, offset) => {
        if (offset >= 20 * BLOCK && offset < 30 * BLOCK) return false;
        asked.push([offset, into.length]);
        into.set(IMAGE.subarray(offset, offset + into.length));
        return true;
      },
    };
    const volume = new Volume();
    const device = await open(volume, source);
    expectBytes(readNow(device, BLOCK + 7, 2 * BLOCK)!, IMAGE.subarray(BLOCK + 7, 3 * BLOCK + 7));
    expectBytes(readNow(device, IMAGE.length - 5, 5)!, IMAGE.subarray(-5));
    device.commitNow();
    expect(device.status()).toMatchObject({ syncedBlocks: 4, sourceBytes: 4 * BLOCK - 100 });
    // From the target now.
    expectBytes(readNow(device, BLOCK, 3 * BLOCK)!, IMAGE.subarray(BLOCK, 4 * BLOCK));
    expect(asked).toEqual([
      [BLOCK, 3 * BLOCK],
      [(BLOCKS - 1) * BLOCK, BLOCK - 100],
    ]);
    await device.write(Uint8Array.of(1), 10 * BLOCK + 5);
    for (const [offset, length] of [
      [3 * BLOCK, 2 * BLOCK],
      [9 * BLOCK, 2 * BLOCK],
      [25 * BLOCK, 10],
      [30 * BLOCK, 17 * BLOCK],
    ] as const) {
      expect(readNow(device, offset, length), `${offset} + ${length}`).toBeUndefined();
    }
    expect(device.status().syncedBlocks).toBe(4);
    // Recorded soon, too, if nobody commits it; and waited for by close.
    expect(readNow(device, 40 * BLOCK, 1)).toEqual(IMAGE.slice(40 * BLOCK, 40 * BLOCK + 1));
    await device.close();
    const again = await open(volume);
    expect(again.status()).toMatchObject({ syncedBlocks: 5, dirtyBlocks: 1 });
    expectBytes(readNow(again, 40 * BLOCK, BLOCK)!, IMAGE.subarray(40 * BLOCK, 41 * BLOCK));
    await again.close();
  });

  test('gives the reader his bytes even where they cannot be stored, and throws what the source throws', async () => {
    let fails = false;
    const source: InlineSource = {
      ...bytesSource(IMAGE),
      size: IMAGE.length,
      readNow: (into, offset) => {
        if (fails) throw new CodError('COD_SOURCE_IO', 'it failed');
        into.set(IMAGE.subarray(offset, offset + into.length));
        return true;
      },
    };
    const fileSystem = new CrashingFileSystem({ inline: true });
    const device = await openDevice({ source, fileSystem, target: 'disk', hydrate: false });
    fileSystem.limitSpace(0);
    /** Until chance lets the target answer at once. */
    const read = (): Uint8Array | undefined =>
      Array.from({ length: 50 }, () => readNow(device, 0, BLOCK)).find((found) => found !== undefined);
    expectBytes(read()!, IMAGE.subarray(0, BLOCK));
    fileSystem.clearFaults();
    fails = true;
    expect(() => readNow(device, BLOCK, 1)).toThrow('it failed');
    expect(device.status().syncedBlocks).toBe(0);
    await device.close();
  });

  test('waits for no writer: it is refused while one is at work', async () => {
    const device = await open();
    await device.write(IMAGE.subarray(0, BLOCK), 0);
    // Of two blocks, one unsynced: it takes the lock, and lets go of it when the record is written.
    const writing = writeNow(device, new Uint8Array(2 * BLOCK).fill(5), 0);
    expect(writing.outcome).toBe('pending');
    expect(readNow(device, 0, 10)).toBeUndefined();
    expect(writeNow(device, new Uint8Array(10), 0).outcome).toBe('refused');
    device.commitNow();
    expect(writing.outcome).toBe('acknowledged');
    expect(readNow(device, 0, 10)).toEqual(new Uint8Array(10).fill(5));
    await device.close();
  });

  test('gives nothing once a sync has failed: what was written may be gone', async () => {
    let broken = false;
    const inner = memfsFileSystem(new Volume());
    const fileSystem: FileSystem = {
      open: async (name, options) => {
        const file = await inner.open(name, options);
        const sync = file.sync.bind(file);
        file.sync = async () => {
          if (broken) throw new CodError('COD_TARGET_IO', 'the sync failed');
          await sync();
        };
        return file;
      },
      remove: (name) => inner.remove(name),
    };
    const device = await openDevice({ source: bytesSource(IMAGE), fileSystem, target: 'disk', hydrate: false });
    await device.write(IMAGE.subarray(0, BLOCK), 0);
    expect(readNow(device, 0, 10)).toEqual(IMAGE.slice(0, 10));
    broken = true;
    await expect(device.flush()).rejects.toMatchObject({ code: 'COD_POISONED' });
    expect(readNow(device, 0, 10)).toBeUndefined();
    await expect(device.read(new Uint8Array(10), 0)).rejects.toMatchObject({ code: 'COD_POISONED' });
    await device.close();
  });
});

describe('writing inside the call', () => {
  test('acknowledges writes over synced blocks at once, and whole blocks when they are in the log', async () => {
    const volume = new Volume();
    const device = await open(volume);
    const expected = IMAGE.slice();
    const put = (byte: number, offset: number, length: number): Writing => {
      expected.fill(byte, offset, offset + length);
      return writeNow(device, new Uint8Array(length).fill(byte), offset);
    };
    const { metadataBytes } = device.status();
    const pending = [put(1, 0, BLOCK), put(2, 4 * BLOCK, 2 * BLOCK)];
    expect(pending.map(({ outcome }) => outcome)).toEqual(['pending', 'pending']);
    device.commitNow();
    expect(pending.map(({ outcome }) => outcome)).toEqual(['acknowledged', 'acknowledged']);
    // One frame for both: 24 bytes, and 16 for each of them.
    expect(device.status().metadataBytes).toBe(metadataBytes + 56);
    expect(put(3, 4 * BLOCK + 5, 1000).outcome).toBe('acknowledged');
    expect(put(4, 0, 17).outcome).toBe('acknowledged');
    expect(device.status().metadataBytes).toBe(metadataBytes + 56);
    const unasked = put(5, 9 * BLOCK, BLOCK);
    expect(unasked.outcome).toBe('pending');
    await expect.poll(() => unasked.outcome).toBe('acknowledged');
    // As after the death of the process: nothing was closed, and the lock is nobody's.
    const { lock: _, ...fileSystem } = memfsFileSystem(volume);
    const again = await openDevice({ source: bytesSource(IMAGE), fileSystem, target: 'disk', hydrate: false });
    const found = new Uint8Array(IMAGE.length);
    await again.read(found, 0);
    expectBytes(found, expected);
    await again.close();
  });

  test('leaves to others what is not whole, not there, or not possible any more', async () => {
    const device = await open();
    for (const [offset, length] of [
      [10, 20],
      [BLOCK, BLOCK - 1],
      [BLOCK + 1, BLOCK],
      [IMAGE.length - 10, 20],
      [-BLOCK, BLOCK],
      [BLOCKS * BLOCK, BLOCK],
      [0, 0],
    ] as const) {
      expect(writeNow(device, new Uint8Array(length), offset).outcome, `${offset} + ${length}`).toBe('refused');
    }
    await device.close();
    expect(writeNow(device, new Uint8Array(BLOCK), 0).outcome).toBe('refused');
  });

  test('is waited for by close', async () => {
    const volume = new Volume();
    const device = await open(volume);
    const writing = writeNow(device, new Uint8Array(BLOCK).fill(9), BLOCK);
    await device.close();
    expect(writing.outcome).toBe('acknowledged');
    const again = await open(volume);
    expect(again.status().syncedBlocks).toBe(1);
    expectBytes(readNow(again, BLOCK, BLOCK)!, new Uint8Array(BLOCK).fill(9));
    await again.close();
  });
});

describe('a write over a synced block, which leaves no record,', () => {
  const begin = async (fileSystem: CrashingFileSystem): Promise<LocalDevice> =>
    openDevice({ source: bytesSource(IMAGE), fileSystem, target: 'disk', hydrate: false });
  const crashed = async (
    kind: 'process' | 'power',
    use: (device: LocalDevice) => Promise<void>,
    seed: number,
  ): Promise<Uint8Array> => {
    const fileSystem = new CrashingFileSystem({ bootId: 'boot' });
    const device = await begin(fileSystem);
    await device.hydrateRange(0, 2 * BLOCK);
    await expect.poll(() => device.status().syncedBlocks).toBe(2);
    await use(device);
    const after = await begin(fileSystem.crash({ kind, random: seededRandom(seed) }));
    const found = new Uint8Array(BLOCK);
    await after.read(found, BLOCK);
    await after.close();
    return found;
  };

  test('survives the death of the process', async () => {
    const found = await crashed('process', (device) => device.write(new Uint8Array(BLOCK).fill(7), BLOCK), 1);
    expectBytes(found, new Uint8Array(BLOCK).fill(7));
  });

  test.each(Array.from({ length: 20 }, (_, seed) => seed))(
    'survives a power cut after a flush, or with FUA (seed %i)',
    async (seed) => {
      const flushed = async (device: LocalDevice): Promise<void> => {
        await device.write(new Uint8Array(BLOCK).fill(7), BLOCK);
        if (seed % 2 === 0) await device.flush();
        await device.write(new Uint8Array(10).fill(8), BLOCK + 100, { fua: true });
      };
      expectBytes(await crashed('power', flushed, seed), new Uint8Array(BLOCK).fill(7).fill(8, 100, 110));
    },
  );
});

test('hydrating a range asks the source for what is missing, and for each block once', async () => {
  const reads: [offset: number, length: number][] = [];
  const inner = bytesSource(IMAGE);
  const source: Source = {
    size: IMAGE.length,
    read: (into, offset) => {
      reads.push([offset, into.length]);
      return inner.read(into, offset);
    },
    close: async () => undefined,
  };
  const device = await open(new Volume(), source);
  await device.write(new Uint8Array(BLOCK), 2 * BLOCK);
  await Promise.all([device.hydrateRange(BLOCK + 5, 3 * BLOCK), device.hydrateRange(0, 3 * BLOCK)]);
  expect(reads.toSorted(([a], [b]) => a - b)).toEqual([
    [0, BLOCK],
    [BLOCK, BLOCK],
    [3 * BLOCK, 2 * BLOCK],
  ]);
  await expect(device.hydrateRange(0, IMAGE.length + 1)).rejects.toThrow(RangeError);
  await device.close();
});

describe('the extents of a range', () => {
  test('tell states and known zeros, in bytes', async () => {
    const inner = bytesSource(IMAGE);
    const source: Source = {
      size: IMAGE.length,
      read: (into, offset) => inner.read(into, offset),
      extents: async (offset, length) => {
        const zeroFrom = 20 * BLOCK;
        const data = Math.max(0, Math.min(length, zeroFrom - offset));
        return [
          ...(data > 0 ? [{ length: data, zero: false }] : []),
          ...(length > data ? [{ length: length - data, zero: true }] : []),
        ];
      },
      close: async () => undefined,
    };
    const device = await open(new Volume(), source);
    await device.write(new Uint8Array(2 * BLOCK), 2 * BLOCK);
    await device.write(new Uint8Array(10), 9 * BLOCK + 5);
    await device.write(new Uint8Array(10), 10 * BLOCK + 5);
    await device.write(new Uint8Array(BLOCK), 30 * BLOCK);
    const expected = [
      { length: 2 * BLOCK - 100, state: 'unsynced', zero: false },
      { length: 2 * BLOCK, state: 'synced', zero: false },
      { length: 5 * BLOCK, state: 'unsynced', zero: false },
      { length: 2 * BLOCK, state: 'dirty', zero: false },
      { length: 9 * BLOCK, state: 'unsynced', zero: false },
      { length: 10 * BLOCK, state: 'unsynced', zero: true },
      { length: BLOCK, state: 'synced', zero: false },
      { length: IMAGE.length - 31 * BLOCK, state: 'unsynced', zero: true },
    ];
    expect(await device.extents(100, IMAGE.length - 100, 100)).toEqual(expected);
    for (const limit of [1, 2, 5])
      expect(await device.extents(100, IMAGE.length - 100, limit)).toEqual(expected.slice(0, limit));
    expect(await device.extents(2 * BLOCK + 3, 7, 100)).toEqual([{ length: 7, state: 'synced', zero: false }]);
    await expect(device.extents(1, IMAGE.length, 1)).rejects.toThrow(RangeError);
    await device.close();
  });
});
