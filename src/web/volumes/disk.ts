/** Finds what is on a disk: partitions with volumes, or one volume. */

import { type Bytes, partOf, VolumeError } from './bytes.ts';
import { openExfat } from './exfat.ts';
import { openExt } from './ext.ts';
import { openFat } from './fat.ts';
import { openIso } from './iso.ts';
import { openNtfs } from './ntfs.ts';
import { type Partition, type PartitionTable, withRemark } from './partition-table.ts';
import { readPartitions } from './partitions.ts';
import { recognize } from './signatures.ts';
import type { Volume } from './volume.ts';

/**
 * The readers of volumes, in the order in which they are tried. Each resolves to `undefined` if the volume is not of
 * its kind. One that accepts little is tried before one that accepts more.
 */
const READERS: readonly ((bytes: Bytes, signal?: AbortSignal) => Promise<Volume | undefined>)[] = [
  openExt,
  openIso,
  openNtfs,
  openExfat,
  openFat,
];

/** The boot code and the tables of a hybrid image are before its ISO 9660. Its partition may begin behind them. */
const HYBRID_START_BYTES = 32_769;
const BLANK_BYTES = 4096;
/** Tables with more partitions exist, but one sound partition is enough. */
const MAX_TRIED = 16;

export interface DiskContents {
  readonly table: PartitionTable | undefined;
  /**
   * The partitions. The whole disk is one of them, with number 0, if it has no table, or holds a volume beside its
   * partitions: first if the volume is that of a hybrid image, last if it is probably older than the table.
   */
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
  const volume = await openVolume(disk, signal).catch((error: unknown) => {
    if (error instanceof VolumeError) return undefined;
    throw error;
  });
  const table = await readPartitions(disk, { isVolume: volume !== undefined }, signal);
  if (table === undefined || table.partitions.length === 0)
    return { table: volume === undefined ? table : undefined, parts: [whole] };
  if (volume === undefined) return { table, parts: table.partitions };
  if (volume.kind.startsWith('ISO 9660')) return hybrid(table, whole);
  // The boot sector of a volume can look like a partition table. Then no partition holds anything.
  if (!(await holdsAnything(disk, table, signal))) return { table: undefined, parts: [whole] };
  const label = volume.label === '' ? '' : ` “${volume.label}”`;
  const remark = `the whole disk also has a volume (${volume.kind}${label}), which is probably older than the table`;
  return { table: withRemark(table, remark), parts: [...table.partitions, whole] };
}

/** An ISO 9660 image that has a partition table as well, so that it boots from a USB stick. */
function hybrid(table: PartitionTable, whole: Partition): DiskContents {
  const partitions = table.partitions.map((partition) =>
    partition.start < HYBRID_START_BYTES
      ? { ...partition, type: `the hybrid image itself (${partition.type})` }
      : partition,
  );
  return { table: { ...table, partitions }, parts: [whole, ...partitions] };
}

async function holdsAnything(disk: Bytes, table: PartitionTable, signal: AbortSignal | undefined): Promise<boolean> {
  for (const partition of table.partitions.slice(0, MAX_TRIED)) {
    if (partition.start === 0) continue;
    const found = await findVolume(disk, partition, signal);
    if ('volume' in found || found.kind !== undefined) return true;
  }
  return false;
}

async function openVolume(bytes: Bytes, signal: AbortSignal | undefined): Promise<Volume | undefined> {
  for (const open of READERS) {
    const volume = await open(bytes, signal);
    if (volume !== undefined) return volume;
  }
  return undefined;
}

/** Finds the volume of a partition. Damage of the image is a reason in the result, never a rejection. */
export async function findVolume(disk: Bytes, { start, size }: Partition, signal?: AbortSignal): Promise<Found> {
  if (size === 0) return { kind: undefined, reason: 'empty (0 bytes)' };
  const bytes = partOf(disk, start, size);
  try {
    const volume = await openVolume(bytes, signal);
    if (volume !== undefined) return { volume };
    const found = await recognize(bytes, signal);
    if (found === undefined) {
      const first = await bytes.read(0, Math.min(BLANK_BYTES, bytes.size), signal);
      const isBlank = first.every((byte) => byte === 0);
      return { kind: undefined, reason: `unknown contents${isBlank ? ', which begin with zeros' : ''}` };
    }
    const { kind, label } = found;
    return { kind, reason: `${kind}${label === '' ? '' : ` “${label}”`}, which this page cannot browse` };
  } catch (error) {
    if (error instanceof VolumeError) return { kind: undefined, reason: error.message };
    throw error;
  }
}
