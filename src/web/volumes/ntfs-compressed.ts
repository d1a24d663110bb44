/**
 * Reads files that NTFS compressed, in units of 16 clusters. A unit without clusters is zeros, one with all of its
 * clusters is not compressed, and any other is in chunks of LZNT1. Source: Microsoft's "Xpress Compression Algorithm"
 * (MS-XCA), section 2.5.
 */

import { type Bytes, VolumeError, viewOf } from './bytes.ts';
import type { Extent } from './ntfs-record.ts';

const CHUNK_BYTES = 4096;
/** NTFS compresses with clusters of at most 4 KiB. */
const MAX_UNIT_BYTES = 2 ** 16;

export interface CompressedFile {
  readonly bytes: Bytes;
  readonly clusterBytes: number;
  readonly unitClusters: number;
  /** Bytes that were written. Those behind them read as zeros. */
  readonly writtenBytes: number;
  extents(): AsyncIterable<Extent>;
}

/**
 * Yields bytes [from, to).
 * @throws {@link VolumeError} when the image is damaged; the signal's reason.
 */
export async function* readCompressed(
  file: CompressedFile,
  { from, to }: { from: number; to: number },
  signal?: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const unitBytes = file.unitClusters * file.clusterBytes;
  if (unitBytes > MAX_UNIT_BYTES) throw new VolumeError(`this file has compressed units of ${unitBytes} bytes`);
  const units = unitsOf(file, Math.floor(from / unitBytes));
  for (let start = Math.floor(from / unitBytes) * unitBytes; start < to; start += unitBytes) {
    signal?.throwIfAborted();
    const unit = start < file.writtenBytes ? await units.next() : undefined;
    const whole = unit === undefined ? new Uint8Array(unitBytes) : await readUnit(file, unit.value, signal);
    if (start + unitBytes > file.writtenBytes) whole.fill(0, Math.max(0, file.writtenBytes - start));
    yield whole.slice(Math.max(0, from - start), Math.min(unitBytes, to - start));
  }
}

/** Yields the extents of each unit from `first` on, endlessly: behind the last extent, units are empty. */
async function* unitsOf(file: CompressedFile, first: number): AsyncGenerator<Extent[], never> {
  const extents = file.extents()[Symbol.asyncIterator]();
  let extent: Extent | undefined;
  let isOver = false;
  for (let vcn = first * file.unitClusters; ; ) {
    const end = vcn + file.unitClusters;
    const unit: Extent[] = [];
    while (vcn < end) {
      while (!isOver && (extent === undefined || extent.vcn + extent.count <= vcn)) {
        const next = await extents.next();
        isOver = next.done === true;
        extent = next.value;
      }
      if (extent === undefined || isOver) break;
      const skipped = vcn - extent.vcn;
      const count = Math.min(end - vcn, extent.count - skipped);
      unit.push({ vcn, lcn: extent.lcn === undefined ? undefined : extent.lcn + skipped, count });
      vcn += count;
    }
    yield unit;
    vcn = end;
  }
}

async function readUnit(file: CompressedFile, unit: Extent[], signal: AbortSignal | undefined): Promise<Uint8Array> {
  const { bytes, clusterBytes, unitClusters } = file;
  const whole = new Uint8Array(unitClusters * clusterBytes);
  let stored = 0;
  for (const { lcn, count } of unit) {
    if (lcn === undefined) continue;
    whole.set(await bytes.read(lcn * clusterBytes, count * clusterBytes, signal), stored);
    stored += count * clusterBytes;
  }
  const isCompressed = stored > 0 && unit.some(({ lcn }) => lcn === undefined);
  return isCompressed ? unpackLznt1(whole.subarray(0, stored), whole.length) : whole;
}

/**
 * Unpacks chunks of LZNT1. What they lack reads as zeros.
 * @throws {@link VolumeError} when the chunks are damaged.
 */
export function unpackLznt1(packed: Uint8Array, bytes: number): Uint8Array {
  const whole = new Uint8Array(bytes);
  const view = viewOf(packed);
  for (let at = 0, start = 0; start < bytes && at + 2 <= packed.length; start += CHUNK_BYTES) {
    const header = view.getUint16(at, true);
    if (header === 0) break;
    const end = at + 3 + (header & 0xfff);
    const chunk = packed.subarray(at + 2, end);
    const target = whole.subarray(start, start + CHUNK_BYTES);
    if (end > packed.length) throw damaged();
    if (header & 0x8000) unpackChunk(chunk, target);
    else target.set(chunk);
    at = end;
  }
  return whole;
}

function unpackChunk(chunk: Uint8Array, target: Uint8Array): void {
  let to = 0;
  for (let at = 0; at < chunk.length; ) {
    // Each bit says whether a byte or a token follows.
    for (let flags = chunk[at++]! | 0x100; flags > 1 && at < chunk.length; flags >>= 1) {
      if ((flags & 1) === 0) {
        if (to === target.length) throw damaged();
        target[to++] = chunk[at++]!;
        continue;
      }
      // The distance takes more of the token's bits the more bytes there are before it.
      const token = chunk[at]! | ((chunk[at + 1] ?? 0) << 8);
      const lengthBits = Math.min(12, Math.clz32(Math.max(to - 1, 0)) - 16);
      const distance = (token >> lengthBits) + 1;
      const end = to + (token & ((1 << lengthBits) - 1)) + 3;
      if (distance > to || end > target.length) throw damaged();
      for (; to < end; to++) target[to] = target[to - distance]!;
      at += 2;
    }
  }
}

function damaged(): VolumeError {
  return new VolumeError('the compressed contents of this file are damaged');
}
