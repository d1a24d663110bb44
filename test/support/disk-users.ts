/** Users of one disk at a time, whose requests are recorded for the checker of linearizability. */

import type { InlineDevice } from '../../src/device/types.ts';
import type { Random, SectorHistory } from '../../src/testing/index.ts';
import { SECTOR_BYTES } from '../../src/testing/index.ts';

/** What users need of a disk: a device has it, and so has an NBD client. */
export interface Disk {
  read(into: Uint8Array, offset: number): Promise<void>;
  write(from: Uint8Array, offset: number, options: { fua: boolean }): Promise<void>;
  flush(): Promise<void>;
}

export interface UserOptions {
  readonly history: SectorHistory;
  readonly random: Random;
  readonly by: string;
  /** The number of requests. */
  readonly steps: number;
  /** Bytes of the disk. Most requests concern a few sectors of it at a time, so that they meet. */
  readonly size: number;
  /** The user is number `index` of `count`, and writes only sectors that no other writes. Default: it writes any. */
  readonly own?: { readonly index: number; readonly count: number };
  /** Waits a while between two requests. */
  readonly pause: () => Promise<unknown>;
  /** Whether the user continues after this error. The request may then count or not. Default: never. */
  readonly isExpected?: (error: unknown) => boolean;
}

/** At any time most requests concern this many sectors, the hot ones. */
const HOT_SECTORS = 6;
/** After this many requests of all users other sectors are hot: new ones, of which the device has nothing yet. */
const HOT_REQUESTS = 40;
/** The latest requests, some of which are in flight. */
const RECENT_REQUESTS = 8;

/** Sends random requests, one after another. */
export async function useDisk(disk: Disk, options: UserOptions): Promise<void> {
  for (let step = 0; step < options.steps; step++) {
    await options.pause();
    try {
      await request(disk, options);
    } catch (error) {
      if (options.isExpected?.(error) !== true) throw error;
    }
  }
}

async function request(disk: Disk, { history, random, by, size, own }: UserOptions): Promise<void> {
  const choice = random.below(12);
  if (choice === 0) {
    const flushed = history.beginFlush({ by });
    await disk.flush();
    flushed();
    return;
  }
  const sectors = size / SECTOR_BYTES;
  const range = recentWrite(history, random) ?? anyRange(history, random, sectors);
  const { first, count } = own !== undefined && choice < 7 ? ownSector(range.first, own, sectors) : range;
  const bytes = new Uint8Array(count * SECTOR_BYTES);
  const offset = first * SECTOR_BYTES;
  if (choice < 7) {
    const fua = random.oneIn(8);
    const written = history.beginWrite(random.fill(bytes), offset, { by, fua });
    await disk.write(bytes, offset, { fua });
    written();
    return;
  }
  const read = history.beginRead(offset, bytes.length, { by });
  await disk.read(bytes, offset);
  read(bytes);
}

/** Returns the range of a write that may be in flight, in most cases if there is one. */
function recentWrite({ requests }: SectorHistory, random: Random): { first: number; count: number } | undefined {
  const recent = requests[requests.length - 1 - random.below(RECENT_REQUESTS)];
  if (recent?.kind !== 'write' || random.oneIn(4)) return undefined;
  return { first: recent.firstSector, count: recent.contents.length };
}

/** Returns a sector near `first` that is the user's. */
function ownSector(
  first: number,
  { index, count }: { index: number; count: number },
  sectors: number,
): { first: number; count: number } {
  const sector = first - (first % count) + index;
  return { first: sector < sectors ? sector : index, count: 1 };
}

function anyRange(history: SectorHistory, random: Random, sectors: number): { first: number; count: number } {
  const hot = Math.floor(history.requests.length / HOT_REQUESTS) * HOT_SECTORS;
  const first = random.oneIn(8) ? random.below(sectors) : (hot + random.below(HOT_SECTORS)) % sectors;
  return { first, count: Math.min(sectors - first, 1 + random.below(random.oneIn(16) ? 20 : 3)) };
}

/** Reads the whole disk in pieces, by several readers at a time. */
export async function readDisk(disk: Disk, { history, size }: { history: SectorHistory; size: number }): Promise<void> {
  const pieceBytes = 16 * SECTOR_BYTES;
  await Promise.all(
    Array.from({ length: Math.ceil(size / pieceBytes) }, async (_, index) => {
      const bytes = new Uint8Array(Math.min(pieceBytes, size - index * pieceBytes));
      const read = history.beginRead(index * pieceBytes, bytes.length, { by: 'the last reader' });
      await disk.read(bytes, index * pieceBytes);
      read(bytes);
    }),
  );
}

/** Uses a device as the NBD server does: synchronously where possible, and with several writes in one commit. */
export function inlineDisk(device: InlineDevice, random: Random): Disk {
  return {
    read: async (into, offset) => device.submitRead(into, offset),
    write: (from, offset, { fua }) =>
      new Promise((resolve, reject) => {
        device.submitWrite(from, offset, fua, (error) => (error === undefined ? resolve() : reject(error)));
        if (random.oneIn(2)) device.commitWrites();
      }),
    flush: () => device.flush(),
  };
}
