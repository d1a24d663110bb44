/**
 * Writes a qcow2 image (docs/interop/qcow2.txt of QEMU, version 3) that holds some extents of a disk, and takes the
 * rest from a backing file.
 *
 *   header │ for each L2 table: data, the table │ L1 table │ table of reference counts │ reference counts
 *
 * The header is written last, when all else is durable: what a crash leaves is no image. Each cluster of the file is
 * used once.
 */

import { CodError } from '../errors.ts';
import type { File } from '../fs/file-system.ts';

const MAGIC = 0x5146_49fb;
const HEADER_BYTES = 104;
const BACKING_FORMAT = 0xe279_2aca;
/** QEMU's limit of an L1 table, and of a cluster. */
const MAX_L1_BYTES = 2 ** 25;
const MAX_CLUSTER_BYTES = 2 ** 21;
/** QEMU's limit of a name. */
const MAX_NAME_BYTES = 1023;
/** Bytes that are read and written at a time, at least a cluster. */
const PIECE_BYTES = 2 ** 21;
/** In an entry of L1 and L2: the cluster has one reference. In an entry of L2: the cluster reads as zeros. */
const COPIED = 1n << 63n;
const ZERO = 1n;

interface Extent {
  readonly offset: number;
  readonly length: number;
}

/** What the disk is, and what of it is written. */
export interface Overlay {
  /** Bytes of the disk: whole sectors. */
  readonly size: number;
  /** A power of two. */
  readonly clusterBytes: number;
  /** Ascending; neither touching nor overlapping. Whole clusters, but for the end of the disk. */
  readonly extents: readonly Extent[];
  /** Name of the file that has the rest, as QEMU will find it. */
  readonly backingFile: string;
  readonly backingFormat: 'raw' | 'qcow2';
  read(into: Uint8Array, offset: number): Promise<void>;
}

/**
 * The size of clusters for a disk whose changes are known in blocks: the smallest that QEMU accepts.
 * @throws {@link CodError} COD_UNSUPPORTED for a disk that qcow2 cannot hold
 */
export function clusterBytesFor(size: number, blockSize: number): number {
  if (size % 512 !== 0)
    throw new CodError(
      'COD_UNSUPPORTED',
      `a qcow2 image has whole sectors of 512 bytes, but the disk has ${size} bytes`,
    );
  let bytes = Math.min(blockSize, MAX_CLUSTER_BYTES);
  while (bytes < MAX_CLUSTER_BYTES && l1Entries(size, bytes) * 8 > MAX_L1_BYTES) bytes *= 2;
  if (l1Entries(size, bytes) * 8 > MAX_L1_BYTES)
    throw new CodError('COD_UNSUPPORTED', `a qcow2 image cannot have ${size} bytes`);
  return bytes;
}

/** Bytes of the disk that an L2 table describes. */
function bytesOfL2(clusterBytes: number): number {
  return (clusterBytes / 8) * clusterBytes;
}

function l1Entries(size: number, clusterBytes: number): number {
  return Math.ceil(size / bytesOfL2(clusterBytes));
}

/** Refuses a name that does not fit into the header. @throws {@link CodError} COD_UNSUPPORTED */
export function checkBackingName(name: string): void {
  const { length } = Buffer.from(name);
  if (length > MAX_NAME_BYTES)
    throw new CodError('COD_UNSUPPORTED', `the name of a backing file has at most ${MAX_NAME_BYTES} bytes: ${name}`);
}

/** Writes the image to an empty file, durably. Returns the bytes of the disk that it holds as data. */
export async function writeOverlay(file: File, overlay: Overlay): Promise<number> {
  const { size, clusterBytes, extents } = overlay;
  const writer = new Clusters(file, clusterBytes);
  const l1 = new DataView(new ArrayBuffer(l1Entries(size, clusterBytes) * 8));
  const perTable = bytesOfL2(clusterBytes);
  let dataBytes = 0;
  let index = 0;
  for (let table = 0; table * perTable < size && index < extents.length; table++) {
    const end = (table + 1) * perTable;
    if (extents[index]!.offset >= end) continue;
    const l2 = new DataView(new ArrayBuffer(clusterBytes));
    for (; index < extents.length && extents[index]!.offset < end; index++) {
      const extent = extents[index]!;
      const start = Math.max(extent.offset, table * perTable);
      const stop = Math.min(extent.offset + extent.length, end);
      dataBytes += await writeData(writer, overlay, { l2, start, stop });
      // The rest of the extent belongs to the next table.
      if (extent.offset + extent.length > end) break;
    }
    l1.setBigUint64(table * 8, BigInt(await writer.append(new Uint8Array(l2.buffer))) | COPIED);
  }
  const l1Offset = await writer.append(new Uint8Array(l1.buffer));
  const counts = await writer.appendCounts();
  await file.sync();
  await file.write(headerOf(overlay, { l1Offset, l1Size: l1.byteLength / 8, ...counts }), 0);
  await file.sync();
  return dataBytes;
}

/** Writes the bytes [start, stop) of the disk, and enters them in their table. Zeros take no room. */
async function writeData(
  writer: Clusters,
  { clusterBytes, read }: Overlay,
  { l2, start, stop }: { l2: DataView; start: number; stop: number },
): Promise<number> {
  let written = 0;
  const buffer = new Uint8Array(Math.min(PIECE_BYTES, Math.ceil((stop - start) / clusterBytes) * clusterBytes));
  for (let at = start; at < stop; at += buffer.length) {
    const length = Math.min(buffer.length, stop - at);
    await read(buffer.subarray(0, length), at);
    buffer.fill(0, length);
    let used = 0;
    const first = writer.next;
    for (let from = 0; from < length; from += clusterBytes) {
      const entry = (((at + from) / clusterBytes) % (clusterBytes / 8)) * 8;
      const cluster = buffer.subarray(from, from + clusterBytes);
      if (cluster.every((byte) => byte === 0)) {
        l2.setBigUint64(entry, ZERO);
        continue;
      }
      l2.setBigUint64(entry, BigInt(first + used) | COPIED);
      buffer.copyWithin(used, from, from + clusterBytes);
      used += clusterBytes;
    }
    if (used > 0) await writer.append(buffer.subarray(0, used));
    written += used;
  }
  return written;
}

/** Appends clusters to a file, behind the header's. */
class Clusters {
  readonly #file: File;
  readonly #clusterBytes: number;
  /** Where the next cluster begins. */
  next: number;

  constructor(file: File, clusterBytes: number) {
    this.#file = file;
    this.#clusterBytes = clusterBytes;
    this.next = clusterBytes;
  }

  /** Returns where the bytes begin. */
  async append(bytes: Uint8Array): Promise<number> {
    const at = this.next;
    await this.#file.write(bytes, at);
    this.next += Math.ceil(bytes.length / this.#clusterBytes) * this.#clusterBytes;
    return at;
  }

  /** Appends the counts of references of all clusters, their own among them: each cluster has one. */
  async appendCounts(): Promise<{ countsOffset: number; countsClusters: number }> {
    const perBlock = this.#clusterBytes / 2;
    const before = this.next / this.#clusterBytes;
    const tableFor = (blocks: number): number => Math.ceil((blocks * 8) / this.#clusterBytes);
    let blocks = 1;
    while (before + tableFor(blocks) + blocks > blocks * perBlock) blocks++;
    const countsClusters = tableFor(blocks);
    const total = before + countsClusters + blocks;
    const table = new DataView(new ArrayBuffer(countsClusters * this.#clusterBytes));
    const start = this.next + table.byteLength;
    for (let block = 0; block < blocks; block++)
      table.setBigUint64(block * 8, BigInt(start + block * this.#clusterBytes));
    const countsOffset = await this.append(new Uint8Array(table.buffer));
    for (let block = 0; block < blocks; block++) {
      const counts = new DataView(new ArrayBuffer(this.#clusterBytes));
      for (let at = 0; at < perBlock && block * perBlock + at < total; at++) counts.setUint16(at * 2, 1);
      await this.append(new Uint8Array(counts.buffer));
    }
    return { countsOffset, countsClusters };
  }
}

interface Places {
  readonly l1Offset: number;
  readonly l1Size: number;
  readonly countsOffset: number;
  readonly countsClusters: number;
}

function headerOf(
  { size, clusterBytes, backingFile, backingFormat }: Overlay,
  { l1Offset, l1Size, countsOffset, countsClusters }: Places,
): Uint8Array {
  const name = Buffer.from(backingFile);
  const format = Buffer.from(backingFormat);
  // The extension, and the one that ends them.
  const nameAt = HEADER_BYTES + 8 + 8 + 8;
  const bytes = new Uint8Array(nameAt + name.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC);
  view.setUint32(4, 3);
  view.setBigUint64(8, BigInt(nameAt));
  view.setUint32(16, name.length);
  view.setUint32(20, Math.log2(clusterBytes));
  view.setBigUint64(24, BigInt(size));
  view.setUint32(36, l1Size);
  view.setBigUint64(40, BigInt(l1Offset));
  view.setBigUint64(48, BigInt(countsOffset));
  view.setUint32(56, countsClusters);
  // Counts of 2^4 bits.
  view.setUint32(96, 4);
  view.setUint32(100, HEADER_BYTES);
  view.setUint32(HEADER_BYTES, BACKING_FORMAT);
  view.setUint32(HEADER_BYTES + 4, format.length);
  bytes.set(format, HEADER_BYTES + 8);
  bytes.set(name, nameAt);
  return bytes;
}
