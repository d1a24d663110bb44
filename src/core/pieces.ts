/** Divides bytes by who holds them. */

import type { BlockMap } from './block-map.ts';
import type { DirtyMap } from './dirty-map.ts';
import type { Geometry } from './geometry.ts';
import type { ByteExtent } from './range-set.ts';
import { addPiece, type Piece } from './runs.ts';

/** Divides a range by who holds its bytes. Neighbours differ. */
export function piecesOf(
  synced: BlockMap,
  dirty: DirtyMap,
  { blockSize }: Geometry,
  { offset, length }: ByteExtent,
): Piece[] {
  const pieces: Piece[] = [];
  const end = offset + length;
  for (const extent of synced.extents(Math.floor(offset / blockSize), Math.ceil(end / blockSize))) {
    let at = Math.max(offset, extent.start * blockSize);
    const to = Math.min(end, extent.end * blockSize);
    if (!extent.synced && dirty.hasAny(extent.start, extent.end)) {
      for (let block = extent.start; block < extent.end; block++) {
        for (const [start, stop] of dirty.parts(block)) {
          const partStart = Math.min(Math.max(block * blockSize + start, at), to);
          const partEnd = Math.min(block * blockSize + stop, to);
          addPiece(pieces, at, partStart, 'source');
          addPiece(pieces, partStart, partEnd, 'target');
          at = Math.max(at, partEnd);
        }
      }
    }
    addPiece(pieces, at, to, extent.synced ? 'target' : 'source');
  }
  return pieces;
}
