/** A device that is only read: in whatever state a crash left the copy, it reads the same as a device that writes. */

import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Volume } from 'memfs';
import { afterAll, describe, expect, it } from 'vitest';
import { nodeFileSystem } from '../../src/control/node-file-system.ts';
import { type OpenDeviceOptions, openDeviceIn } from '../../src/device/open.ts';
import type { InlineDevice } from '../../src/device/types.ts';
import { memfsFileSystem } from '../../src/fs/memfs.ts';
import { bytesSource, type Device, type FileSystem, openDevice } from '../../src/index.ts';
import { exploreCrashes, type Life } from '../../src/testing/index.ts';
import { MemoryFiles } from '../log/memory-files.ts';

const BLOCK = 4096;
const SIZE = 16 * BLOCK + 100;
const IMAGE = Uint8Array.from({ length: SIZE }, (_, index) => (index % 251) + 1);

const directory = mkdtempSync(join(tmpdir(), 'cod-read-only-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

function open(fileSystem: FileSystem, options: Partial<OpenDeviceOptions> = {}): Promise<Device> {
  return openDevice({ source: bytesSource(IMAGE), fileSystem, target: 'disk', hydrate: false, ...options });
}

async function readAll(device: Device): Promise<Uint8Array> {
  const bytes = new Uint8Array(device.size);
  await device.read(bytes, 0);
  return bytes;
}

/** Makes a copy with synced, dirty and missing blocks. Returns what it reads as. */
async function makeCopy(fileSystem: FileSystem): Promise<Uint8Array> {
  const device = await open(fileSystem);
  const expected = IMAGE.slice();
  for (const [offset, length] of [
    [2 * BLOCK, BLOCK],
    [5 * BLOCK + 7, 100],
  ] as const) {
    await device.write(new Uint8Array(length).fill(0xee), offset);
    expected.fill(0xee, offset, offset + length);
  }
  await device.read(new Uint8Array(1), 9 * BLOCK);
  await device.close();
  return expected;
}

/** Everything that a change of a directory or its files would change. */
function fingerprint(folder: string): unknown {
  const ofFile = (name: string): unknown => {
    const path = join(folder, name);
    const { mtimeNs, ino, mode } = statSync(path, { bigint: true });
    return [name, mtimeNs, ino, mode, readFileSync(path).toString('base64')];
  };
  return [statSync(folder, { bigint: true }).mtimeNs, readdirSync(folder).map(ofFile)];
}

describe('a device that is only read', () => {
  it('reads synced, dirty and missing bytes, and changes nothing on disk', async () => {
    const folder = mkdtempSync(join(directory, 'd-'));
    const expected = await makeCopy(nodeFileSystem(folder));
    const before = fingerprint(folder);
    for (const fileSystem of [nodeFileSystem(folder), nodeFileSystem(folder, { readOnly: true })]) {
      const device = await open(fileSystem, { readOnly: true, hydrate: {} });
      expect(await readAll(device)).toEqual(expected);
      await device.hydrateRange(0, SIZE);
      await device.flush();
      // Nothing is kept: the map is as it was.
      expect(device.status()).toMatchObject({ state: 'idle', syncedBlocks: 2, dirtyBlocks: 1, metadataBytes: 0 });
      expect(await device.extents(9 * BLOCK, 2 * BLOCK, 8)).toMatchObject([{ state: 'synced' }, { state: 'unsynced' }]);
      expect(await readAll(device)).toEqual(expected);
      await device.close();
      await expect(readAll(device)).rejects.toMatchObject({ code: 'COD_CLOSED' });
    }
    expect(fingerprint(folder)).toEqual(before);
  });

  it('reads files that an owner that was killed holds aside, and leaves them there', async () => {
    for (const [suffix, isReplaced] of ['.bak', '.bak.1', '.wil', '.wil.1', ''].flatMap((end) =>
      [false, true].map((isReplaced) => [end, isReplaced] as const),
    )) {
      const folder = mkdtempSync(join(directory, 'd-'));
      const expected = await makeCopy(nodeFileSystem(folder));
      const path = join(folder, `disk${suffix}`);
      if (!existsSync(path)) continue;
      renameSync(path, join(folder, `disk.lock.0123456789abcdef.moved${suffix}`));
      // An owner that was replaced has made an empty file, and stopped.
      if (isReplaced) writeFileSync(path, '');
      const before = fingerprint(folder);
      for (const fileSystem of [nodeFileSystem(folder), nodeFileSystem(folder, { readOnly: true })]) {
        const device = await open(fileSystem, { readOnly: true });
        expect(await readAll(device)).toEqual(expected);
        await device.close();
      }
      expect(fingerprint(folder)).toEqual(before);
    }
  });

  it('refuses every change, and reads on', async () => {
    const fileSystem = new MemoryFiles();
    const expected = await makeCopy(fileSystem);
    const { length } = fileSystem.calls;
    const device = (await open(fileSystem, { readOnly: true })) as InlineDevice;
    const refused = { code: 'COD_READ_ONLY' };
    for (const count of [0, 1, 512, BLOCK, SIZE]) {
      const offset = count === SIZE ? 0 : 2 * BLOCK;
      await expect(device.write(new Uint8Array(count), offset)).rejects.toMatchObject(refused);
      await expect(device.write(new Uint8Array(count), offset, { fua: true })).rejects.toMatchObject(refused);
      await expect(device.discard(offset, count)).rejects.toMatchObject(refused);
      await expect(device.writeZeroes(offset, count)).rejects.toMatchObject(refused);
    }
    await expect(device.checkpoint()).rejects.toMatchObject(refused);
    await expect(device.finish()).rejects.toMatchObject(refused);
    device.commitWrites();
    expect(await readAll(device)).toEqual(expected);
    await device.close();
    expect(fileSystem.calls.length).toBe(length);
  });

  it('joins reads of the same missing blocks', async () => {
    const fileSystem = new MemoryFiles();
    await makeCopy(fileSystem);
    let reads = 0;
    const arrive: (() => void)[] = [];
    const source = {
      size: SIZE,
      read: async (into: Uint8Array, offset: number) => {
        reads++;
        await new Promise<void>((resolve) => arrive.push(resolve));
        into.set(IMAGE.subarray(offset, offset + into.length));
      },
      close: async () => undefined,
    };
    const device = await open(fileSystem, { readOnly: true, source });
    const reading = Array.from({ length: 3 }, () => device.read(new Uint8Array(10), 12 * BLOCK));
    expect(arrive.length).toBe(1);
    arrive[0]!();
    await Promise.all(reading);
    expect(reads).toBe(1);
    await device.close();
  });

  it('is hydrated if the copy is complete, and keeps its metadata', async () => {
    const fileSystem = new MemoryFiles();
    const writer = await open(fileSystem, { hydrate: {} });
    await writer.hydrated;
    await writer.close();
    const device = await open(fileSystem, { readOnly: true });
    await device.hydrated;
    expect(device.status().state).toBe('hydrated');
    await expect(device.finish()).rejects.toMatchObject({ code: 'COD_READ_ONLY' });
    await expect(device.checkpoint()).rejects.toMatchObject({ code: 'COD_READ_ONLY' });
    await device.close();
    const again = await open(fileSystem);
    await again.hydrated;
    await again.finish();
  });

  it.each<[string, () => [FileSystem, FileSystem]]>([
    ['on the same file system', () => [new MemoryFiles(), undefined as never]],
    ['on the same memfs volume', () => ((volume) => [memfsFileSystem(volume), memfsFileSystem(volume)])(new Volume())],
    [
      "in the same directory of Node's files",
      () =>
        ((folder) => [nodeFileSystem(folder), nodeFileSystem(folder, { readOnly: true })])(
          mkdtempSync(join(directory, 'o-')),
        ),
    ],
  ])('is refused while a device is open for writing %s', async (_, make) => {
    const [fileSystem, another = fileSystem] = make();
    const writer = await open(fileSystem);
    await expect(open(another, { readOnly: true })).rejects.toMatchObject({ code: 'COD_LOCKED' });
    await writer.close();
    // Readers exclude neither a writer nor each other.
    const readers = [await open(another, { readOnly: true }), await open(another, { readOnly: true })];
    await (await open(fileSystem)).close();
    for (const reader of readers) await reader.close();
  });

  it('is refused if a device is opened for writing while the metadata is read', async () => {
    const volume = new Volume();
    const fileSystem = memfsFileSystem(volume);
    await makeCopy(fileSystem);
    let writer: Promise<Device> | undefined;
    const reading: FileSystem = {
      ...memfsFileSystem(volume),
      open: async (name, how) => {
        await (writer ??= open(fileSystem));
        return fileSystem.open(name, how);
      },
    };
    await expect(open(reading, { readOnly: true })).rejects.toMatchObject({ code: 'COD_LOCKED' });
    await (await writer)!.close();
  });

  it('needs a copy of which something was copied', async () => {
    const notFound = { code: 'COD_NOT_FOUND' };
    const fileSystem = new MemoryFiles();
    await expect(open(fileSystem, { readOnly: true })).rejects.toMatchObject(notFound);
    await (await fileSystem.open('disk', { create: true })).write(IMAGE, 0);
    await expect(open(fileSystem, { readOnly: true })).rejects.toMatchObject({
      ...notFound,
      message: expect.stringContaining('has no metadata'),
    });
    const copy = new MemoryFiles();
    await makeCopy(copy);
    await copy.remove('disk');
    await expect(open(copy, { readOnly: true })).rejects.toMatchObject({ code: 'COD_CORRUPT' });
    const empty = new MemoryFiles();
    await (await open(empty)).close();
    await empty.remove('disk');
    await expect(open(empty, { readOnly: true })).rejects.toMatchObject(notFound);
    const other = bytesSource(IMAGE.subarray(1));
    await expect(open(copy, { readOnly: true, source: other })).rejects.toMatchObject({ code: 'COD_CORRUPT' });
  });
});

it('reads after any crash what a device reads that opens the copy for writing', async () => {
  const openLife = ({ fileSystem, clock, random }: Life, readOnly: boolean): Promise<Device> =>
    openDeviceIn(
      { clock, randomBytes: (into) => random.fill(into) },
      { source: bytesSource(IMAGE), fileSystem, target: 'disk', hydrate: false, readOnly },
    );
  let opened = 0;
  let absent = 0;
  const { crashes } = await exploreCrashes(
    () => ({
      work: async (life) => {
        const device = await openLife(life, false);
        for (let count = 0; count < 12; count++) {
          const length = [100, 512, BLOCK, 3 * BLOCK][life.random.below(4)]!;
          const bytes = life.random.fill(new Uint8Array(length));
          await device.write(bytes, life.random.below(SIZE - length));
          if (count % 5 === 4) await device.flush();
          if (count === 7) await device.checkpoint();
        }
        await device.close();
      },
      recover: async (life) => {
        let found: Uint8Array | undefined;
        try {
          const reader = await openLife(life, true);
          found = await readAll(reader);
          await reader.close();
          opened++;
        } catch (error) {
          expect(error).toMatchObject({ code: 'COD_NOT_FOUND' });
          absent++;
        }
        const writer = await openLife(life, false);
        expect(await readAll(writer)).toEqual(found ?? IMAGE);
        await writer.close();
      },
    }),
    { seed: 5, crashes: 2, samples: 60, settle: () => new Promise(process.nextTick) },
  );
  expect(crashes).toBeGreaterThan(50);
  expect(opened).toBeGreaterThan(10);
  expect(absent).toBeGreaterThan(0);
});
