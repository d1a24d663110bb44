/**
 * The records of NTFS: the protection of blocks against torn writes, file records with their attributes, and lists of
 * runs. Source: the documentation of the Linux-NTFS project, and ntfs-3g where it differs.
 */

import { u64, utf16, VolumeError, viewOf } from './bytes.ts';

export const ATTRIBUTE = {
  standardInformation: 0x10,
  list: 0x20,
  volumeName: 0x60,
  volumeInformation: 0x70,
  data: 0x80,
  indexRoot: 0x90,
  indexAllocation: 0xa0,
  reparsePoint: 0xc0,
} as const;
const END_OF_ATTRIBUTES = 0xffffffff;
/** Each block is protected in strides of this length, whatever the sectors of the disk are. */
export const STRIDE_BYTES = 512;

/** Clusters of an attribute. `lcn` is their place in the volume, or `undefined` for a hole. */
export interface Extent {
  readonly vcn: number;
  readonly lcn: number | undefined;
  readonly count: number;
}

/** The part of an attribute that lies outside of the record. */
export interface Stored {
  readonly firstVcn: number;
  readonly pairs: Uint8Array;
  /** Clusters of a compressed unit. 1 if the attribute is not compressed. */
  readonly unitClusters: number;
  readonly size: number;
  /** Bytes that were written. Those behind them read as zeros. */
  readonly writtenBytes: number;
}

export interface Attribute {
  readonly type: number;
  readonly name: string;
  readonly id: number;
  readonly isCompressed: boolean;
  readonly isEncrypted: boolean;
  /** Either the value, or where it is stored. */
  readonly value: Uint8Array | Stored;
}

export interface FileRecord {
  readonly number: number;
  readonly isDirectory: boolean;
  readonly attributes: readonly Attribute[];
}

/**
 * Restores the last two bytes of each stride, which are a number that changes with each write.
 * @throws {@link VolumeError} when the block has another mark, or its strides are of different writes.
 */
export function unprotect(raw: Uint8Array, mark: string, what: string): void {
  const view = viewOf(raw);
  const [at, count] = [view.getUint16(4, true), view.getUint16(6, true)];
  const isSound = [...mark].every((letter, index) => raw[index] === letter.charCodeAt(0));
  if (!isSound || (count - 1) * STRIDE_BYTES !== raw.length || at % 2 !== 0 || at + count * 2 > STRIDE_BYTES - 2)
    throw new VolumeError(`${what} is damaged`);
  const written = view.getUint16(at, true);
  for (let index = 1; index < count; index++) {
    const end = index * STRIDE_BYTES - 2;
    if (view.getUint16(end, true) !== written) throw new VolumeError(`${what} is damaged: it was written in part`);
    view.setUint16(end, view.getUint16(at + index * 2, true), true);
  }
}

/**
 * Reads a file record, and changes `raw`. `base` is the record that an extension record must belong to.
 * @throws {@link VolumeError} when the record is damaged, unused, or belongs to another one.
 */
export function recordOf(raw: Uint8Array, number: number, base = 0): FileRecord {
  unprotect(raw, 'FILE', `file record ${number}`);
  const view = viewOf(raw);
  const flags = view.getUint16(22, true);
  if ((flags & 1) === 0) throw new VolumeError(`file record ${number} is not in use`);
  if (referenceOf(view, 32) !== base) throw new VolumeError(`file record ${number} belongs to another file`);
  const attributes: Attribute[] = [];
  const end = Math.min(view.getUint32(24, true), raw.length);
  for (let at = view.getUint16(20, true); at + 4 <= end && view.getUint32(at, true) !== END_OF_ATTRIBUTES; ) {
    const length = at + 24 <= end ? view.getUint32(at + 4, true) : 0;
    if (length < 24 || length > end - at) throw new VolumeError(`file record ${number} has a damaged attribute`);
    attributes.push(attributeOf(raw.subarray(at, at + length)));
    at += length;
  }
  return { number, isDirectory: (flags & 2) !== 0, attributes };
}

/** Reads a reference: the number of a record, in 48 bits. How often the record was used again is in the other 16. */
export function referenceOf(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getUint16(at + 4, true) * 2 ** 32;
}

function attributeOf(raw: Uint8Array): Attribute {
  const view = viewOf(raw);
  const flags = view.getUint16(12, true);
  const base = {
    type: view.getUint32(0, true),
    name: utf16(slice(raw, view.getUint16(10, true), raw[9]! * 2)),
    id: view.getUint16(14, true),
    isCompressed: (flags & 0xff) !== 0,
    isEncrypted: (flags & 0x4000) !== 0,
  };
  if (raw[8] === 0) return { ...base, value: slice(raw, view.getUint16(20, true), view.getUint32(16, true)) };
  const pairsAt = raw.length < 64 ? raw.length + 1 : view.getUint16(32, true);
  if (pairsAt > raw.length) throw new VolumeError('an attribute of this file is damaged');
  const firstVcn = u64(view, 16);
  const unitShift = raw[34]!;
  // Only the first part of an attribute has its sizes.
  const [size, written] = firstVcn === 0 ? [u64(view, 48), u64(view, 56)] : [0, 0];
  const value = {
    firstVcn,
    pairs: raw.subarray(pairsAt),
    unitClusters: base.isCompressed ? 2 ** unitShift : 1,
    size,
    writtenBytes: Math.min(written, size),
  };
  return { ...base, value };
}

function slice(raw: Uint8Array, at: number, length: number): Uint8Array {
  if (at + length > raw.length) throw new VolumeError('an attribute of this file is damaged');
  return raw.subarray(at, at + length);
}

/**
 * Yields the extents of a list of runs. A run is a byte with two lengths, a count of clusters, and the distance from
 * the run before.
 * @throws {@link VolumeError} when a run leaves the volume.
 */
export function* extentsOf({ firstVcn, pairs }: Stored, clusterCount: number): Generator<Extent> {
  let vcn = firstVcn;
  let lcn = 0;
  for (let at = 0; at < pairs.length && pairs[at] !== 0; ) {
    const [countBytes, distanceBytes] = [pairs[at]! & 15, pairs[at]! >> 4];
    const next = at + 1 + countBytes + distanceBytes;
    const count = signed(pairs.subarray(at + 1, at + 1 + countBytes));
    lcn += signed(pairs.subarray(at + 1 + countBytes, next));
    const isHole = distanceBytes === 0;
    if (next > pairs.length || !Number.isSafeInteger(vcn + count) || count <= 0)
      throw new VolumeError('the list of runs of this file is damaged');
    if (!isHole && (lcn < 0 || lcn + count > clusterCount))
      throw new VolumeError(`this file has cluster ${lcn + count - 1}, beyond the volume (${clusterCount} clusters)`);
    yield { vcn, lcn: isHole ? undefined : lcn, count };
    vcn += count;
    at = next;
  }
}

/** Reads a little-endian number with a sign, of any length. */
function signed(bytes: Uint8Array): number {
  let value = ((bytes.at(-1) ?? 0) << 24) >> 24;
  for (let at = bytes.length - 2; at >= 0; at--) value = value * 256 + bytes[at]!;
  return value;
}
