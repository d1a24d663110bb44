/** Finds what is on a disk: partitions with volumes, or one volume. */

import { type Bytes, partOf, VolumeError } from './bytes.ts';
import { openExfat } from './exfat.ts';
import { openExt } from './ext.ts';
import { openFat } from './fat.ts';
import { type Partition, type PartitionTable, readPartitions } from './partitions.ts';
import { recognize } from './signatures.ts';
import type { Volume } from './volume.ts';

/**
 * The readers of volumes, in the order in which they are tried. Each resolves to `undefined` if the volume is not of
 * its kind. One that accepts little is tried before one that accepts more.
 */
const READERS: readonly ((bytes: Bytes, signal?: AbortSignal) => Promise<Volume | undefined>)[] = [
  openExt,
  openExfat,
  openFat,
];

export interface DiskContents {
  readonly table: PartitionTable | undefined;
  /** The partitions. Without a table: the whole disk as a partition with number 0. */
  readonly parts: readonly Partition[];
}

/** What a partition contains. */
export type Found =
  | { readonly volume: Volume }
  /** A content that cannot be browsed: its kind, if known, and the reason. */
  | { readonly kind: string | undefined; readonly reason: string };

/**
 * Reads the partition table.
 * @throws {@link VolumeError} when the image is damaged; any error of `disk.read`.
 */
export async function readDisk(disk: Bytes, signal?: AbortSignal): Promise<DiskContents> {
  const whole: Partition = { number: 0, start: 0, size: disk.size, type: '', name: '' };
  // A volume may fill the disk without a partition table. Its boot sector can look like one, so the volume is tried
  // first.
  const own = await findVolume(disk, whole, signal);
  if ('volume' in own) return { table: undefined, parts: [whole] };
  const table = await readPartitions(disk, signal);
  return { table, parts: table === undefined || table.partitions.length === 0 ? [whole] : table.partitions };
}

/** Finds the volume of a partition. Damage of the image is a reason in the result, never a rejection. */
export async function findVolume(disk: Bytes, { start, size }: Partition, signal?: AbortSignal): Promise<Found> {
  const bytes = partOf(disk, start, size);
  try {
    for (const open of READERS) {
      const volume = await open(bytes, signal);
      if (volume !== undefined) return { volume };
    }
    const kind = await recognize(bytes, signal);
    return { kind, reason: kind === undefined ? 'unknown contents' : `${kind}, which this page cannot browse` };
  } catch (error) {
    if (error instanceof VolumeError) return { kind: undefined, reason: error.message };
    throw error;
  }
}
