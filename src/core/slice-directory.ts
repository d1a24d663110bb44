/**
 * The directory of a checkpoint (docs/FORMAT.md, Checkpoint): where each slice of the maps is in the file.
 *
 * Invariant: entries that {@link decodeDirectory} returns lie within the checkpoint, do not overlap, and are short
 * enough to be read into memory.
 */
import { CodError } from '../errors.ts';
import { blocksOfSlice, type Geometry, sliceCount } from './geometry.ts';
import {
  CONTAINER_BLOCKS,
  DIRECTORY_ENTRY_BYTES,
  HEADER_BYTES,
  MAX_DIRTY_BYTES,
  padded,
  ROARING_BITSET_BYTES,
} from './layout.ts';

/** Bytes of the longest container, with its key, cardinality, offset and run flag. */
const CONTAINER_BYTES = ROARING_BITSET_BYTES + 9;
/** The most bytes of a bitmap besides its containers: cookie and number of containers. */
const BITMAP_BYTES = 8;

const AT = {
  offset: 0,
  dirtyBytes: 8,
  bitmapBytes: 12,
  modifiedBytes: 16,
  checksum: 20,
  dirtyBlocks: 24,
  syncedBlocks: 28,
  modifiedBlocks: 32,
  unused: 36,
} as const;

/** A slice in a checkpoint's file. A slice without any block in its maps is all zeros. */
export interface SliceEntry {
  /** Bytes from the beginning of the file, a multiple of 8. */
  readonly offset: number;
  readonly dirtyBytes: number;
  readonly bitmapBytes: number;
  readonly modifiedBytes: number;
  /** CRC32C of all sections. */
  readonly checksum: number;
  readonly dirtyBlocks: number;
  readonly syncedBlocks: number;
  readonly modifiedBlocks: number;
}

/** The entry of a slice without any block in its maps. */
export const EMPTY_SLICE: SliceEntry = {
  offset: 0,
  dirtyBytes: 0,
  bitmapBytes: 0,
  modifiedBytes: 0,
  checksum: 0,
  dirtyBlocks: 0,
  syncedBlocks: 0,
  modifiedBlocks: 0,
};

/** The fields of an entry that are u32. */
const WORDS = [
  'dirtyBytes',
  'bitmapBytes',
  'modifiedBytes',
  'checksum',
  'dirtyBlocks',
  'syncedBlocks',
  'modifiedBlocks',
] as const;

/** Bytes of a slice in the file. */
export function bytesOfEntry({ dirtyBytes, bitmapBytes, modifiedBytes }: SliceEntry): number {
  return dirtyBytes + padded(bitmapBytes) + padded(modifiedBytes);
}

/** Where the slices begin: bytes of the header, the identity and the directory. */
export function slicesStart(geometry: Geometry, identityBytes: number): number {
  return HEADER_BYTES + padded(identityBytes) + sliceCount(geometry) * DIRECTORY_ENTRY_BYTES;
}

/** Writes the entries to `into`, which has {@link DIRECTORY_ENTRY_BYTES} for each of them. */
export function encodeDirectory(entries: readonly SliceEntry[], into: Uint8Array): void {
  const view = new DataView(into.buffer, into.byteOffset, into.byteLength);
  into.fill(0);
  for (const [index, entry] of entries.entries()) {
    const at = index * DIRECTORY_ENTRY_BYTES;
    view.setBigUint64(at + AT.offset, BigInt(entry.offset), true);
    for (const field of WORDS) view.setUint32(at + AT[field], entry[field], true);
  }
}

/** The numbers of blocks of all slices. */
export type Counts = Pick<SliceEntry, 'syncedBlocks' | 'dirtyBlocks' | 'modifiedBlocks'>;

/** The fields of an entry that the header has for all slices. */
export const COUNTS = ['syncedBlocks', 'dirtyBlocks', 'modifiedBlocks'] as const;

/** What the header says about the slices. */
interface Expected extends Counts {
  /** Bytes of the checkpoint in the file. */
  readonly bytes: number;
  /** Bytes of header, identity and directory. */
  readonly start: number;
}

/** @throws {@link CodError} COD_CORRUPT if no checkpoint of such a header has this directory */
export function decodeDirectory(directory: Uint8Array, geometry: Geometry, expected: Expected): SliceEntry[] {
  const view = new DataView(directory.buffer, directory.byteOffset, directory.byteLength);
  const entries = Array.from({ length: sliceCount(geometry) }, (_, slice): SliceEntry => {
    const at = slice * DIRECTORY_ENTRY_BYTES;
    const entry = { ...EMPTY_SLICE, offset: Number(view.getBigUint64(at + AT.offset, true)) };
    for (const field of WORDS) entry[field] = view.getUint32(at + AT[field], true);
    const isUnused = view.getUint32(at + AT.unused, true) === 0;
    const problem = isUnused ? problemOf(entry, slice, geometry, expected) : 'its unused bytes are not zero';
    if (problem !== undefined) throw corrupt(`slice ${slice}: ${problem}`, { slice });
    return entry;
  });
  refuseOverlaps(entries, expected);
  refuseOtherCounts(entries, expected);
  return entries;
}

function problemOf(entry: SliceEntry, slice: number, geometry: Geometry, expected: Expected): string | undefined {
  const { offset, dirtyBytes, bitmapBytes, modifiedBytes, checksum } = entry;
  const { dirtyBlocks, syncedBlocks, modifiedBlocks } = entry;
  const blocks = blocksOfSlice(geometry, slice);
  const mostBitmapBytes = Math.ceil(blocks / CONTAINER_BLOCKS) * CONTAINER_BYTES + BITMAP_BYTES;
  const isPossible =
    Math.max(bitmapBytes, modifiedBytes) <= mostBitmapBytes &&
    dirtyBytes <= MAX_DIRTY_BYTES &&
    dirtyBytes % 8 === 0 &&
    Math.max(syncedBlocks, dirtyBlocks, modifiedBlocks) <= blocks &&
    bitmapBytes > 0 === syncedBlocks > 0 &&
    modifiedBytes > 0 === modifiedBlocks > 0 &&
    dirtyBytes > 0 === dirtyBlocks > 0;
  if (!isPossible) {
    return (
      `${syncedBlocks} synced blocks in ${bitmapBytes} bytes, ${dirtyBlocks} dirty blocks in ${dirtyBytes} bytes and ` +
      `${modifiedBlocks} modified blocks in ${modifiedBytes} bytes are impossible for ${blocks} blocks`
    );
  }
  if (bytesOfEntry(entry) === 0) return offset + checksum === 0 ? undefined : 'it is empty, but its entry is not zero';
  if (offset < expected.start || offset % 8 !== 0 || offset > expected.bytes - bytesOfEntry(entry)) {
    return (
      `${bytesOfEntry(entry)} bytes at ${offset} are not within the slices ` +
      `(bytes ${expected.start} to ${expected.bytes})`
    );
  }
  return undefined;
}

function refuseOverlaps(entries: readonly SliceEntry[], { bytes, start }: Expected): void {
  const present = entries.filter((entry) => bytesOfEntry(entry) > 0).sort((one, other) => one.offset - other.offset);
  let end = start;
  let dirtyBytes = 0;
  for (const entry of present) {
    if (entry.offset < end) throw corrupt(`the slice at ${entry.offset} overlaps a slice that ends at ${end}`);
    end = entry.offset + bytesOfEntry(entry);
    dirtyBytes += entry.dirtyBytes;
  }
  if (end !== bytes) throw corrupt(`the slices end at ${end}, but the header says ${bytes}`);
  if (dirtyBytes > MAX_DIRTY_BYTES)
    throw corrupt(`dirty sections of ${dirtyBytes} bytes, at most ${MAX_DIRTY_BYTES} are allowed`);
}

function refuseOtherCounts(entries: readonly SliceEntry[], expected: Expected): void {
  const found = countsOf(entries);
  for (const name of COUNTS) {
    if (found[name] === expected[name]) continue;
    throw corrupt(`${name} of the slices are ${found[name]}, but the header says ${expected[name]}`);
  }
}

/** The numbers of blocks of all slices. */
export function countsOf(entries: readonly SliceEntry[]): Counts {
  const sums = { syncedBlocks: 0, dirtyBlocks: 0, modifiedBlocks: 0 };
  for (const entry of entries) for (const name of COUNTS) sums[name] += entry[name];
  return sums;
}

function corrupt(what: string, details: Record<string, unknown> = {}): CodError {
  return new CodError('COD_CORRUPT', `checkpoint directory: ${what}`, { details });
}
