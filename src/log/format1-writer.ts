/** Writes a checkpoint of format 1, that of datto/copyondemand (docs/FORMAT.md, Format 1). */

import type { CopyState } from '../core/copy-state.ts';
import { format1Bitmaps } from '../core/format1-bitmaps.ts';
import { FORMAT1_HEADER_BYTES } from '../core/layout.ts';
import type { File } from '../fs/file-system.ts';

/** Dirty parts are written so many bytes at a time. */
const PIECE_BYTES = 2 ** 18;
const PART_BYTES = 32;

/** The place of the version's byte that tells the formats apart. */
export const VERSION_AT = 8;

/** Writes the maps behind the header of a checkpoint. Not durable yet. */
export async function writeFormat1(file: File, state: CopyState): Promise<void> {
  let at = FORMAT1_HEADER_BYTES;
  const append = async (bytes: Uint8Array): Promise<void> => {
    await file.write(bytes, at);
    at += bytes.length;
  };
  for (const bitmap of format1Bitmaps(state)) {
    await append(words(bitmap.length));
    await append(bitmap);
  }
  await append(words(0));
  for (const parts of partsOf(state)) await append(parts);
  await append(words(0));
}

/** The dirty parts, a few at a time. */
function* partsOf(state: CopyState): Generator<Uint8Array, void, undefined> {
  const bytes = new Uint8Array(PIECE_BYTES);
  const view = new DataView(bytes.buffer);
  let used = 0;
  for (const { block, parts } of state.dirtyBlocks()) {
    for (const [start, end] of parts) {
      for (const [index, word] of [1, block, start, end - start].entries())
        view.setBigUint64(used + index * 8, BigInt(word), true);
      used += PART_BYTES;
      if (used < PIECE_BYTES) continue;
      yield bytes;
      used = 0;
    }
  }
  yield bytes.subarray(0, used);
}

function words(...values: number[]): Uint8Array {
  return new Uint8Array(new BigUint64Array(values.map(BigInt)).buffer);
}
