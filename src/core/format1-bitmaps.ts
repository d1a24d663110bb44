/** The synced blocks as a checkpoint of format 1 has them. Apart from block-map.ts, which users' types reach. */

import { RoaringBitmap32 } from 'roaring-wasm/browser';
import { allocating } from './bitmap-heap.ts';
import type { CopyState } from './copy-state.ts';
import { blocksOfSlice, type Geometry, sliceCount } from './geometry.ts';
import { FORMAT1_SHARD_BLOCKS, SLICE_BLOCKS } from './layout.ts';
import { parsePortable, portableSlices } from './portable.ts';

/** Yields a bitmap in portable Roaring format for each 2^32 - 1 blocks of the device, also an empty one. */
export function* format1Bitmaps(state: CopyState): Generator<Uint8Array, void, undefined> {
  const runs = state.syncedRuns();
  let run = runs.next();
  for (let base = 0; base < state.geometry.blockCount; base += FORMAT1_SHARD_BLOCKS) {
    const bitmap = allocating(() => new RoaringBitmap32());
    try {
      for (; !run.done && run.value[0] < base + FORMAT1_SHARD_BLOCKS; run = runs.next()) {
        const [start, end] = run.value;
        allocating(() => bitmap.addRange(Math.max(start - base, 0), Math.min(end - base, FORMAT1_SHARD_BLOCKS)));
        // The rest of this run belongs to the next bitmap.
        if (end > base + FORMAT1_SHARD_BLOCKS) break;
      }
      allocating(() => bitmap.runOptimize());
      yield allocating(() => bitmap.serialize('portable'));
    } finally {
      bitmap.dispose();
    }
  }
}

/**
 * Adds the blocks of a bitmap of a checkpoint, which starts at block `bitmapIndex` × (2^32 - 1), to `map`.
 * Blocks beyond the device are dropped, since format 1 counts one block too many.
 *
 * @throws {@link CodError} COD_CORRUPT if the bytes are not a bitmap. Nothing is added.
 */
export function addFormat1Bitmap(
  map: Pick<CopyState, 'unionTrusted'>,
  geometry: Geometry,
  bitmapIndex: number,
  portableBytes: Uint8Array,
): void {
  const bitmap = parsePortable(portableBytes, `bitmap ${bitmapIndex}`);
  const base = bitmapIndex * FORMAT1_SHARD_BLOCKS;
  if (bitmap.cardinality === 0 || base >= geometry.blockCount) return;
  // The bitmap begins `bitmapIndex` blocks before the end of a slice, so each of its slices goes into two of ours.
  const firstSlice = Math.ceil(base / SLICE_BLOCKS);
  for (const [index, bytes] of portableSlices(portableBytes, bitmap)) {
    const slice = firstSlice + index;
    addMoved(map, geometry, slice, { bytes, offset: -bitmapIndex });
    if (bitmapIndex > 0) addMoved(map, geometry, slice - 1, { bytes, offset: SLICE_BLOCKS - bitmapIndex });
  }
}

/** Adds the blocks of `bytes` that are in the slice after `offset` is added to them. */
function addMoved(
  map: Pick<CopyState, 'unionTrusted'>,
  geometry: Geometry,
  slice: number,
  { bytes, offset }: { bytes: Uint8Array; offset: number },
): void {
  if (slice < 0 || slice >= sliceCount(geometry)) return;
  allocating(() => {
    const values = RoaringBitmap32.deserialize(bytes, 'portable');
    const moved = RoaringBitmap32.addOffset(values, offset);
    try {
      moved.removeRange(blocksOfSlice(geometry, slice), 2 ** 32);
      // As the map's own runs: maximal.
      moved.removeRunCompression();
      moved.runOptimize();
      map.unionTrusted(slice, moved.serialize('portable'));
    } finally {
      moved.dispose();
      values.dispose();
    }
  });
}
