/**
 * The order of the background copy: extents in the order in which a boot read them, joined to ranges worth a request.
 *
 * A boot reads small pieces all over the image. A request for each piece would mostly wait for its first byte.
 * Extents that were read at about the same time and lie close together therefore become one range, gaps included.
 * The bytes of the gaps have to be copied anyway.
 *
 * Invariant: `next` finds every unsynced block of the extents that is not taken. Ranges are whole blocks.
 */

import type { Geometry } from '../core/geometry.ts';
import type { ByteExtent } from '../core/range-set.ts';
import type { BlockRange } from '../core/runs.ts';

/** Extents are joined within groups of this many, so that late extents do not delay early ones. */
const GROUP_EXTENTS = 64;
/** A group has at most this many bytes, for the same reason. A longer extent is a group of its own. */
const GROUP_BYTES = 2 ** 22;
/** Extents of a group are joined over gaps up to this: 2.6 ms at 100 MB/s, less than most requests wait. */
const GAP_BYTES = 2 ** 18;

/** What an order needs to know of the state of the copy. */
export interface UnsyncedBlocks {
  /** The first unsynced block of [from, limit), or `limit`. */
  nextUnsynced(from: number, limit: number): number;
}

export class HydrationOrder {
  readonly #ranges: readonly BlockRange[];
  /** All ranges before this index are synced. */
  #at = 0;

  /** @param extents within the device; they may overlap */
  constructor(extents: readonly ByteExtent[], geometry: Geometry) {
    this.#ranges = groupsOf(extents).flatMap((group) => joined(group, geometry));
  }

  /**
   * Returns the first blocks of the order that are unsynced and not taken; undefined if there are none.
   * @param taken returns the stretch in flight that a block belongs to, if any
   */
  next(blocks: UnsyncedBlocks, taken: (block: number) => BlockRange | undefined): BlockRange | undefined {
    const ranges = this.#ranges;
    while (this.#at < ranges.length && isSynced(ranges[this.#at]!, blocks)) this.#at++;
    for (let index = this.#at; index < ranges.length; index++) {
      const { start, end } = ranges[index]!;
      let from = blocks.nextUnsynced(start, end);
      for (let has = taken(from); from < end && has !== undefined; has = taken(from))
        from = blocks.nextUnsynced(Math.min(end, has.end), end);
      if (from < end) return { start: from, end };
    }
    return undefined;
  }
}

function isSynced({ start, end }: BlockRange, blocks: UnsyncedBlocks): boolean {
  return blocks.nextUnsynced(start, end) === end;
}

function groupsOf(extents: readonly ByteExtent[]): ByteExtent[][] {
  const groups: ByteExtent[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const extent of extents) {
    if (extent.length === 0) continue;
    if (bytes + extent.length > GROUP_BYTES || groups.at(-1)!.length >= GROUP_EXTENTS) {
      groups.push([]);
      bytes = 0;
    }
    groups.at(-1)!.push(extent);
    bytes += extent.length;
  }
  return groups;
}

/** The whole blocks of a group, joined over short gaps, in the order in which the first extent of each was read. */
function joined(group: readonly ByteExtent[], { blockSize }: Geometry): BlockRange[] {
  const gap = Math.ceil(GAP_BYTES / blockSize);
  const byPlace = group
    .map(({ offset, length }, rank) => ({
      start: Math.floor(offset / blockSize),
      end: Math.ceil((offset + length) / blockSize),
      rank,
    }))
    .sort((a, b) => a.start - b.start);
  const ranges: { start: number; end: number; rank: number }[] = [];
  for (const range of byPlace) {
    const last = ranges.at(-1);
    if (last === undefined || range.start - last.end > gap) ranges.push({ ...range });
    else Object.assign(last, { end: Math.max(last.end, range.end), rank: Math.min(last.rank, range.rank) });
  }
  return ranges.sort((a, b) => a.rank - b.rank).map(({ start, end }) => ({ start, end }));
}
