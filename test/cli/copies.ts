/** Incomplete copies, for tests that resume them. */

import { closeSync, cpSync, ftruncateSync, mkdirSync, openSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Device, openDevice } from '../../src/index.ts';
import { fileSource, nodeFileSystem } from '../../src/node.ts';
import { httpSource } from '../../src/sources/http/source.ts';
import { seededRandom } from '../../src/testing/index.ts';

export const IMAGE_BYTES: number = 2 ** 20;

/** The content of the images that these tests copy. */
export function imageBytes(seed = 1): Uint8Array {
  return seededRandom(seed).fill(new Uint8Array(IMAGE_BYTES));
}

/** Writes an image to `directory` and returns its path. */
export function makeImage(directory: string, name = 'image', seed = 1): string {
  const path = join(directory, name);
  writeFileSync(path, imageBytes(seed));
  return path;
}

/** Makes a sparse file of `size` bytes. */
export function makeSparse(path: string, size: number): string {
  const fd = openSync(path, 'w');
  ftruncateSync(fd, size);
  closeSync(fd);
  return path;
}

/** Opens a copy without a background copy, copies its first quarter and writes to its third quarter. */
export async function beginCopy(source: string, target: string): Promise<Pick<Device, 'close'>> {
  const opened = source.startsWith('http:') ? await httpSource(source) : await fileSource(source);
  const device = await openDevice({ source: opened, fileSystem: nodeFileSystem(), target, hydrate: false });
  await device.read(new Uint8Array(IMAGE_BYTES / 4), 0);
  // A read resolves before its blocks are recorded, and the flush is to make their records firm.
  while (device.status().syncedBlocks < IMAGE_BYTES / 4 / 4096) await new Promise(setImmediate);
  await device.write(new Uint8Array(100).fill(0xaa), IMAGE_BYTES / 2 + 10);
  await device.flush();
  return {
    close: async () => {
      await device.close();
      await opened.close();
    },
  };
}

/** Makes a cleanly closed copy of `source` in `directory`. Returns the target's path. */
export async function leaveCopy(source: string, directory: string, name = 'disk'): Promise<string> {
  const target = join(directory, name);
  await (await beginCopy(source, target)).close();
  return target;
}

/** Makes a copy of `source` in `directory` as after kill -9, before the next checkpoint. Returns the target's path. */
export async function crashCopy(source: string, directory: string, name = 'disk'): Promise<string> {
  const alive = join(directory, 'alive');
  mkdirSync(alive);
  const device = await beginCopy(source, join(alive, name));
  cpSync(alive, directory, { recursive: true, filter: (path) => !path.includes('.lock') });
  await device.close();
  return join(directory, name);
}
