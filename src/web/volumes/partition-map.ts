/** Reads Apple's partition map, as on Macintosh disks and CDs. Source: Apple's "Inside Macintosh: Devices". */

import { type Bytes, text, viewOf } from './bytes.ts';
import { byPlace, fitted, type Partition, type PartitionTable, sentence } from './partition-table.ts';

const DRIVER_MARK = 0x4552;
const ENTRY_MARK = 0x504d;
/** As Linux. */
const MAX_ENTRIES = 256;

const TYPES: Readonly<Record<string, string>> = {
  Apple_partition_map: 'partition map',
  Apple_HFS: 'Apple HFS',
  Apple_HFSX: 'Apple HFS+',
  Apple_APFS: 'Apple APFS',
  Apple_UNIX_SVR2: 'UNIX',
};
/** Space that no partition has, and no data. */
const UNUSED: ReadonlySet<string> = new Set(['Apple_Free', 'Apple_Void', 'Apple_Scratch']);

/** Reads the map of a disk. Returns `undefined` if the disk has none. */
export async function readPartitionMap(disk: Bytes, signal?: AbortSignal): Promise<PartitionTable | undefined> {
  if (disk.size < 1024 || viewOf(await disk.read(0, 2, signal)).getUint16(0) !== DRIVER_MARK) return undefined;
  // The entries of a CD may be in blocks of 2048 bytes.
  for (const blockBytes of [512, 2048]) {
    const table = await mapAt(disk, blockBytes, signal);
    if (table !== undefined) return table;
  }
  return undefined;
}

async function mapAt(
  disk: Bytes,
  blockBytes: number,
  signal: AbortSignal | undefined,
): Promise<PartitionTable | undefined> {
  const partitions: Partition[] = [];
  const remarks = new Set<string>();
  let count = 1;
  for (let number = 1; number <= Math.min(count, MAX_ENTRIES); number++) {
    const at = number * blockBytes;
    const raw = at + 512 > disk.size ? undefined : await disk.read(at, 512, signal);
    const view = raw && viewOf(raw);
    if (raw === undefined || view === undefined || view.getUint16(0) !== ENTRY_MARK) {
      if (number === 1) return undefined;
      remarks.add('the partition map is damaged');
      break;
    }
    if (number === 1) count = view.getUint32(4);
    const type = text(raw.subarray(48, 80));
    if (UNUSED.has(type)) continue;
    const start = view.getUint32(8) * blockBytes;
    if (start >= disk.size) {
      remarks.add(`partition ${number} begins beyond the end of the disk`);
      continue;
    }
    const size = fitted(disk, start, view.getUint32(12) * blockBytes, number, remarks);
    partitions.push({ number, start, size, type: TYPES[type] ?? type, name: text(raw.subarray(16, 48)) });
  }
  return { kind: 'Apple partition map', partitions: partitions.sort(byPlace), remark: sentence(remarks) };
}
