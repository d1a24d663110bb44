/** The directory entries of exFAT: a file is a set of entries of 32 bytes, with a checksum. */

import { u64, utf16, VolumeError, viewOf } from './bytes.ts';

export const ENTRY_BYTES = 32;
const TYPE = { file: 0x85, stream: 0xc0, name: 0xc1 } as const;
/** Types below this value are of entries that are not in use. */
const IN_USE = 0x80;
/** Types with this bit are of secondary entries, which belong to the primary entry before them. */
const SECONDARY = 0x40;
const DIRECTORY = 0x10;
const CONTIGUOUS = 0x02;
const UNITS_PER_ENTRY = 15;

/** Where the bytes of a file or a directory are. */
export interface Stream {
  readonly cluster: number;
  /** Whether the clusters follow each other, so that the table has no chain of them. */
  readonly isContiguous: boolean;
  /** Bytes. `undefined` for the root directory, which ends with its chain. */
  readonly size: number | undefined;
  /** Bytes that were written. Those behind them read as zeros. */
  readonly validBytes: number;
}

/** What a set of entries says of a file or a directory. */
export interface ExfatFile {
  readonly name: string;
  readonly isDirectory: boolean;
  readonly modifiedMs: number | undefined;
  readonly stream: Stream;
}

/** Collects the entries of one file after the other. A set has at most 256 entries. */
export class EntrySet {
  #entries: Uint8Array[] = [];

  /** Adds an entry. Returns the file that it completes, or `damaged` when it ends a set that is not one. */
  add(raw: Uint8Array): ExfatFile | 'damaged' | undefined {
    const type = raw[0]!;
    if (type >= IN_USE && type & SECONDARY) {
      // Entries behind a set that was damaged, or behind a kind of primary entry that is not read here.
      if (this.#entries.length === 0) return undefined;
      this.#entries.push(raw.slice());
      if (this.#entries.length <= this.#entries[0]![1]!) return undefined;
      const set = this.#entries;
      this.#entries = [];
      return fileOf(set) ?? 'damaged';
    }
    const before = this.end();
    if (type === TYPE.file) this.#entries = [raw.slice()];
    return before;
  }

  /** Ends a set that is not complete. */
  end(): 'damaged' | undefined {
    const isOpen = this.#entries.length > 0;
    this.#entries = [];
    return isOpen ? 'damaged' : undefined;
  }
}

function fileOf(set: readonly Uint8Array[]): ExfatFile | undefined {
  const [file, stream] = [viewOf(set[0]!), viewOf(set[1]!)];
  const units = stream.getUint8(3);
  const names = set.slice(2, 2 + Math.ceil(units / UNITS_PER_ENTRY));
  const sound =
    file.getUint16(2, true) === checksumOf(set) &&
    stream.getUint8(0) === TYPE.stream &&
    units > 0 &&
    names.length * UNITS_PER_ENTRY >= units &&
    names.every((entry) => entry[0] === TYPE.name);
  if (!sound) return undefined;
  try {
    return {
      name: names
        .map((entry) => utf16(entry.subarray(2)))
        .join('')
        .slice(0, units),
      isDirectory: (file.getUint16(4, true) & DIRECTORY) !== 0,
      modifiedMs: timeOf(file),
      stream: {
        cluster: stream.getUint32(20, true),
        isContiguous: (stream.getUint8(1) & CONTIGUOUS) !== 0,
        size: u64(stream, 24),
        validBytes: Math.min(u64(stream, 8), u64(stream, 24)),
      },
    };
  } catch (error) {
    // A size beyond 2^53.
    if (error instanceof VolumeError) return undefined;
    throw error;
  }
}

/** The checksum of a set leaves out its own two bytes. */
function checksumOf(set: readonly Uint8Array[]): number {
  let sum = 0;
  for (const entry of set) {
    for (let at = 0; at < ENTRY_BYTES; at++) {
      if (entry === set[0] && (at === 2 || at === 3)) continue;
      sum = (((sum & 1) << 15) + (sum >> 1) + entry[at]!) & 0xffff;
    }
  }
  return sum;
}

/** Converts the time of the last change. Without an offset from UTC it is in the time zone of the browser. */
function timeOf(file: DataView): number | undefined {
  const [time, date, zone] = [file.getUint16(12, true), file.getUint16(14, true), file.getUint8(23)];
  if (date === 0) return undefined;
  const parts = [1980 + (date >> 9), ((date >> 5) & 15) - 1, date & 31, time >> 11, (time >> 5) & 63] as const;
  const seconds = (time & 31) * 2;
  const ms = file.getUint8(21) * 10;
  if ((zone & 0x80) === 0) return new Date(...parts, seconds, ms).getTime();
  // Seven bits with a sign, in quarters of an hour.
  const quarters = ((zone & 0x7f) ^ 0x40) - 0x40;
  return Date.UTC(...parts, seconds, ms) - quarters * 900_000;
}
