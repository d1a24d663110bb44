/** Reads the partition table of a disk: GPT, Apple's, or an MBR with its chain of logical partitions. */

import { type Bytes, remembered, viewOf } from './bytes.ts';
import { readGpt } from './gpt.ts';
import { readPartitionMap } from './partition-map.ts';
import { byPlace, fitted, type Partition, type PartitionTable, sentence } from './partition-table.ts';
import { mbrTypeName } from './partition-types.ts';

const SECTOR = 512;
const PROTECTIVE = 0xee;
const EXTENDED: ReadonlySet<number> = new Set([0x05, 0x0f, 0x85]);
/** Linux's limit: logical partitions have the numbers 5 to 255. */
const MAX_LOGICAL = 251;

/**
 * Reads the table of a disk. Returns `undefined` if the disk has none. On a disk that is a volume itself (`isVolume`),
 * only what the first sector says counts: the rest may be left over from before.
 */
export async function readPartitions(
  disk: Bytes,
  { isVolume }: { isVolume: boolean },
  signal?: AbortSignal,
): Promise<PartitionTable | undefined> {
  if (disk.size < SECTOR) return undefined;
  const bytes = remembered(disk);
  const boot = await bytes.read(0, SECTOR, signal);
  const entries = boot[510] === 0x55 && boot[511] === 0xaa ? mbrEntries(boot) : [];
  if (entries.some(({ type }) => type === PROTECTIVE)) {
    const table = await readGpt(bytes, { isProtected: true }, signal);
    if (table !== undefined) return table;
  }
  // The boot sector of a volume without partitions ends with the same signature, but holds no valid table.
  const isSound = entries.every(({ flag }) => (flag & 0x7f) === 0);
  if (isSound && entries.length > 0) return readMbr(bytes, entries, signal);
  const map = await readPartitionMap(bytes, signal);
  return map ?? (isVolume ? undefined : readGpt(bytes, { isProtected: false }, signal));
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
