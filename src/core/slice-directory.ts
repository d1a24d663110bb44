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
  reservedBytes: 16,
  checksum: 20,
  dirtyBlocks: 24,
  syncedBlocks: 28,
  reservedBlocks: 32,
  unused: 36,
} as const;

/** A slice in a checkpoint's file. A slice without any synced or dirty block is all zeros. */
export interface SliceEntry {
  /** Bytes from the beginning of the file, a multiple of 8. */
  readonly offset: number;
  readonly dirtyBytes: number;
  readonly bitmapBytes: number;
  /** CRC32C of both sections. */
  readonly checksum: number;
  readonly dirtyBlocks: number;
  readonly syncedBlocks: number;
}

/** The entry of a slice without any synced or dirty block. */
export const EMPTY_SLICE: SliceEntry = {
  offset: 0,
  dirtyBytes: 0,
  bitmapBytes: 0,
  checksum: 0,
  dirtyBlocks: 0,
  syncedBlocks: 0,
};

/** Bytes of a slice in the file. */
export function bytesOfEntry({ dirtyBytes, bitmapBytes }: SliceEntry): number {
  return dirtyBytes + padded(bitmapBytes);
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
    for (const field of ['dirtyBytes', 'bitmapBytes', 'checksum', 'dirtyBlocks', 'syncedBlocks'] as const)
      view.setUint32(at + AT[field], entry[field], true);
  }
}

/** What the header says about the slices. */
interface Expected {
  /** Bytes of the checkpoint in the file. */
  readonly bytes: number;
  /** Bytes of header, identity and directory. */
  readonly start: number;
  readonly syncedBlocks: number;
  readonly dirtyBlocks: number;
}

/** @throws {@link CodError} COD_CORRUPT if no checkpoint of such a header has this directory */
export function decodeDirectory(directory: Uint8Array, geometry: Geometry, expected: Expected): SliceEntry[] {
  const view = new DataView(directory.buffer, directory.byteOffset, directory.byteLength);
  const entries = Array.from({ length: sliceCount(geometry) }, (_, slice): SliceEntry => {
    const at = slice * DIRECTORY_ENTRY_BYTES;
    const u32 = (field: keyof typeof AT): number => view.getUint32(at + AT[field], true);
    const entry = {
      offset: Number(view.getBigUint64(at + AT.offset, true)),
      dirtyBytes: u32('dirtyBytes'),
      bitmapBytes: u32('bitmapBytes'),
      checksum: u32('checksum'),
      dirtyBlocks: u32('dirtyBlocks'),
      syncedBlocks: u32('syncedBlocks'),
    };
    const isReserved = u32('reservedBytes') !== 0 || u32('reservedBlocks') !== 0 || u32('unused') !== 0;
    const problem = isReserved ? 'its unused bytes are not zero' : problemOf(entry, slice, geometry, expected);
    if (problem !== undefined) throw corrupt(`slice ${slice}: ${problem}`, { slice });
    return entry;
  });
  refuseOverlaps(entries, expected);
  refuseOtherCounts(entries, expected);
  return entries;
}

function problemOf(entry: SliceEntry, slice: number, geometry: Geometry, expected: Expected): string | undefined {
  const { offset, dirtyBytes, bitmapBytes, checksum, dirtyBlocks, syncedBlocks } = entry;
  const blocks = blocksOfSlice(geometry, slice);
  const mostBitmapBytes = Math.ceil(blocks / CONTAINER_BLOCKS) * CONTAINER_BYTES + BITMAP_BYTES;
  const isPossible =
    bitmapBytes <= mostBitmapBytes &&
    dirtyBytes <= MAX_DIRTY_BYTES &&
    dirtyBytes % 8 === 0 &&
    syncedBlocks <= blocks &&
    dirtyBlocks <= blocks &&
    bitmapBytes > 0 === syncedBlocks > 0 &&
    dirtyBytes > 0 === dirtyBlocks > 0;
  if (!isPossible) {
    return (
      `${syncedBlocks} synced blocks in ${bitmapBytes} bytes and ${dirtyBlocks} dirty blocks in ${dirtyBytes} bytes ` +
      `are impossible for ${blocks} blocks`
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

function refuseOtherCounts(entries: readonly SliceEntry[], { syncedBlocks, dirtyBlocks }: Expected): void {
  const synced = entries.reduce((sum, entry) => sum + entry.syncedBlocks, 0);
  const dirty = entries.reduce((sum, entry) => sum + entry.dirtyBlocks, 0);
  if (synced === syncedBlocks && dirty === dirtyBlocks) return;
  throw corrupt(`${synced} synced and ${dirty} dirty blocks, but the header says ${syncedBlocks} and ${dirtyBlocks}`);
}

function corrupt(what: string, details: Record<string, unknown> = {}): CodError {
  return new CodError('COD_CORRUPT', `checkpoint directory: ${what}`, { details });
}
