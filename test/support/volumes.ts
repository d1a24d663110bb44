/** Walks through disk images in memory. */

import fc from 'fast-check';
import { expect } from 'vitest';
import { type Bytes, checkRange } from '../../src/web/volumes/bytes.ts';
import type { Entry, Volume } from '../../src/web/volumes/volume.ts';
import { visit } from './visit-volumes.ts';

/** Makes a disk from an array. The disk rejects reads beyond the array, and counts reads and bytes. */
export function arrayBytes(array: Uint8Array): Bytes & { reads: number; bytesRead: number } {
  const bytes = {
    size: array.length,
    reads: 0,
    bytesRead: 0,
    read: async (offset: number, length: number): Promise<Uint8Array> => {
      checkRange(bytes, offset, length);
      bytes.reads++;
      bytes.bytesRead += length;
      return array.slice(offset, offset + length);
    },
  };
  return bytes;
}

/** Returns the entry at a path of names separated by `/`. */
export async function find(volume: Volume, path: string): Promise<Entry> {
  let entry = volume.root;
  for (const name of path.split('/')) {
    const found = (await volume.list(entry)).entries.find((other) => other.name === name);
    if (found === undefined) throw new Error(`${path}: ${name} does not exist`);
    entry = found;
  }
  return entry;
}

/**
 * Visits a disk 150 times, each time cut somewhere or with other values in up to 60 of the bytes at `places`. Returns
 * how many entries were refused.
 * @param seal makes a checksum right again after a change, half of the times
 */
export async function visitDamaged(
  original: Uint8Array,
  places: readonly number[],
  seal?: (bytes: Uint8Array<ArrayBuffer>, changedAt: number) => void,
): Promise<number> {
  let refusals = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.nat(places.length - 1), fc.oneof(fc.constantFrom(0, 1, 0x7f, 0x80, 0xff), fc.nat(255))), {
        minLength: 1,
        maxLength: 60,
      }),
      fc.oneof({ weight: 4, arbitrary: fc.constant(original.length) }, fc.nat(original.length)),
      fc.boolean(),
      async (changes, size, isSealed) => {
        const bytes = Uint8Array.from(original.subarray(0, size));
        for (const [place, value] of changes) {
          const at = places[place]!;
          if (at >= size) continue;
          bytes[at] = value;
          if (isSealed) seal?.(bytes, at);
        }
        const disk = arrayBytes(bytes);
        refusals += (await visit(disk)).refusals;
        expect(disk.bytesRead).toBeLessThan(2 ** 28);
      },
    ),
    { numRuns: 150 },
  );
  return refusals;
}
