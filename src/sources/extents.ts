/** Lists of extents. */

import type { SourceExtent } from './source.ts';

/** Extents that are still being collected. */
export type ExtentList = { length: number; zero: boolean }[];

/** Appends `length` bytes, or none, to a list, of which neighbours differ in kind. */
export function addExtent(extents: ExtentList, length: number, zero: boolean): void {
  const last = extents.at(-1);
  if (last?.zero === zero) last.length += length;
  else if (length > 0) extents.push({ length, zero });
}

/** Returns the extents of a part of what `extents` cover. */
export function partOf(extents: readonly SourceExtent[], from: number, length: number): ExtentList {
  const found: ExtentList = [];
  let at = 0;
  for (const extent of extents) {
    const start = Math.max(at, from);
    at += extent.length;
    const end = Math.min(at, from + length);
    if (start < end) found.push({ zero: extent.zero, length: end - start });
    if (at >= from + length) break;
  }
  return found;
}
