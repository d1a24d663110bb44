/** Cold reads are answered before their bytes are stored, and memory stays bounded while the target is slow. */

import { setImmediate as turn } from 'node:timers/promises';
import { Volume } from 'memfs';
import { afterEach, describe, expect, test } from 'vitest';
import { openDeviceIn } from '../../src/device/open.ts';
import type { InlineDevice } from '../../src/device/types.ts';
import { memfsFileSystem } from '../../src/fs/memfs.ts';
import { CodError, type Device, type FileSystem, openDevice, type Source } from '../../src/index.ts';
import { systemEnvironment } from '../../src/platform/environment.ts';
import type { InlineSource } from '../../src/sources/source.ts';
import { expectBytes } from '../support/bytes.ts';

const BLOCK = 4096;
const MIB = 2 ** 20;
/** The most bytes that may be fetched but not stored before further reads wait. */
const ROOM = 32 * MIB;
/** The most bytes that a read fetches at a time. */
const PIECE = 4 * MIB;
const IMAGE: Uint8Array = numbered(64 * MIB + 1000);

/** Bytes without zeros that differ from block to block. */
function numbered(length: number): Uint8Array {
  const words = new Uint32Array(Math.ceil(length / 4));
  for (let index = 0; index < words.length; index++) words[index] = 0x01010101 + index * 257;
  return new Uint8Array(words.buffer, 0, length);
}

/** A write of the target that has not resolved. */
interface PendingWrite {
  readonly offset: number;
  readonly length: number;
  resolve(): void;
  fail(): void;
}

/** A file system whose target `disk` completes writes only when the test releases them. */
class SlowTarget implements FileSystem {
  readonly volume = new Volume();
  /** Writes that have not resolved, in order. */
  readonly pending: PendingWrite[] = [];
  storedBytes = 0;
  /** Writes resolve immediately. */
  isFast = false;
  readonly #inner: FileSystem = memfsFileSystem(this.volume);

  async open(...[name, options]: Parameters<FileSystem['open']>): ReturnType<FileSystem['open']> {
    const file = await this.#inner.open(name, options);
    if (name !== 'disk') return file;
    return {
      size: () => file.size(),
      read: (into, offset) => file.read(into, offset),
      write: async (from, offset) => {
        if (!this.isFast) {
          await new Promise<void>((resolve, reject) => {
            const { length } = from;
            const fail = (): void => reject(new CodError('COD_TARGET_IO', 'the write failed'));
            this.pending.push({ offset, length, resolve, fail });
          });
        }
        await file.write(from, offset);
        this.storedBytes += from.length;
      },
      truncate: (size) => file.truncate(size),
      sync: () => file.sync(),
      close: () => file.close(),
    };
  }

  remove(name: string): Promise<void> {
    return this.#inner.remove(name);
  }

  /** Releases all writes, including later ones. */
  finish(): void {
    this.isFast = true;
    for (const { resolve } of this.pending.splice(0)) resolve();
  }
}

interface CountedSource extends InlineSource {
  /** Requests as offset and length. */
  readonly asked: [offset: number, length: number][];
}

/** A source that answers in the next turn, or synchronously. */
function countedSource(kind: 'later' | 'now' = 'later'): CountedSource {
  const asked: [offset: number, length: number][] = [];
  const fill = (into: Uint8Array, offset: number): void => into.set(IMAGE.subarray(offset, offset + into.length));
  const source: Source = {
    size: IMAGE.length,
    read: async (into, offset, { signal } = {}) => {
      asked.push([offset, into.length]);
      await turn();
      signal?.throwIfAborted();
      fill(into, offset);
    },
    close: async () => undefined,
  };
  if (kind === 'later') return { ...source, asked };
  const submitRead = (into: Uint8Array, offset: number): undefined => {
    asked.push([offset, into.length]);
    fill(into, offset);
  };
  return { ...source, submitRead, asked };
}

const opened: { device: Device; target: SlowTarget }[] = [];

afterEach(async () => {
  for (const { device, target } of opened.splice(0)) {
    target.finish();
    await device.close();
  }
});

async function open(source: Source = countedSource()): Promise<{ device: InlineDevice; target: SlowTarget }> {
  const target = new SlowTarget();
  const options = { source, fileSystem: target, target: 'disk', hydrate: false } as const;
  const device = await openDeviceIn(systemEnvironment, options);
  opened.push({ device, target });
  return { device, target };
}

async function openPublic(source: Source): Promise<{ device: Device; target: SlowTarget }> {
  const target = new SlowTarget();
  const device = await openDevice({ source, fileSystem: target, target: 'disk', hydrate: false });
  opened.push({ device, target });
  return { device, target };
}

async function readAt(device: Device, offset: number, length: number): Promise<void> {
  const bytes = new Uint8Array(length);
  await device.read(bytes, offset);
  expectBytes(bytes, IMAGE.subarray(offset, offset + length));
}

/** Whether a promise settles within many turns of the event loop. */
async function settles(promise: Promise<unknown>): Promise<boolean> {
  let isSettled = false;
  const note = (): void => {
    isSettled = true;
  };
  promise.then(note, note);
  for (let turns = 0; turns < 50 && !isSettled; turns++) await turn();
  return isSettled;
}

describe.each([
  ['openDevice', openPublic],
  ['openDeviceIn', open],
])('through %s', (_, openWith) => {
  describe.each([
    ['4 KiB', BLOCK],
    ['1 MiB', MIB],
  ])('a cold read of %s', (_, length) => {
    test.each(['later', 'now'] as const)(
      'is answered before the write of the target, with a source that answers %s',
      async (kind) => {
        const source = countedSource(kind);
        const { device, target } = await openWith(source);
        await readAt(device, 8 * BLOCK, length);
        expect(target.storedBytes).toBe(0);
        expect(device.status().syncedBlocks).toBe(0);
        await expect.poll(() => target.pending.map(({ offset }) => offset)).toEqual([8 * BLOCK]);
        // Many turns later the write is still in flight, and no block is recorded.
        await settles(new Promise(() => undefined));
        expect(device.status().syncedBlocks).toBe(0);
        target.finish();
        await expect.poll(() => device.status().syncedBlocks).toBe(length / BLOCK);
        await readAt(device, 8 * BLOCK, length);
        expect(source.asked).toEqual([[8 * BLOCK, length]]);
        expect(device.status().sourceBytes).toBe(length);
      },
    );

    test('of blocks that are being stored is answered from memory, without a second request', async () => {
      const source = countedSource();
      const { device, target } = await openWith(source);
      await readAt(device, 0, length);
      await expect.poll(() => target.pending.length).toBe(1);
      for (let count = 0; count < 3; count++) {
        await readAt(device, 0, length);
        await readAt(device, 100, 50);
        await readAt(device, length - 10, 10);
      }
      expect(source.asked).toEqual([[0, length]]);
      // Only the block that was not fetched is requested.
      await readAt(device, length - 10, 20);
      expect(source.asked).toEqual([
        [0, length],
        [length, BLOCK],
      ]);
      expect(device.status().syncedBlocks).toBe(0);
      await expect.poll(() => target.pending.length).toBe(2);
      expect(target.storedBytes).toBe(0);
      target.finish();
      await expect.poll(() => device.status().syncedBlocks).toBe(length / BLOCK + 1);
      expect(target.storedBytes).toBe(length + BLOCK);
    });
  });

  test('readers of one block share a request in flight, and all are answered before the block is stored', async () => {
    const source = countedSource();
    const { device, target } = await openWith(source);
    await Promise.all([0, 1, 2, 3].map((index) => readAt(device, index * 1000, 900)));
    expect(source.asked).toEqual([[0, BLOCK]]);
    expect(target.storedBytes).toBe(0);
    target.finish();
    await expect.poll(() => device.status().syncedBlocks).toBe(1);
    expect(target.storedBytes).toBe(BLOCK);
  });
});

describe('a write of a user', () => {
  test('to a block that is being stored wins over the bytes of the source', async () => {
    const { device, target } = await open();
    await readAt(device, 0, BLOCK);
    await expect.poll(() => target.pending.length).toBe(1);
    const expected = IMAGE.slice(0, BLOCK).fill(9, 512, 1024);
    const writing = device.write(new Uint8Array(512).fill(9), 512);
    expect(await settles(writing)).toBe(false);
    target.finish();
    await writing;
    await expect.poll(() => device.status()).toMatchObject({ syncedBlocks: 1, dirtyBlocks: 0 });
    const found = new Uint8Array(BLOCK);
    await device.read(found, 0);
    expectBytes(found, expected);
    await device.close();
    expectBytes(new Uint8Array(target.volume.readFileSync('/disk') as Buffer).subarray(0, BLOCK), expected);
  });

  test('between the answer of a cold read and its store also wins', async () => {
    const { device, target } = await open();
    target.isFast = true;
    await readAt(device, 0, 4 * BLOCK);
    // The store starts in the next turn of the event loop.
    const writing = device.write(new Uint8Array(BLOCK + 512).fill(9), BLOCK);
    const expected = IMAGE.slice(0, 4 * BLOCK).fill(9, BLOCK, 2 * BLOCK + 512);
    await writing;
    await expect.poll(() => device.status()).toMatchObject({ syncedBlocks: 4, dirtyBlocks: 0 });
    const found = new Uint8Array(4 * BLOCK);
    await device.read(found, 0);
    expectBytes(found, expected);
  });
});

describe('a store that fails', () => {
  test('does not fail the read, and a later read fetches the block again', async () => {
    const source = countedSource();
    const { device, target } = await open(source);
    await readAt(device, 0, BLOCK);
    await expect.poll(() => target.pending.length).toBe(1);
    target.pending.splice(0)[0]!.fail();
    await settles(new Promise(() => undefined));
    expect(device.status().syncedBlocks).toBe(0);
    target.isFast = true;
    await readAt(device, 0, BLOCK);
    expect(source.asked).toHaveLength(2);
    await expect.poll(() => device.status().syncedBlocks).toBe(1);
  });
});

describe('while 32 MiB are fetched and not stored', () => {
  /** A device whose memory for fetched bytes is used up. */
  async function full(source: CountedSource = countedSource()): Promise<{ device: InlineDevice; target: SlowTarget }> {
    const { device, target } = await open(source);
    for (let at = 0; at < ROOM; at += MIB) await readAt(device, at, MIB);
    await expect.poll(() => target.pending.length).toBe(ROOM / MIB);
    expect(source.asked).toHaveLength(ROOM / MIB);
    return { device, target };
  }

  test.each([
    ['4 KiB', BLOCK],
    ['1 MiB', MIB],
  ])('a further cold read of %s waits, and completes when a write has resolved', async (_, length) => {
    const source = countedSource();
    const { device, target } = await full(source);
    const reading = readAt(device, 40 * MIB, length);
    expect(await settles(reading)).toBe(false);
    expect(source.asked).toHaveLength(ROOM / MIB);
    target.pending.shift()!.resolve();
    await reading;
    expect(source.asked.slice(ROOM / MIB)).toEqual([[40 * MIB, length]]);
    expect(target.storedBytes).toBe(MIB);
  });

  test('a further cold read completes when a write has failed', async () => {
    const { device, target } = await full();
    const reading = readAt(device, 40 * MIB, BLOCK);
    expect(await settles(reading)).toBe(false);
    target.pending.shift()!.fail();
    await reading;
  });

  test('the device fetches at most one read more, independent of the number of waiting readers', async () => {
    const source = countedSource();
    const { device, target } = await open(source);
    const reads = Array.from({ length: 62 }, (_, index) => readAt(device, index * MIB, MIB));
    const fetched = (): number => source.asked.reduce((sum, [, length]) => sum + length, 0);
    let most = 0;
    let isDone = false;
    const all = Promise.all(reads).finally(() => {
      isDone = true;
    });
    while (!isDone) {
      for (let turns = 0; turns < 3; turns++) await turn();
      most = Math.max(most, fetched() - target.storedBytes);
      target.pending.shift()?.resolve();
    }
    await all;
    expect(most).toBeGreaterThanOrEqual(ROOM);
    expect(most).toBeLessThan(ROOM + PIECE);
    expect(fetched()).toBe(62 * MIB);
    target.finish();
    await expect.poll(() => device.status().syncedBlocks).toBe((62 * MIB) / BLOCK);
  });

  test('a long read waits in its middle, and completes as writes complete', async () => {
    const source = countedSource();
    const { device, target } = await open(source);
    const reading = readAt(device, 0, IMAGE.length);
    expect(await settles(reading)).toBe(false);
    const fetched = source.asked.reduce((sum, [, length]) => sum + length, 0);
    expect(fetched).toBeGreaterThanOrEqual(ROOM);
    expect(fetched).toBeLessThan(ROOM + PIECE);
    target.finish();
    await reading;
    await expect.poll(() => device.status()).toMatchObject({ state: 'hydrated' });
  });

  test('a waiting read rejects with the reason of its signal', async () => {
    const { device } = await full();
    const abort = new AbortController();
    const reading = device.read(new Uint8Array(BLOCK), 40 * MIB, { signal: abort.signal });
    expect(await settles(reading)).toBe(false);
    abort.abort(new Error('enough'));
    await expect(reading).rejects.toThrow('enough');
  });

  test('close rejects a waiting read, and stores the fetched bytes', async () => {
    const { device, target } = await full();
    const reading = device.read(new Uint8Array(BLOCK), 40 * MIB);
    expect(await settles(reading)).toBe(false);
    const closing = device.close();
    const ended = expect(reading).rejects.toMatchObject({ code: 'COD_CLOSED' });
    target.finish();
    await ended;
    await closing;
    expect(target.storedBytes).toBe(ROOM);
    expect(device.status().syncedBlocks).toBe(ROOM / BLOCK);
  });

  test.each([
    ['synced', 50 * MIB, BLOCK],
    ['written', 51 * MIB + 512, 512],
    ['fetched', 3 * MIB, BLOCK],
  ])('a read of %s bytes, which needs no request, is answered', async (_, offset, length) => {
    const source = countedSource();
    const { device, target } = await open(source);
    target.isFast = true;
    await device.write(IMAGE.subarray(50 * MIB, 50 * MIB + BLOCK), 50 * MIB);
    await device.write(IMAGE.subarray(51 * MIB + 512, 51 * MIB + 1024), 51 * MIB + 512);
    target.isFast = false;
    for (let at = 0; at < ROOM; at += MIB) await readAt(device, at, MIB);
    await expect.poll(() => target.pending.length).toBe(ROOM / MIB);
    expect(await settles(readAt(device, offset, length))).toBe(true);
    expect(source.asked).toHaveLength(ROOM / MIB);
  });
});
