/**
 * A file as the page cache has it: what is durable, and what has changed since.
 *
 * In this model a power cut leaves of the changes:
 * - Truncations are journaled: they are kept up to one of them, and none after it.
 * - Between the last kept truncation and the first lost one, each 512-byte sector keeps the first few of its own
 *   writes, independently of other sectors. A sector is never torn.
 * - A write that extended the file may leave the new size without the data, which then reads as zeros. It may also
 *   leave the data without the size, which cuts the data off.
 * - Nothing is kept of later writes to a part that a lost truncation had cut off: their new blocks belong to no file.
 */

import type { Random } from './random.ts';
import { SparseBytes } from './sparse-bytes.ts';

/** Bytes of a sector: a disk writes a sector completely or not at all, in this model. */
export const SECTOR_BYTES = 512;

/** A completed change of a file. */
export type Change =
  | { readonly kind: 'write'; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly kind: 'truncate'; readonly size: number };

/** A file with its durable content and its unsynced changes. */
export class UnsyncedFile {
  #durable = new SparseBytes();
  #live = new SparseBytes();
  #unsynced: Change[] = [];
  /** Number of durable changes. Added to an index in `unsynced`, it gives a change's number. */
  #syncedCount = 0;

  /** Returns a file that holds `content`, all of it durable. */
  static durable(content: SparseBytes): UnsyncedFile {
    const file = new UnsyncedFile();
    file.#durable = content;
    file.#live = content.clone();
    return file;
  }

  /** The content that processes see. */
  get live(): SparseBytes {
    return this.#live;
  }

  /** Number of changes so far. */
  get changeCount(): number {
    return this.#syncedCount + this.#unsynced.length;
  }

  clone(): UnsyncedFile {
    const copy = new UnsyncedFile();
    copy.#durable = this.#durable.clone();
    copy.#live = this.#live.clone();
    copy.#unsynced = this.#unsynced.slice();
    copy.#syncedCount = this.#syncedCount;
    return copy;
  }

  /** Makes a change. Its bytes must not change afterwards. */
  change(change: Change): void {
    apply(change, this.#live);
    this.#unsynced.push(change);
  }

  /** Makes the first `changeCount` changes durable. */
  sync(changeCount: number): void {
    const synced = this.#unsynced.splice(0, Math.max(0, changeCount - this.#syncedCount));
    for (const change of synced) apply(change, this.#durable);
    this.#syncedCount += synced.length;
  }

  /**
   * Fails a sync: the kernel has written some of the unsynced bytes, and drops the rest from its cache. The size in
   * memory stays.
   */
  failSync(random: Random): void {
    const { size } = this.#live;
    this.#durable = this.afterPowerCut(random);
    this.#live = this.#durable.clone();
    this.#syncedCount += this.#unsynced.length;
    this.#unsynced = [];
    if (size !== this.#durable.size) this.change({ kind: 'truncate', size });
  }

  /** Returns what the file holds after a power cut, as `random` decides. */
  afterPowerCut(random: Random): SparseBytes {
    const pick = picker(random);
    const truncations = this.#unsynced.flatMap(({ kind }, index) => (kind === 'truncate' ? [index] : []));
    const keptTruncations = pick(truncations.length);
    const firstLost = truncations[keptTruncations] ?? Number.POSITIVE_INFINITY;

    const sizes = [this.#durable.size];
    const sectors = new Map<number, SectorHistory>();
    let lostBehind = Number.POSITIVE_INFINITY;
    for (const [index, change] of this.#unsynced.entries()) {
      if (change.kind === 'truncate') {
        if (index >= firstLost) lostBehind = Math.min(lostBehind, change.size);
        else {
          sizes.splice(0, sizes.length, change.size);
          for (const [sector, history] of sectors) if ((sector + 1) * SECTOR_BYTES > change.size) history.cut(index);
        }
      } else {
        const end = change.offset + change.bytes.length;
        if (index < firstLost && end > sizes.at(-1)!) sizes.push(end);
        for (const sector of sectorsOf(change)) {
          if ((sector + 1) * SECTOR_BYTES > lostBehind) continue;
          let history = sectors.get(sector);
          if (history === undefined) sectors.set(sector, (history = new SectorHistory()));
          history.writes.push(index);
        }
      }
    }

    const lastKept = new Map(
      [...sectors].map(([sector, { keptBefore, writes }]) => [
        sector,
        writes[pick(writes.length) - 1] ?? keptBefore - 1,
      ]),
    );
    const content = this.#durable.clone();
    for (const [index, change] of this.#unsynced.entries()) {
      if (change.kind === 'truncate') {
        if (index < firstLost) content.truncate(change.size);
      } else {
        for (const sector of sectorsOf(change)) {
          if (index <= (lastKept.get(sector) ?? -1)) writeSector(content, change, sector);
        }
      }
    }
    content.truncate(sizes[pick(sizes.length - 1)]!);
    return content;
  }
}

/** The writes to one sector that a power cut may lose, by index, and the index before which all are kept. */
class SectorHistory {
  keptBefore = 0;
  writes: number[] = [];

  cut(index: number): void {
    this.keptBefore = index;
    this.writes = [];
  }
}

function apply(change: Change, to: SparseBytes): void {
  if (change.kind === 'write') to.write(change.bytes, change.offset);
  else to.truncate(change.size);
}

function* sectorsOf({ offset, bytes }: Change & { kind: 'write' }): Generator<number> {
  if (bytes.length === 0) return;
  for (let sector = Math.floor(offset / SECTOR_BYTES); sector * SECTOR_BYTES < offset + bytes.length; sector++)
    yield sector;
}

function writeSector(to: SparseBytes, { offset, bytes }: Change & { kind: 'write' }, sector: number): void {
  const start = Math.max(offset, sector * SECTOR_BYTES);
  const end = Math.min(offset + bytes.length, (sector + 1) * SECTOR_BYTES);
  to.write(bytes.subarray(start - offset, end - offset), start);
}

/**
 * Returns a function that draws a version from 0, the oldest, to `newest`. Each picker has its own bias, from always
 * the oldest to always the newest. The classic mistakes show when one file is completely new and another completely
 * old.
 */
export function picker(random: Random): (newest: number) => number {
  const leaning = random.below(5);
  return (newest) => {
    if (leaning === 0 || (leaning === 1 && !random.oneIn(8))) return 0;
    if (leaning === 4 || (leaning === 3 && !random.oneIn(8))) return newest;
    return random.below(newest + 1);
  };
}
