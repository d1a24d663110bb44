/** The page's readers of disks: partition tables and volumes. */

import { type Bytes, checkRange, VolumeError } from '../../../../src/web/volumes/bytes.ts';
import { readDisk } from '../../../../src/web/volumes/disk.ts';
import { putFile } from '../../../../src/web/volumes/fat-writer.ts';
import type { WritableBytes } from '../../../../src/web/volumes/writable.ts';
import { visit } from '../../../support/visit-volumes.ts';
import { Fields, onlyCodErrors, type SparseDisk, sparseDisk, type Target } from '../target.ts';
import { volumeSeeds } from './volume-seeds.ts';

/** A reader may read this much of a disk of any length. */
const MAX_BYTES_READ = 2 ** 28;

function bytesOf(disk: SparseDisk): Bytes {
  const bytes: Bytes = {
    size: disk.size,
    read: async (offset, length) => {
      checkRange(bytes, offset, length);
      const into = new Uint8Array(length);
      disk.fill(into, offset);
      return into;
    },
  };
  return bytes;
}

/** Keeps nothing of what is written. */
function writable(bytes: Bytes): WritableBytes {
  return {
    ...bytes,
    write: async (offset, from) => checkRange(bytes, offset, from.length),
    flush: async () => undefined,
  };
}

async function run(input: Uint8Array): Promise<void> {
  const disk = sparseDisk(new Fields(input));
  const bytes = bytesOf(disk);
  await onlyCodErrors(() => visit(bytes), VolumeError);
  if (disk.bytesRead > MAX_BYTES_READ) throw new Error(`${disk.bytesRead} bytes were read`);
}

/** The reader, and the writer, which reads the volume anew. */
async function runFat(input: Uint8Array): Promise<void> {
  await run(input);
  const bytes = writable(bytesOf(sparseDisk(new Fields(input))));
  const read = async (_: number, length: number): Promise<Uint8Array> => new Uint8Array(length);
  for (const path of [[], ['DOCS'], ['docs', 'deeper']])
    for (const name of ['a new file with a long name.txt', 'LICENCE.TXT'])
      await onlyCodErrors(
        () => putFile(bytes, { path, name, size: 3000, modifiedMs: 0, read }, { nowMs: 0, replace: true }),
        VolumeError,
      );
}

/** The table alone. */
async function runTable(input: Uint8Array): Promise<void> {
  const disk = sparseDisk(new Fields(input));
  await onlyCodErrors(async () => {
    for (const { start, size } of (await readDisk(bytesOf(disk))).parts)
      if (start < 0 || size < 0 || start + size > disk.size)
        throw new Error(`a partition of ${size} bytes at ${start}`);
  }, VolumeError);
  await run(input);
}

function target(kind: Parameters<typeof volumeSeeds>[0], runOne: Target['run'] = run): Target {
  return { run: runOne, seeds: () => volumeSeeds(kind), maxBytes: 48 * 1024, maxAllocated: 2 ** 29 };
}

export const fat: Target = target('fat', runFat);
export const exfat: Target = target('exfat');
export const ntfs: Target = target('ntfs');
export const ext: Target = target('ext');
export const iso: Target = target('iso');
export const partitions: Target = target('partitions', runTable);
