/** Where the bytes are that a repair loses. */

import type { CopyState } from '../core/copy-state.ts';
import type { Extent } from './proof.ts';
import type { Suspect } from './salvage.ts';

/** Of the suspects, what the target is not known to hold; and the most bytes of users there. */
export function lostOf(state: CopyState, suspects: readonly Suspect[]): { lostBytes: number; lost: readonly Extent[] } {
  const lost: Extent[] = [];
  let lostBytes = 0;
  const held = suspects.length > 0 ? heldBy(state) : [];
  for (const { offset, length, mostBytes } of suspects) {
    const end = offset + length;
    let [at, bytes] = [offset, 0];
    for (const { start, stop } of [...held, { start: end, stop: end }]) {
      const until = Math.min(start, end);
      if (until > at) {
        lost.push({ offset: at, length: until - at });
        bytes += until - at;
      }
      at = Math.max(at, stop);
    }
    lostBytes += Math.min(bytes, mostBytes);
  }
  return { lostBytes, lost };
}

/** The bytes that the target holds, ascending. */
function heldBy(state: CopyState): { start: number; stop: number }[] {
  const { blockSize } = state.geometry;
  const held = Array.from(state.syncedRuns(), ([start, end]) => ({ start: start * blockSize, stop: end * blockSize }));
  for (const { block, parts } of state.dirtyBlocks())
    for (const [start, end] of parts) held.push({ start: block * blockSize + start, stop: block * blockSize + end });
  return held.sort((one, other) => one.start - other.start);
}
