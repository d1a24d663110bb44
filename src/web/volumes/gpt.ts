/** Reads a GUID partition table after the UEFI specification. */

import { type Bytes, u64, VolumeError, viewOf } from './bytes.ts';
import { crc32 } from './crc32.ts';
import { byPlace, fitted, type Partition, type PartitionTable, sentence, withRemark } from './partition-table.ts';
import { gptTypeName } from './partition-types.ts';

const MAX_ENTRIES = 1024;
const MAX_ENTRY_BYTES = 4096;
const UNPROTECTED = 'the disk has no protective MBR, so other systems may call it empty';
const UNUSED_TYPE = '00000000-0000-0000-0000-000000000000';

/**
 * Returns the table at the beginning, else its copy at the end. If both are damaged, returns what is readable. A disk
 * without a protective MBR counts only with a sound table.
 */
export async function readGpt(
  disk: Bytes,
  { isProtected }: { isProtected: boolean },
  signal?: AbortSignal,
): Promise<PartitionTable | undefined> {
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
      if (found?.sound) return isProtected ? found.table : withRemark(found.table, UNPROTECTED);
      damaged ??= found?.table;
    }
  }
  return isProtected ? damaged : undefined;
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
  if (entryBytes < 128 || entryBytes > MAX_ENTRY_BYTES || entryCount > MAX_ENTRIES) return undefined;
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

/** Formats a GUID, whose first three fields are little-endian. */
function guid(raw: Uint8Array): string {
  const order = [3, 2, 1, 0, -1, 5, 4, -1, 7, 6, -1, 8, 9, -1, 10, 11, 12, 13, 14, 15];
  return order.map((at) => (at < 0 ? '-' : raw[at]!.toString(16).padStart(2, '0'))).join('');
}
