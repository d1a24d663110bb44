/** Ranges of 2 GiB and 4 GiB and more. The target and the source have no memory, and the buffers are not touched. */

import { Volume } from 'memfs';
import { expect, it } from 'vitest';
import { openDeviceIn } from '../../src/device/open.ts';
import type { InlineDevice } from '../../src/device/types.ts';
import type { File, FileSystem } from '../../src/fs/file-system.ts';
import { memfsFileSystem } from '../../src/fs/memfs.ts';
import type { Source } from '../../src/sources/source.ts';
import { SimulatedClock } from '../../src/testing/index.ts';

const GIB = 2 ** 30;
const SIZE = 2 ** 34;
const BLOCK = 4096;

/** A target of zeros that counts the bytes that are read and written. Metadata is in memory. */
class Zeros implements FileSystem {
  readonly #metadata = memfsFileSystem(new Volume());
  #isMade = false;
  read = 0;
  written = 0;

  async open(name: string, options?: { create?: boolean }): Promise<File> {
    if (name !== 'disk' || (!this.#isMade && !options?.create)) return this.#metadata.open(name, options);
    this.#isMade = true;
    return {
      size: async () => SIZE,
      read: async ({ length }) => void (this.read += length),
      write: async ({ length }) => void (this.written += length),
      truncate: async () => undefined,
      sync: async () => undefined,
      close: async () => undefined,
    };
  }

  remove(name: string): Promise<void> {
    return this.#metadata.remove(name);
  }
}

async function open(files = new Zeros()): Promise<{ device: InlineDevice; files: Zeros; asked: { bytes: number } }> {
  const asked = { bytes: 0 };
  const source: Source = {
    size: SIZE,
    read: async ({ length }) => void (asked.bytes += length),
    close: async () => undefined,
  };
  const device = await openDeviceIn(
    { clock: new SimulatedClock(), randomBytes: () => undefined },
    { source, fileSystem: files, target: 'disk', hydrate: false },
  );
  return { device, files, asked };
}

it.each([2 ** 31 + BLOCK, 2 ** 32 + BLOCK])('%i bytes are discarded, zeroed and read', async (length) => {
  const { device, files, asked } = await open();
  await device.discard(BLOCK, length);
  expect(device.status().syncedBlocks).toBe(length / BLOCK);
  await device.writeZeroes(2 * BLOCK, length);
  expect(device.status().syncedBlocks).toBe(length / BLOCK + 1);
  expect(await device.extents(0, SIZE, 10)).toEqual([
    { state: 'unsynced', length: BLOCK, zero: false },
    { state: 'synced', length: length + BLOCK, zero: false },
    { state: 'unsynced', length: SIZE - length - 2 * BLOCK, zero: false },
  ]);
  await device.hydrateRange(BLOCK, length);
  // Node 20 has no longer buffers than 4 GiB.
  const into = new Uint8Array(Math.min(length, 2 ** 32 - BLOCK));
  await device.read(into, BLOCK);
  expect([files.read, asked.bytes]).toEqual([into.length, 0]);
  await device.close();
});

it('2 GiB and a block are fetched', async () => {
  const { device, files, asked } = await open();
  await device.hydrateRange(BLOCK, 2 * GIB + BLOCK);
  await device.close();
  expect(asked.bytes).toBe(2 * GIB + BLOCK);
  expect(files.written).toBe(0);
  expect(device.status().syncedBlocks).toBe((2 * GIB) / BLOCK + 1);
});

it('2 GiB and a sector are written, twice, and survive', async () => {
  const length = 2 ** 31 + 512;
  const { device, files } = await open();
  const bytes = new Uint8Array(length);
  await device.write(bytes, 512);
  await device.write(bytes, 512);
  expect(files.written).toBe(2 * length);
  await device.close();
  const again = await open(files);
  expect(again.device.status()).toMatchObject({ syncedBlocks: 2 ** 31 / BLOCK - 1, dirtyBlocks: 2 });
  await again.device.close();
});
