/** Cold reads from a source that answers at once. */

import { setImmediate as turn } from 'node:timers/promises';
import { Volume } from 'memfs';
import { describe, expect, it, onTestFinished } from 'vitest';
import { openDeviceIn } from '../../src/device/open.ts';
import type { InlineDevice } from '../../src/device/types.ts';
import { memfsFileSystem } from '../../src/fs/memfs.ts';
import { CodError, type FileSystem } from '../../src/index.ts';
import { systemEnvironment } from '../../src/platform/environment.ts';
import type { InlineSource } from '../../src/sources/source.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { expectBytes } from '../support/bytes.ts';

const BLOCK = 4096;
const BLOCKS = 100;
const IMAGE: Uint8Array = seededRandom(1).fill(new Uint8Array(BLOCKS * BLOCK - 100));

interface NearSource extends InlineSource {
  /** Offset and length of each request that was answered at once. */
  readonly asked: [offset: number, length: number][];
  /** How many requests were made the long way. */
  late: number;
  /** Called before each answer at once: false if there is none. */
  answers: () => boolean;
}

function nearSource(): NearSource {
  const source: NearSource = {
    size: IMAGE.length,
    asked: [],
    late: 0,
    answers: () => true,
    readNow: (into, offset) => {
      if (!source.answers()) return false;
      source.asked.push([offset, into.length]);
      into.set(IMAGE.subarray(offset, offset + into.length));
      return true;
    },
    submitRead: (into, offset) => {
      source.late++;
      return source.read(into, offset);
    },
    read: async (into, offset) => {
      await turn();
      if (!source.answers() && source.late > 10) throw new CodError('COD_SOURCE_IO', 'away');
      into.set(IMAGE.subarray(offset, offset + into.length));
    },
    close: async () => undefined,
  };
  return source;
}

/** Files whose names match are written later, after `before`. */
function writingAfter(
  before: (from: Uint8Array) => Promise<void> | undefined,
  names: RegExp,
  fileSystem: FileSystem = memfsFileSystem(new Volume()),
): FileSystem {
  return {
    ...fileSystem,
    open: async (name, options) => {
      const file = await fileSystem.open(name, options);
      if (!names.test(name)) return file;
      return {
        size: () => file.size(),
        read: (into, offset) => file.read(into, offset),
        write: async (from, offset) => {
          await before(from);
          await file.write(from, offset);
        },
        truncate: (size) => file.truncate(size),
        sync: () => file.sync(),
        close: () => file.close(),
      };
    },
  };
}

async function open(
  source: NearSource,
  fileSystem: FileSystem = memfsFileSystem(new Volume()),
  blockSize = BLOCK,
): Promise<InlineDevice> {
  const options = { source, fileSystem, target: 'disk', hydrate: false, blockSize } as const;
  const device = await openDeviceIn(systemEnvironment, options);
  onTestFinished(() => device.close().catch(() => undefined));
  return device;
}

async function expectRead(device: InlineDevice, offset: number, length: number): Promise<void> {
  const bytes = new Uint8Array(length);
  await device.read(bytes, offset);
  expectBytes(bytes, IMAGE.subarray(offset, offset + length));
}

it('asks for each block once, and keeps it', async () => {
  const source = nearSource();
  const device = await open(source);
  await expectRead(device, 5 * BLOCK, 3 * BLOCK);
  await expectRead(device, (BLOCKS - 1) * BLOCK, BLOCK - 100);
  await turn();
  await turn();
  source.answers = () => false;
  await expectRead(device, 5 * BLOCK, 3 * BLOCK);
  await expectRead(device, (BLOCKS - 1) * BLOCK, BLOCK - 100);
  expect(source.asked).toEqual([
    [5 * BLOCK, 3 * BLOCK],
    [(BLOCKS - 1) * BLOCK, BLOCK - 100],
  ]);
  expect(source.late).toBe(0);
  expect(device.status()).toMatchObject({ syncedBlocks: 4, demand: { requests: 2, bytes: 4 * BLOCK - 100 } });
});

it.each([BLOCK, 65_536])('fetches whole blocks of %i bytes for a part of them', async (blockSize) => {
  const source = nearSource();
  const device = await open(source, undefined, blockSize);
  await expectRead(device, 9 * BLOCK + 512, 512);
  await expectRead(device, 30 * BLOCK + 100, BLOCK);
  await turn();
  await turn();
  source.answers = () => false;
  await expectRead(device, 9 * BLOCK, BLOCK);
  await expectRead(device, 30 * BLOCK, 2 * BLOCK);
  expect([source.asked.length, source.late]).toEqual([2, 0]);
});

it('records many reads by one append', async () => {
  let appends = 0;
  const files = writingAfter(() => void appends++, /\.log/);
  const device = await open(nearSource(), files);
  const before = appends;
  const into = new Uint8Array(BLOCK);
  for (let block = 0; block < 64; block++) expect(device.submitRead(into, block * BLOCK)).toBeUndefined();
  for (let turns = 0; turns < 5; turns++) await turn();
  expect(device.status().syncedBlocks).toBe(64);
  expect(appends - before).toBeLessThanOrEqual(2);
});

it('reads blocks that the target holds in part the long way', async () => {
  const source = nearSource();
  const device = await open(source);
  await device.write(new Uint8Array(512), 7 * BLOCK + 512);
  const bytes = new Uint8Array(3 * BLOCK);
  await device.read(bytes, 6 * BLOCK);
  const expected = IMAGE.slice(6 * BLOCK, 9 * BLOCK);
  expected.fill(0, BLOCK + 512, BLOCK + 1024);
  expectBytes(bytes, expected);
  expect([source.asked.length, source.late]).toEqual([0, 1]);
});

it('does not store over a write that came before the record', async () => {
  const device = await open(nearSource());
  const into = new Uint8Array(BLOCK);
  expect(device.submitRead(into, 0)).toBeUndefined();
  await device.write(new Uint8Array(BLOCK).fill(9), 0);
  await turn();
  await turn();
  await device.read(into, 0);
  expectBytes(into, new Uint8Array(BLOCK).fill(9));
});

it('keeps what was read right before the end', async () => {
  const volume = new Volume();
  const source = nearSource();
  const device = await open(source, memfsFileSystem(volume));
  for (let block = 0; block < 5; block++) await device.submitRead(new Uint8Array(BLOCK), block * BLOCK);
  await device.close();
  const again = await open(source, memfsFileSystem(volume));
  expect(again.status().syncedBlocks).toBe(5);
});

describe('a source', () => {
  it('that fails is asked the long way, which says why', async () => {
    const source = nearSource();
    const device = await open(source);
    source.answers = () => {
      throw new CodError('COD_SOURCE_IO', 'a bad sector');
    };
    await expect(device.read(new Uint8Array(BLOCK), 0)).rejects.toMatchObject({ message: 'a bad sector' });
    expect(device.status()).toMatchObject({ syncedBlocks: 0, errors: { COD_SOURCE_IO: 1 } });
    source.answers = () => true;
    await expectRead(device, 0, BLOCK);
  });

  it('that may take long is not waited for', async () => {
    const source = nearSource();
    const device = await open(source);
    source.answers = () => false;
    await expectRead(device, 0, BLOCK);
    expect([source.asked.length, source.late]).toEqual([0, 1]);
  });
});

describe('a store', () => {
  it('that fails does not fail the read', async () => {
    let fails = true;
    const broken = new CodError('COD_TARGET_IO', 'the disk is broken');
    const files = writingAfter(() => (fails ? Promise.reject(broken) : undefined), /^disk$/);
    const source = nearSource();
    const device = await open(source, files);
    await expectRead(device, 0, BLOCK);
    for (let turns = 0; turns < 5; turns++) await turn();
    expect(device.status().syncedBlocks).toBe(0);
    fails = false;
    await expectRead(device, 0, BLOCK);
    for (let turns = 0; turns < 5; turns++) await turn();
    expect(device.status().syncedBlocks).toBe(1);
  });

  it('that takes long ends before the reader has its memory back', async () => {
    const waiting: (() => void)[] = [];
    const stored: Uint8Array[] = [];
    const files = writingAfter(async (from) => {
      await new Promise<void>((resolve) => waiting.push(resolve));
      stored.push(from.slice());
    }, /^disk$/);
    const device = await open(nearSource(), files);
    const whole = new Uint8Array(BLOCK);
    const part = new Uint8Array(512);
    const reads = [device.read(whole, 0), device.read(part, 3 * BLOCK)].map((read, index) =>
      read.then(() => [whole, part][index]!.fill(0xee)),
    );
    await turn();
    for (const go of waiting.splice(0)) go();
    await Promise.all(reads);
    expectBytes(stored[0]!, IMAGE.subarray(0, BLOCK));
    expectBytes(stored[1]!, IMAGE.subarray(3 * BLOCK, 4 * BLOCK));
  });
});
