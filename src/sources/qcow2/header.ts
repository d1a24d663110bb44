/**
 * The header of a qcow2 image (docs/interop/qcow2.txt of QEMU), versions 2 and 3. Pure.
 *
 * Every number comes from outside. After {@link parseHeader} returns:
 * - the L1 table lies within the file, and its used part has at most {@link MAX_L1_BYTES}.
 * - all lengths are safe integers, and no allocation depends on a number that was not checked.
 */

import { CodError } from '../../errors.ts';

/** Bytes from the file's beginning that hold the header and its extensions. */
export const HEADER_BYTES = 65_536;
/** QEMU's own limit. */
const MAX_L1_BYTES = 2 ** 25;
const MAX_NAME_BYTES = 1023;

const MAGIC = 0x5146_49fb;
const EXTENSION = { end: 0, backingFormat: 0xe279_2aca, dataFile: 0x4441_5441 } as const;

/** Bits of `incompatible_features`. */
const DIRTY = 1;
const CORRUPT = 2;
const DATA_FILE = 4;
const COMPRESSION = 8;
const EXTENDED_L2 = 16;
const KNOWN = DIRTY | CORRUPT | DATA_FILE | COMPRESSION | EXTENDED_L2;

/** How clusters are compressed. */
export type Compression = 'zlib' | 'zstd';

/** Where the name of the backing file is in the image. */
export interface NameRange {
  readonly offset: number;
  readonly length: number;
}

/** What the header says, checked. */
export interface Header {
  readonly version: 2 | 3;
  /** Bytes of the disk. */
  readonly size: number;
  readonly clusterBits: number;
  readonly l1Offset: number;
  readonly compression: Compression;
  readonly hasExtendedL2: boolean;
  readonly hasDataFile: boolean;
  readonly dataFile: string | undefined;
  readonly backing: NameRange | undefined;
  readonly backingFormat: string | undefined;
}

/** The error of an image whose tables contradict themselves or the file. */
export function corrupt(what: string, details: Readonly<Record<string, unknown>> = {}): CodError {
  return new CodError('COD_CORRUPT', `qcow2: ${what}; get the image again, or see \`qemu-img check\``, { details });
}

export function unsupported(what: string): CodError {
  return new CodError('COD_UNSUPPORTED', `qcow2: ${what}`);
}

/** The remedy for images that QEMU reads and we do not. */
export const CONVERT = 'convert the image with `qemu-img convert -O qcow2`';

/** Whether a file that begins with `bytes` is a qcow2 image. */
export function isQcow2(bytes: Uint8Array): boolean {
  if (bytes.length < 8) return false;
  const view = viewOf(bytes);
  return view.getUint32(0) === MAGIC && view.getUint32(4) >= 2;
}

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Returns a number of 64 bits. Above 2^53 it is inexact, which every limit here refuses. */
export function u64(view: DataView, at: number): number {
  return view.getUint32(at) * 2 ** 32 + view.getUint32(at + 4);
}

/**
 * @param bytes the first {@link HEADER_BYTES} bytes of the file, or all of them
 * @param fileBytes length of the file
 * @throws {@link CodError} COD_UNSUPPORTED when the image needs what we do not have; COD_CORRUPT
 */
export function parseHeader(bytes: Uint8Array, fileBytes: number): Header {
  if (!isQcow2(bytes)) throw unsupported('the source is not a qcow2 image of version 2 or 3: leave out the format');
  const view = viewOf(bytes);
  const version = view.getUint32(4);
  if (version !== 2 && version !== 3) throw unsupported(`version ${version} is not known: ${CONVERT}`);
  if (bytes.length < (version === 2 ? 72 : 104)) throw corrupt(`the header is cut short at ${bytes.length} bytes`);

  const clusterBits = view.getUint32(20);
  if (clusterBits < 9 || clusterBits > 21)
    throw corrupt(`clusters have 2^9 to 2^21 bytes, not 2^${clusterBits}`, { clusterBits });
  if (view.getUint32(32) !== 0) throw unsupported(`the image is encrypted: decrypt it with \`qemu-img convert\``);

  const more = version === 3 ? readMore(view, 2 ** clusterBits) : { features: 0, length: 72, method: 0 };
  const { features } = more;
  if (more.method > 1) throw unsupported(`compression type ${more.method} is not known: ${CONVERT}`);
  if (((features & COMPRESSION) !== 0) !== (more.method !== 0))
    throw corrupt('the compression type contradicts the feature bits');
  if (features & CORRUPT) throw corrupt('the image is marked as corrupt');
  // DIRTY concerns only the counts of references, which a reader does not need.

  const hasExtendedL2 = (features & EXTENDED_L2) !== 0;
  if (hasExtendedL2 && clusterBits < 14) throw corrupt(`subclusters need clusters of 2^14 bytes, not 2^${clusterBits}`);
  const extensions = readExtensions(bytes.subarray(0, 2 ** clusterBits), more.length);
  const nameBytes = view.getUint32(16);
  const nameOffset = u64(view, 8);
  return {
    version,
    clusterBits,
    ...readL1(view, fileBytes, clusterBits, hasExtendedL2),
    compression: more.method === 1 ? 'zstd' : 'zlib',
    hasExtendedL2,
    hasDataFile: (features & DATA_FILE) !== 0,
    dataFile: extensions.dataFile,
    backing: nameOffset === 0 ? undefined : checkName({ offset: nameOffset, length: nameBytes }, fileBytes),
    backingFormat: extensions.backingFormat,
  };
}

/** Reads the fields of version 3. */
function readMore(view: DataView, clusterBytes: number): { features: number; length: number; method: number } {
  const features = view.getUint32(76);
  const unknown = features & ~KNOWN;
  if (view.getUint32(72) !== 0 || unknown !== 0) {
    const bits = [...bitsOf(unknown, 0), ...bitsOf(view.getUint32(72), 32)];
    throw unsupported(`the image needs incompatible features that are not known (bits ${bits}): ${CONVERT}`);
  }
  const length = view.getUint32(100);
  if (length < 104 || length > clusterBytes || length % 8 !== 0)
    throw corrupt(`the header says that it has ${length} bytes`);
  return { features, length, method: length > 104 && view.byteLength > 104 ? view.getUint8(104) : 0 };
}

function bitsOf(word: number, first: number): number[] {
  return Array.from({ length: 32 }, (_, bit) => bit)
    .filter((bit) => (word >>> bit) & 1)
    .map((bit) => bit + first);
}

function readL1(
  view: DataView,
  fileBytes: number,
  clusterBits: number,
  hasExtendedL2: boolean,
): Pick<Header, 'size' | 'l1Offset'> {
  const size = u64(view, 24);
  if (!Number.isSafeInteger(size)) throw unsupported(`a disk of ${size} bytes is too large`);
  // One entry of the L1 table is for one L2 table, which has one cluster of entries.
  const perEntry = 2 ** (2 * clusterBits - (hasExtendedL2 ? 4 : 3));
  const needed = Math.ceil(size / perEntry);
  const [entries, l1Offset] = [view.getUint32(36), u64(view, 40)];
  if (needed * 8 > MAX_L1_BYTES)
    throw unsupported(`a disk of ${size} bytes needs larger clusters than ${2 ** clusterBits} bytes`);
  if (entries < needed) throw corrupt(`the L1 table has ${entries} entries, but the disk needs ${needed}`);
  if (entries > MAX_L1_BYTES / 8) throw corrupt(`the L1 table has ${entries} entries`);
  if (l1Offset % 2 ** clusterBits !== 0 || l1Offset + needed * 8 > fileBytes)
    throw corrupt(`the L1 table at ${l1Offset} is not within the file (${fileBytes} bytes)`, { l1Offset, fileBytes });
  return { size, l1Offset };
}

function checkName(name: NameRange, fileBytes: number): NameRange {
  if (name.length === 0 || name.length > MAX_NAME_BYTES || name.offset + name.length > fileBytes)
    throw corrupt(`the backing file's name has ${name.length} bytes at ${name.offset}`);
  return name;
}

/** Reads the extensions behind the header. Unknown ones are left out, as the format allows. */
function readExtensions(
  bytes: Uint8Array,
  start: number,
): { backingFormat: string | undefined; dataFile: string | undefined } {
  const found: { backingFormat: string | undefined; dataFile: string | undefined } = {
    backingFormat: undefined,
    dataFile: undefined,
  };
  const view = viewOf(bytes);
  for (let at = start; at + 8 <= bytes.length; ) {
    const [type, length] = [view.getUint32(at), view.getUint32(at + 4)];
    if (type === EXTENSION.end) break;
    at += 8;
    if (length > bytes.length - at) throw corrupt(`a header extension has ${length} bytes at ${at}`);
    const content = bytes.subarray(at, at + length);
    if (type === EXTENSION.backingFormat) found.backingFormat = textOf(content);
    else if (type === EXTENSION.dataFile) found.dataFile = textOf(content);
    at += Math.ceil(length / 8) * 8;
  }
  return found;
}

/** Decodes a name of the header. */
export function textOf(bytes: Uint8Array): string {
  if (bytes.length > MAX_NAME_BYTES) throw corrupt(`a name in the header has ${bytes.length} bytes`);
  const end = bytes.indexOf(0);
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(end < 0 ? bytes : bytes.subarray(0, end));
  } catch {
    throw corrupt('a name in the header is not UTF-8');
  }
}
