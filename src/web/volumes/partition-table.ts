/** A partition table of any kind. */

import type { Bytes } from './bytes.ts';

export interface Partition {
  /** The number that Linux gives the partition, from 1. */
  readonly number: number;
  /** Offset on the disk, in bytes. */
  readonly start: number;
  readonly size: number;
  readonly type: string;
  /** The name in a GPT or an Apple partition map. Empty in an MBR. */
  readonly name: string;
}

export interface PartitionTable {
  readonly kind: 'MBR' | 'GPT' | 'Apple partition map';
  /** Sorted by offset. */
  readonly partitions: readonly Partition[];
  /** What is wrong with the table, if anything. */
  readonly remark: string | undefined;
}

/** Returns the partition's size, cut at the end of the disk. */
export function fitted(disk: Bytes, start: number, size: number, number: number, remarks: Set<string>): number {
  if (start + size > disk.size) remarks.add(`partition ${number} extends beyond the end of the disk`);
  return Math.min(size, disk.size - start);
}

export function byPlace(a: Partition, b: Partition): number {
  return a.start - b.start;
}

/** Joins remarks into a text, at most three of them. */
export function sentence(remarks: ReadonlySet<string>): string | undefined {
  return remarks.size === 0 ? undefined : [...remarks].slice(0, 3).join('; ');
}

/** Returns the table with one more remark, before its own. */
export function withRemark(table: PartitionTable, remark: string): PartitionTable {
  return { ...table, remark: table.remark === undefined ? remark : `${remark}; ${table.remark}` };
}
