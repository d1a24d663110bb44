/** The synced blocks as a checkpoint of format 1 has them. Apart from block-map.ts, since no page writes format 1. */

import { RoaringBitmap32 } from 'roaring-wasm/browser';
import { allocating } from './bitmap-heap.ts';
import type { CopyState } from './copy-state.ts';
import { FORMAT1_SHARD_BLOCKS } from './layout.ts';

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
