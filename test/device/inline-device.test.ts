/** Device calls that complete synchronously, fetches on demand, and block states. */

import { setImmediate as turn } from 'node:timers/promises';
import { Volume } from 'memfs';
import { describe, expect, test } from 'vitest';
import { openDeviceIn } from '../../src/device/open.ts';
import type { InlineDevice } from '../../src/device/types.ts';
import { memfsFileSystem } from '../../src/fs/memfs.ts';
import { CodError, type Environment, type FileSystem, type Source } from '../../src/index.ts';
import { systemEnvironment } from '../../src/platform/environment.ts';
import { bytesSource } from '../../src/sources/bytes.ts';
import type { InlineSource } from '../../src/sources/source.ts';
import { CrashingFileSystem, seededRandom } from '../../src/testing/index.ts';
import { expectBytes } from '../support/bytes.ts';

const BLOCK = 4096;
const SECTOR = 512;
const BLOCKS = 64;
const IMAGE: Uint8Array = seededRandom(1).fill(new Uint8Array(BLOCKS * BLOCK - 100));

/** Bytes of a frame of the log without its records, and of one record. */
const FRAME = 24;
const RECORD = 16;

function openOver(fileSystem: FileSystem, source: Source = bytesSource(IMAGE)): Promise<InlineDevice> {
  return openDeviceIn(systemEnvironment, { source, fileSystem, target: 'disk', hydrate: false });
}

function open(volume = new Volume(), source?: Source): Promise<InlineDevice> {
  return openOver(memfsFileSystem(volume), source);
}

/** Opens a copy as after the death of the process: the device was not closed, and the lock has no live owner. */
function openAfterDeath(volume: Volume): Promise<InlineDevice> {
  const { lock: _, ...fileSystem } = memfsFileSystem(volume);
  return openOver(fileSystem);
}

/** The outcome of a write so far. */
interface Writing {
  outcome: 'pending' | 'acknowledged' | Error;
}

function submitWrite(device: InlineDevice, from: Uint8Array, offset: number, fua = false): Writing {
  const writing: Writing = { outcome: 'pending' };
  device.submitWrite(from, offset, fua, (error) => {
    expect(writing.outcome, 'a write settles once').toBe('pending');
    writing.outcome = error === undefined ? 'acknowledged' : (error as Error);
  });
  return writing;
}

function outcomes(writings: readonly Writing[]): Writing['outcome'][] {
  return writings.map(({ outcome }) => outcome);
}

/** Reads synchronously. Undefined if the read completes later. */
function readNow(device: InlineDevice, offset: number, length: number): Uint8Array | undefined {
  const bytes = new Uint8Array(length);
  const reading = device.submitRead(bytes, offset);
  reading?.catch(() => undefined);
  return reading === undefined ? bytes : undefined;
}

/** Reads; the read must complete later. */
async function readLater(device: InlineDevice, offset: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  const reading = device.submitRead(bytes, offset);
  expect(reading).toBeInstanceOf(Promise);
  await reading;
  return bytes;
}

async function readAll(device: InlineDevice): Promise<Uint8Array> {
  const bytes = new Uint8Array(device.size);
  await device.read(bytes, 0);
  return bytes;
}

/** A source that records its reads and completes them synchronously unless `isLater` returns true. */
function inlineSource(isLater: (offset: number) => boolean = () => false) {
  const asked: [offset: number, length: number][] = [];
  const inner = bytesSource(IMAGE);
  const source: InlineSource = {
    size: IMAGE.length,
    read: (into, offset, options) => {
      asked.push([offset, into.length]);
      return inner.read(into, offset, options);
    },
    submitRead: (into, offset) => {
      if (isLater(offset)) return source.read(into, offset);
      asked.push([offset, into.length]);
      into.set(IMAGE.subarray(offset, offset + into.length));
      return undefined;
    },
    close: async () => undefined,
  };
  return { source, asked };
}

describe('a submitted read', () => {
  test('of synced blocks is synchronous, and of other blocks completes when the source has answered', async () => {
    const device = await open();
    await device.hydrateRange(BLOCK, 2 * BLOCK);
    await expect.poll(() => device.status().syncedBlocks).toBe(2);
    expectBytes(readNow(device, BLOCK + 7, 2 * BLOCK - 9)!, IMAGE.subarray(BLOCK + 7, 3 * BLOCK - 2));
    for (const [offset, length] of [
      [0, 10],
      [3 * BLOCK - 1, 2],
      [30 * BLOCK + 5, 20 * BLOCK],
    ] as const) {
      expectBytes(await readLater(device, offset, length), IMAGE.subarray(offset, offset + length));
      // The fetched bytes are available, stored or not.
      expectBytes(readNow(device, offset, length)!, IMAGE.subarray(offset, offset + length));
    }
    await expect.poll(() => device.status()).toMatchObject({ syncedBlocks: 25, sourceBytes: 25 * BLOCK });
    await device.close();
  });

  test('of no bytes has no effect, and outside the device or with an aborted signal throws', async () => {
    const device = await open();
    await device.write(IMAGE.subarray(0, BLOCK), 0);
    expect(readNow(device, 0, 0)).toEqual(new Uint8Array(0));
    expect(readNow(device, IMAGE.length, 0)).toEqual(new Uint8Array(0));
    for (const [offset, length] of [
      [-1, 1],
      [IMAGE.length, 1],
      [IMAGE.length - 1, 2],
      [Number.NaN, 1],
      [0.5, 1],
    ] as const) {
      expect(() => readNow(device, offset, length), `${offset} + ${length}`).toThrow(RangeError);
    }
    const signal = AbortSignal.abort(new Error('enough'));
    for (const offset of [0, BLOCK]) {
      expect(() => device.submitRead(new Uint8Array(1), offset, signal)).toThrow('enough');
    }
    expect(device.status().sourceBytes).toBe(0);
    await device.close();
    for (const offset of [0, BLOCK]) expect(() => readNow(device, offset, 10)).toThrow('closed');
  });

  test('of missing blocks of a synchronous source is synchronous, and the next commit stores the blocks', async () => {
    const { source, asked } = inlineSource();
    const volume = new Volume();
    const device = await open(volume, source);
    expectBytes(readNow(device, BLOCK + 7, 2 * BLOCK)!, IMAGE.subarray(BLOCK + 7, 3 * BLOCK + 7));
    expectBytes(readNow(device, IMAGE.length - 5, 5)!, IMAGE.subarray(-5));
    device.commitWrites();
    expect(device.status()).toMatchObject({ syncedBlocks: 4, sourceBytes: 4 * BLOCK - 100 });
    // The target serves this read.
    expectBytes(readNow(device, BLOCK, 3 * BLOCK)!, IMAGE.subarray(BLOCK, 4 * BLOCK));
    expect(asked).toEqual([
      [BLOCK, 3 * BLOCK],
      [(BLOCKS - 1) * BLOCK, BLOCK - 100],
    ]);
    // No commit follows this read. The record follows later in the turn, and `close` waits for it.
    expect(readNow(device, 40 * BLOCK, 1)).toEqual(IMAGE.slice(40 * BLOCK, 40 * BLOCK + 1));
    await device.close();
    const again = await open(volume, source);
    expect(again.status()).toMatchObject({ syncedBlocks: 5, dirtyBlocks: 0 });
    expectBytes(readNow(again, 40 * BLOCK, BLOCK)!, IMAGE.subarray(40 * BLOCK, 41 * BLOCK));
    expect(asked).toHaveLength(3);
    await again.close();
  });

  test('of blocks in several states combines bytes of the target and of the source', async () => {
    const { source, asked } = inlineSource((offset) => offset >= 20 * BLOCK && offset < 30 * BLOCK);
    const device = await open(new Volume(), source);
    const expected = IMAGE.slice();
    for (const offset of [10 * BLOCK + 5, 12 * BLOCK, 25 * BLOCK + 100]) {
      expected.fill(1, offset, offset + 9);
      await device.write(new Uint8Array(9).fill(1), offset);
    }
    expected.fill(2, 14 * BLOCK, 15 * BLOCK);
    await device.write(new Uint8Array(BLOCK).fill(2), 14 * BLOCK);
    const check = (found: Uint8Array, offset: number): void =>
      expectBytes(found, expected.subarray(offset, offset + found.length));
    // Only written bytes: no request to the source.
    check(readNow(device, 10 * BLOCK + 5, 9)!, 10 * BLOCK + 5);
    expect(asked).toEqual([]);
    check(readNow(device, 10 * BLOCK + 3, 9)!, 10 * BLOCK + 3);
    check(readNow(device, 9 * BLOCK, 7 * BLOCK)!, 9 * BLOCK);
    // The source answers later.
    check(await readLater(device, 25 * BLOCK + 90, 30), 25 * BLOCK + 90);
    // Too long for a synchronous fetch.
    check(await readLater(device, 30 * BLOCK, 17 * BLOCK), 30 * BLOCK);
    await expect.poll(() => device.status()).toMatchObject({ syncedBlocks: 7 + 1 + 17, dirtyBlocks: 0 });
    check(readNow(device, 9 * BLOCK, 7 * BLOCK)!, 9 * BLOCK);
    check(readNow(device, 25 * BLOCK, BLOCK)!, 25 * BLOCK);
    await device.close();
  });

  test('returns the bytes even if they cannot be stored, and throws the error of a synchronous source', async () => {
    let fails = false;
    const { source } = inlineSource();
    const failing: InlineSource = {
      ...source,
      submitRead: (into, offset) => {
        if (fails) throw new CodError('COD_SOURCE_IO', 'it failed');
        return source.submitRead!(into, offset);
      },
    };
    const fileSystem = new CrashingFileSystem({ inline: true });
    const device = await openOver(fileSystem, failing);
    fileSystem.limitSpace(0);
    for (let count = 0; count < 20; count++) expectBytes(readNow(device, 0, BLOCK)!, IMAGE.subarray(0, BLOCK));
    await turn();
    expect(device.status().syncedBlocks).toBe(0);
    fileSystem.clearFaults();
    fails = true;
    expect(() => readNow(device, BLOCK, 1)).toThrow('it failed');
    expect(() => readNow(device, 0, 1)).toThrow('it failed');
    fails = false;
    expectBytes(readNow(device, 0, 2 * BLOCK)!, IMAGE.subarray(0, 2 * BLOCK));
    await expect.poll(() => device.status().syncedBlocks).toBe(2);
    expectBytes(await readAll(device), IMAGE);
    await device.close();
  });

  test('of a block that is being written waits for the write, and precedes later writes', async () => {
    const device = await open();
    await device.write(IMAGE.subarray(0, BLOCK), 0);
    // One of the write's two blocks is unsynced, so the write holds its lock until its record is in the log.
    const first = submitWrite(device, new Uint8Array(2 * BLOCK).fill(5), 0);
    const reading = readLater(device, 0, 10);
    const second = submitWrite(device, new Uint8Array(10).fill(6), 0);
    expect(outcomes([first, second])).toEqual(['pending', 'pending']);
    device.commitWrites();
    expect(outcomes([first, second])).toEqual(['acknowledged', 'pending']);
    expect(await reading).toEqual(new Uint8Array(10).fill(5));
    await expect.poll(() => second.outcome).toBe('acknowledged');
    expect(readNow(device, 0, 11)).toEqual(new Uint8Array(11).fill(6, 0, 10).fill(5, 10));
    await device.close();
  });

  test('that waits for the source returns the bytes of a concurrent write, and does not overwrite them', async () => {
    let answer = (): void => undefined;
    const answered = new Promise<void>((resolve) => (answer = resolve));
    const source: Source = {
      size: IMAGE.length,
      read: async (into, offset) => {
        await answered;
        into.set(IMAGE.subarray(offset, offset + into.length));
      },
      close: async () => undefined,
    };
    const volume = new Volume();
    const device = await open(volume, source);
    const expected = IMAGE.slice(0, 4 * BLOCK);
    const reading = readLater(device, 0, 4 * BLOCK);
    const writings = [
      submitWrite(device, new Uint8Array(BLOCK).fill(1), BLOCK),
      submitWrite(device, new Uint8Array(SECTOR).fill(2), 2 * BLOCK + SECTOR),
    ];
    expected.fill(1, BLOCK, 2 * BLOCK).fill(2, 2 * BLOCK + SECTOR, 2 * BLOCK + 2 * SECTOR);
    device.commitWrites();
    expect(outcomes(writings)).toEqual(['acknowledged', 'acknowledged']);
    answer();
    expectBytes(await reading, expected);
    await expect.poll(() => device.status().syncedBlocks).toBe(4);
    expectBytes(readNow(device, 0, 4 * BLOCK)!, expected);
    await device.close();
    const again = await open(volume, source);
    expectBytes(readNow(again, 0, 4 * BLOCK)!, expected);
    await again.close();
  });

  test('fails once a sync has failed, since written bytes may be lost, and so does a submitted write', async () => {
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
    const device = await openOver(fileSystem, inlineSource().source);
    await device.write(IMAGE.subarray(0, BLOCK), 0);
    expect(readNow(device, 0, 10)).toEqual(IMAGE.slice(0, 10));
    broken = true;
    await expect(device.flush()).rejects.toMatchObject({ code: 'COD_POISONED' });
    const poisoned = expect.objectContaining({ code: 'COD_POISONED' });
    for (const offset of [0, BLOCK]) {
      expect(() => readNow(device, offset, 10)).toThrow(poisoned);
      expect(submitWrite(device, new Uint8Array(10), offset).outcome).toMatchObject({ code: 'COD_POISONED' });
      await expect(device.read(new Uint8Array(10), offset)).rejects.toMatchObject({ code: 'COD_POISONED' });
    }
    await device.close();
  });
});

describe('a submitted write', () => {
  test('to synced blocks is acknowledged synchronously, and to other blocks at the commit', async () => {
    const volume = new Volume();
    const device = await open(volume);
    const expected = IMAGE.slice();
    const put = (byte: number, offset: number, length: number): Writing => {
      expected.fill(byte, offset, offset + length);
      return submitWrite(device, new Uint8Array(length).fill(byte), offset);
    };
    const { metadataBytes } = device.status();
    const pending = [
      put(1, 0, BLOCK),
      put(2, 4 * BLOCK, 2 * BLOCK),
      put(3, 7 * BLOCK + SECTOR, SECTOR),
      put(4, 8 * BLOCK + 10, 20),
      put(5, 10 * BLOCK, BLOCK - 1),
      put(6, 12 * BLOCK + 1, BLOCK),
    ];
    expect(outcomes(pending)).toEqual(pending.map(() => 'pending'));
    expect(device.status().metadataBytes).toBe(metadataBytes);
    device.commitWrites();
    expect(outcomes(pending)).toEqual(pending.map(() => 'acknowledged'));
    // One frame for all writes. The last write is in two cells, so it has two records.
    const logged = metadataBytes + FRAME + RECORD * (pending.length + 1);
    expect(device.status().metadataBytes).toBe(logged);
    expect(device.status()).toMatchObject({ syncedBlocks: 3, dirtyBlocks: 5 });
    expect(put(7, 4 * BLOCK + 5, 1000).outcome).toBe('acknowledged');
    expect(put(8, 0, 17).outcome).toBe('acknowledged');
    // These writes need no record, but the sums of their cells are announced: the blocks are not firm.
    expect(device.status().metadataBytes).toBe(logged + 2 * (FRAME + RECORD));
    await device.flush();
    const { metadataBytes: flushed } = device.status();
    expect(put(10, 4 * BLOCK + 5, 1000).outcome).toBe('acknowledged');
    expect(device.status().metadataBytes).toBe(flushed);
    // No commit follows this write. It is acknowledged later in the turn.
    const uncommitted = put(9, 20 * BLOCK, BLOCK);
    expect(uncommitted.outcome).toBe('pending');
    await expect.poll(() => uncommitted.outcome).toBe('acknowledged');
    const again = await openAfterDeath(volume);
    expectBytes(await readAll(again), expected);
    await again.close();
  });

  test('shares the append of its turn with announcements of further writes to its cell', async () => {
    const volume = new Volume();
    const device = await open(volume);
    const expected = IMAGE.slice();
    const { metadataBytes } = device.status();
    const parts = [
      [0, BLOCK],
      [100, 1000],
      [600, 10],
    ] as const;
    const pending = parts.map(([offset, length], index) => {
      expected.fill(index + 1, offset, offset + length);
      return submitWrite(device, new Uint8Array(length).fill(index + 1), offset);
    });
    expect(device.status().metadataBytes).toBe(metadataBytes);
    device.commitWrites();
    expect(outcomes(pending)).toEqual(pending.map(() => 'acknowledged'));
    // Three writes, and the sums that the cell may have after the second and the third.
    expect(device.status().metadataBytes).toBe(metadataBytes + FRAME + 5 * RECORD);
    const again = await openAfterDeath(volume);
    expectBytes(await readAll(again), expected);
    await again.close();
  });

  test('with FUA shares the append of its turn, and one flush makes all writes of a turn durable', async () => {
    const volume = new Volume();
    const inner = memfsFileSystem(volume);
    const calls: string[] = [];
    const { lock: _, ...fileSystem } = inner;
    const device = await openOver({
      ...fileSystem,
      open: async (name, options) => {
        const file = await inner.open(name, options);
        const sync = file.sync.bind(file);
        file.sync = async () => {
          calls.push(`sync ${name}`);
          await sync();
        };
        return file;
      },
    });
    const expected = IMAGE.slice();
    const put = (byte: number, offset: number, length: number, fua: boolean): Writing => {
      expected.fill(byte, offset, offset + length);
      const writing = submitWrite(device, new Uint8Array(length).fill(byte), offset, fua);
      return writing;
    };
    await device.write(IMAGE.subarray(30 * BLOCK, 31 * BLOCK), 30 * BLOCK);
    await device.flush();
    calls.length = 0;
    const { metadataBytes } = device.status();
    const durable = [
      put(1, 0, BLOCK, true),
      put(2, 2 * BLOCK + SECTOR, SECTOR, true),
      put(3, 30 * BLOCK + SECTOR, SECTOR, true),
    ];
    const others = [put(4, 4 * BLOCK + SECTOR, SECTOR, false), put(5, 6 * BLOCK, BLOCK, false)];
    device.commitWrites();
    expect(device.status().metadataBytes).toBe(metadataBytes + FRAME + 4 * RECORD);
    expect(outcomes(others)).toEqual(['acknowledged', 'acknowledged']);
    expect(outcomes(durable)).toEqual(['pending', 'pending', 'pending']);
    await expect.poll(() => outcomes(durable)).toEqual(['acknowledged', 'acknowledged', 'acknowledged']);
    expect(calls).toHaveLength(2);
    expect(calls[0]).toBe('sync disk');
    expect(calls[1]).toMatch(/^sync disk\.wil/);
    // The barrier is a frame of its own.
    expect(device.status().metadataBytes).toBe(metadataBytes + FRAME + 4 * RECORD + FRAME + RECORD);
    const again = await openAfterDeath(volume);
    expectBytes(await readAll(again), expected);
    await again.close();
  });

  test('of each sector of one block, in one turn, makes the block whole without the source', async () => {
    const { source, asked } = inlineSource();
    const volume = new Volume();
    const device = await open(volume, source);
    const bytes = seededRandom(3).fill(new Uint8Array(BLOCK));
    const writings = Array.from({ length: BLOCK / SECTOR }, (_, index) =>
      submitWrite(device, bytes.subarray(index * SECTOR, (index + 1) * SECTOR), 5 * BLOCK + index * SECTOR),
    );
    // The first sector again: the later write wins.
    writings.push(submitWrite(device, new Uint8Array(SECTOR).fill(9), 5 * BLOCK + SECTOR));
    bytes.fill(9, SECTOR, 2 * SECTOR);
    device.commitWrites();
    await expect.poll(() => new Set(outcomes(writings))).toEqual(new Set(['acknowledged']));
    expect(device.status()).toMatchObject({ syncedBlocks: 1, dirtyBlocks: 0 });
    expectBytes(readNow(device, 5 * BLOCK, BLOCK)!, bytes);
    expect(asked).toEqual([]);
    const again = await openAfterDeath(volume);
    expectBytes((await readAll(again)).subarray(5 * BLOCK, 6 * BLOCK), bytes);
    await again.close();
  });

  test('to a block of many parts fetches the rest of the block first', async () => {
    const { source, asked } = inlineSource();
    const device = await open(new Volume(), source);
    const expected = IMAGE.slice();
    for (let index = 0; index < 70; index++) {
      const offset = 3 * BLOCK + index * 40;
      expected.fill(index, offset, offset + 20);
      const writing = submitWrite(device, new Uint8Array(20).fill(index), offset);
      device.commitWrites();
      await expect.poll(() => writing.outcome, { interval: 1 }).toBe('acknowledged');
    }
    expect(asked).toEqual([[3 * BLOCK, BLOCK]]);
    expect(device.status()).toMatchObject({ syncedBlocks: 1, dirtyBlocks: 0 });
    expectBytes(await readAll(device), expected);
    await device.close();
  });

  test('fails outside the device or after close, and an empty write succeeds', async () => {
    const device = await open();
    for (const [offset, length] of [
      [IMAGE.length - 10, 20],
      [-BLOCK, BLOCK],
      [BLOCKS * BLOCK, BLOCK],
      [Number.NaN, 1],
    ] as const) {
      const { outcome } = submitWrite(device, new Uint8Array(length), offset);
      expect(outcome, `${offset} + ${length}`).toBeInstanceOf(RangeError);
    }
    expect(submitWrite(device, new Uint8Array(0), 0).outcome).toBe('acknowledged');
    expectBytes(await readAll(device), IMAGE);
    await device.close();
    for (const length of [0, BLOCK]) {
      expect(submitWrite(device, new Uint8Array(length), 0).outcome).toMatchObject({ code: 'COD_CLOSED' });
    }
  });

  test('that the target rejects settles with the error and releases its lock', async () => {
    for (let seed = 0; seed < 20; seed++) {
      const fileSystem = new CrashingFileSystem({ inline: true, random: seededRandom(seed) });
      const device = await openOver(fileSystem);
      await device.write(new Uint8Array(BLOCK).fill(1), 0);
      fileSystem.failWhen(({ kind, name }) => kind === 'write' && name === 'disk', { stays: true });
      const failing = [0, 2 * BLOCK, 4 * BLOCK + SECTOR].flatMap((offset) =>
        [false, true].map((fua) => submitWrite(device, new Uint8Array(SECTOR).fill(2), offset, fua)),
      );
      device.commitWrites();
      await expect.poll(() => outcomes(failing).includes('pending'), { interval: 1 }).toBe(false);
      for (const outcome of outcomes(failing)) expect(outcome).toMatchObject({ code: 'COD_TARGET_IO' });
      fileSystem.clearFaults();
      // Bytes without a record are still the source's.
      const found = new Uint8Array(4 * BLOCK);
      await device.read(found, 2 * BLOCK);
      expectBytes(found, IMAGE.subarray(2 * BLOCK, 6 * BLOCK));
      const expected = IMAGE.slice();
      expected.fill(3, 0, 6 * BLOCK);
      const writing = submitWrite(device, new Uint8Array(6 * BLOCK).fill(3), 0, true);
      device.commitWrites();
      await expect.poll(() => writing.outcome, { interval: 1 }).toBe('acknowledged');
      expectBytes(await readAll(device), expected);
      await device.close();
    }
  });

  test('completes before close resolves', async () => {
    const volume = new Volume();
    const device = await open(volume);
    const writings = [
      submitWrite(device, new Uint8Array(BLOCK).fill(9), BLOCK),
      submitWrite(device, new Uint8Array(SECTOR).fill(8), 3 * BLOCK, true),
    ];
    await device.close();
    expect(outcomes(writings)).toEqual(['acknowledged', 'acknowledged']);
    const again = await open(volume);
    expect(again.status()).toMatchObject({ syncedBlocks: 1, dirtyBlocks: 1 });
    expectBytes(readNow(again, BLOCK, BLOCK)!, new Uint8Array(BLOCK).fill(9));
    expectBytes(readNow(again, 3 * BLOCK, SECTOR)!, new Uint8Array(SECTOR).fill(8));
    await again.close();
  });
});

describe('no acknowledged byte is lost', () => {
  /** Timers never fire: only the calls of the test change the disk. */
  const timeless: Environment = {
    ...systemEnvironment,
    clock: { now: () => 0, sleep: () => new Promise(() => undefined), turn: () => turn() },
  };

  /** A write to bytes that no other write changes. */
  interface Placed {
    readonly offset: number;
    readonly length: number;
    readonly value: number;
    readonly fua: boolean;
    acknowledged: boolean;
  }

  /** Submits random writes, several in each turn, until the crash. Returns the writes. */
  async function live(fileSystem: CrashingFileSystem, random: ReturnType<typeof seededRandom>): Promise<Placed[]> {
    const source = inlineSource(() => random.oneIn(2)).source;
    const options = { source, fileSystem, target: 'disk', hydrate: false } as const;
    const writes: Placed[] = [];
    const story = async (): Promise<void> => {
      const device = await openDeviceIn(timeless, options);
      const places = random.shuffle(Array.from({ length: BLOCKS - 1 }, (_, block) => block));
      while (places.length > 0) {
        for (const block of places.splice(0, 1 + random.below(6))) {
          if (random.oneIn(4)) void device.read(new Uint8Array(BLOCK), block * BLOCK).catch(() => undefined);
          const isWhole = random.oneIn(2);
          const sectors = isWhole ? [0] : random.shuffle([0, 1, 2, 3, 4, 5, 6, 7]).slice(0, 1 + random.below(3));
          for (const sector of sectors) {
            const write: Placed = {
              offset: block * BLOCK + sector * SECTOR,
              length: isWhole ? BLOCK : SECTOR,
              value: 1 + random.below(255),
              fua: random.oneIn(3),
              acknowledged: false,
            };
            writes.push(write);
            const bytes = new Uint8Array(write.length).fill(write.value);
            device.submitWrite(bytes, write.offset, write.fua, (error) => {
              write.acknowledged = error === undefined;
            });
          }
        }
        if (random.oneIn(2)) device.commitWrites();
        await turn();
      }
    };
    await Promise.race([story().catch(() => undefined), fileSystem.crashed]);
    return writes;
  }

  test.each(['process', 'power', 'loss'] as const)(
    'by a %s crash at any operation, for any writes of a turn',
    async (kind) => {
      let acknowledged = 0;
      for (let seed = 0; seed < 150; seed++) {
        const random = seededRandom(seed);
        const fileSystem = new CrashingFileSystem({
          inline: true,
          tearBytes: (name) => (name === 'disk' ? BLOCK : 1),
          random: random.fork(),
        });
        fileSystem.crashAt(1 + random.below(250));
        const writes = await live(fileSystem, random);
        const after = await openDeviceIn(timeless, {
          source: bytesSource(IMAGE),
          fileSystem: fileSystem.crash({ kind, random }),
          target: 'disk',
          hydrate: false,
        });
        const found = await readAll(after);
        await after.close();
        const expected = IMAGE.slice();
        for (const { offset, length, value, fua, acknowledged: isAcknowledged } of writes) {
          if (isAcknowledged && (kind === 'process' || fua)) {
            acknowledged++;
            expected.fill(value, offset, offset + length);
            continue;
          }
          // Any part of the write may be on the disk.
          for (let at = offset; at < offset + length; at++) if (found[at] === value) expected[at] = value;
        }
        expect(Buffer.compare(found, expected), `seed ${seed}`).toBe(0);
      }
      expect(acknowledged).toBeGreaterThan(500);
    },
  );
});

describe('a write to a synced block, which has no record,', () => {
  const begin = async (fileSystem: CrashingFileSystem): Promise<InlineDevice> => openOver(fileSystem);
  const crashed = async (
    kind: 'process' | 'power',
    use: (device: InlineDevice) => Promise<void>,
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
      const flushed = async (device: InlineDevice): Promise<void> => {
        await device.write(new Uint8Array(BLOCK).fill(7), BLOCK);
        if (seed % 2 === 0) await device.flush();
        await device.write(new Uint8Array(10).fill(8), BLOCK + 100, { fua: true });
      };
      expectBytes(await crashed('power', flushed, seed), new Uint8Array(BLOCK).fill(7).fill(8, 100, 110));
    },
  );
});

test('hydrateRange fetches each missing block of the range once', async () => {
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
  test('report states and known zeros, in bytes', async () => {
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

test('the blocks of each part of a range are counted by state', async () => {
  const device = await open();
  await device.write(new Uint8Array(3 * BLOCK), 6 * BLOCK);
  await device.write(new Uint8Array(10), 9 * BLOCK);
  expect(device.countBlocks(0, 16, 4)).toEqual({
    synced: Float64Array.of(0, 2, 1, 0),
    dirty: Float64Array.of(0, 0, 1, 0),
  });
  await device.close();
  expect(() => device.countBlocks(0, 16, 4)).toThrow('closed');
});
