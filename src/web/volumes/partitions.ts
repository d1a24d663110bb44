/** Reads partition tables: MBR with its chain of logical partitions, and GPT after the UEFI specification. */

import { type Bytes, remembered, u64, VolumeError, viewOf } from './bytes.ts';
import { crc32 } from './crc32.ts';
import { gptTypeName, mbrTypeName } from './partition-types.ts';

export interface Partition {
  /** The number that Linux gives the partition, from 1. */
  readonly number: number;
  /** Offset on the disk, in bytes. */
  readonly start: number;
  readonly size: number;
  readonly type: string;
  /** The name in a GPT. Empty in an MBR. */
  readonly name: string;
}

export interface PartitionTable {
  readonly kind: 'MBR' | 'GPT';
  /** Sorted by offset. */
  readonly partitions: readonly Partition[];
  /** What is wrong with the table, if anything. */
  readonly remark: string | undefined;
}

const SECTOR = 512;
const PROTECTIVE = 0xee;
const EXTENDED: ReadonlySet<number> = new Set([0x05, 0x0f, 0x85]);
/** Linux's limit: logical partitions have the numbers 5 to 255. */
const MAX_LOGICAL = 251;
const MAX_GPT_ENTRIES = 1024;
const MAX_GPT_ENTRY_BYTES = 4096;
const UNUSED_TYPE = '00000000-0000-0000-0000-000000000000';

/** Reads the table of a disk. Returns `undefined` if the disk has none. */
export async function readPartitions(disk: Bytes, signal?: AbortSignal): Promise<PartitionTable | undefined> {
  if (disk.size < SECTOR) return undefined;
  const bytes = remembered(disk);
  const boot = await bytes.read(0, SECTOR, signal);
  if (boot[510] !== 0x55 || boot[511] !== 0xaa) return undefined;
  const entries = mbrEntries(boot);
  if (entries.some(({ type }) => type === PROTECTIVE)) {
    const table = await readGpt(bytes, signal);
    if (table !== undefined) return table;
  }
  // The boot sector of a volume without partitions ends with the same signature, but holds no valid table.
  const sound = entries.every(({ flag }) => (flag & 0x7f) === 0);
  if (!sound || entries.length === 0) return undefined;
  return readMbr(bytes, entries, signal);
}

interface MbrEntry {
  readonly index: number;
  readonly flag: number;
  readonly type: number;
  readonly start: number;
  readonly size: number;
}

/** Returns the entries in use, with offsets and sizes in bytes. */
function mbrEntries(sector: Uint8Array): MbrEntry[] {
  const view = viewOf(sector);
  return [0, 1, 2, 3]
    .map((index) => {
      const at = 446 + index * 16;
      const sectors = (offset: number): number => view.getUint32(at + offset, true) * SECTOR;
      return { index, flag: sector[at]!, type: sector[at + 4]!, start: sectors(8), size: sectors(12) };
    })
    .filter(({ type, size }) => type !== 0 && size > 0);
}

async function readMbr(
  disk: Bytes,
  entries: readonly MbrEntry[],
  signal: AbortSignal | undefined,
): Promise<PartitionTable> {
  const found: Partition[] = [];
  const remarks = new Set<string>();
  const add = (number: number, start: number, size: number, type: number): void => {
    if (start >= disk.size) remarks.add(`partition ${number} begins beyond the end of the disk`);
    else
      found.push({
        number,
        start,
        size: fitted(disk, start, size, number, remarks),
        type: mbrTypeName(type),
        name: '',
      });
  };
  for (const { index, type, start, size } of entries) {
    if (!EXTENDED.has(type)) {
      add(index + 1, start, size, type);
      continue;
    }
    // Each table of the chain describes one partition, relative to that table. It also names the next table, relative
    // to the extended partition.
    const seen = new Set<number>();
    let at = start;
    for (let number = 5; number < 5 + MAX_LOGICAL; number++) {
      if (seen.has(at) || at > disk.size - SECTOR) {
        remarks.add('the chain of logical partitions is damaged');
        break;
      }
      seen.add(at);
      const sector = await disk.read(at, SECTOR, signal);
      if (sector[510] !== 0x55 || sector[511] !== 0xaa) {
        remarks.add('the chain of logical partitions is damaged');
        break;
      }
      const parts = mbrEntries(sector);
      const own = parts.find((part) => !EXTENDED.has(part.type));
      if (own !== undefined) add(number, at + own.start, own.size, own.type);
      const next = parts.find((part) => EXTENDED.has(part.type));
      if (next === undefined) break;
      at = start + next.start;
    }
  }
  return { kind: 'MBR', partitions: found.sort(byPlace), remark: sentence(remarks) };
}

/** Returns the table at the beginning, else its copy at the end. If both are damaged, returns what is readable. */
async function readGpt(disk: Bytes, signal: AbortSignal | undefined): Promise<PartitionTable | undefined> {
  let damaged: PartitionTable | undefined;
  for (const sectorBytes of [512, 4096]) {
    const last = Math.floor(disk.size / sectorBytes) - 1;
    for (const [where, lba] of [
      ['', 1],
      ['the table at the beginning is damaged: this is the backup at the end', last],
    ] as const) {
      if (lba < 1 || lba > last) continue;
      const found = await gptAt(disk, lba, sectorBytes, where, signal).catch((error: unknown) => {
        if (error instanceof VolumeError) return undefined;
        throw error;
      });
      if (found?.sound) return found.table;
      damaged ??= found?.table;
    }
  }
  return damaged;
}

async function gptAt(
  disk: Bytes,
  lba: number,
  sectorBytes: number,
  where: string,
  signal: AbortSignal | undefined,
): Promise<{ table: PartitionTable; sound: boolean } | undefined> {
  const header = (await disk.read(lba * sectorBytes, 512, signal)).slice();
  const view = viewOf(header);
  if (new TextDecoder().decode(header.subarray(0, 8)) !== 'EFI PART') return undefined;
  const headerBytes = view.getUint32(12, true);
  const headerSum = view.getUint32(16, true);
  const entryCount = view.getUint32(80, true);
  const entryBytes = view.getUint32(84, true);
  if (headerBytes < 92 || headerBytes > 512) return undefined;
  if (entryBytes < 128 || entryBytes > MAX_GPT_ENTRY_BYTES || entryCount > MAX_GPT_ENTRIES) return undefined;
  const entries = await disk.read(u64(view, 72) * sectorBytes, entryCount * entryBytes, signal);
  view.setUint32(16, 0, true);
  const sound = crc32(header.subarray(0, headerBytes)) === headerSum && crc32(entries) === view.getUint32(88, true);

  const remarks = new Set<string>(where === '' ? [] : [where]);
  if (!sound) remarks.add('the table is damaged: its checksums do not match');
  const partitions: Partition[] = [];
  for (let index = 0; index < entryCount; index++) {
    const raw = entries.subarray(index * entryBytes, (index + 1) * entryBytes);
    const type = guid(raw.subarray(0, 16));
    if (type === UNUSED_TYPE) continue;
    const number = index + 1;
    const entry = viewOf(raw);
    const start = u64(entry, 32) * sectorBytes;
    const end = (u64(entry, 40) + 1) * sectorBytes;
    if (start >= disk.size || end <= start) {
      remarks.add(`partition ${number} is outside the disk`);
      continue;
    }
    const name = new TextDecoder('utf-16le').decode(raw.subarray(56, 128)).replace(/\0.*$/s, '');
    partitions.push({
      number,
      start,
      size: fitted(disk, start, end - start, number, remarks),
      type: gptTypeName(type),
      name,
    });
  }
  return { table: { kind: 'GPT', partitions: partitions.sort(byPlace), remark: sentence(remarks) }, sound };
}

/** Returns the partition's size, cut at the end of the disk. */
function fitted(disk: Bytes, start: number, size: number, number: number, remarks: Set<string>): number {
  if (start + size > disk.size) remarks.add(`partition ${number} extends beyond the end of the disk`);
  return Math.min(size, disk.size - start);
}

function byPlace(a: Partition, b: Partition): number {
  return a.start - b.start;
}

function sentence(remarks: ReadonlySet<string>): string | undefined {
  return remarks.size === 0 ? undefined : [...remarks].slice(0, 3).join('; ');
}

/** Formats a GUID, whose first three fields are little-endian. */
function guid(raw: Uint8Array): string {
  const order = [3, 2, 1, 0, -1, 5, 4, -1, 7, 6, -1, 8, 9, -1, 10, 11, 12, 13, 14, 15];
  return order.map((at) => (at < 0 ? '-' : raw[at]!.toString(16).padStart(2, '0'))).join('');
}
