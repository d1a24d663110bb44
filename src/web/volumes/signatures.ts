/**
 * Recognizes formats that cannot be browsed here, by their signatures, and reads their labels. Sources: the kernel's
 * headers, and the tables of libblkid.
 */

import { type Bytes, remembered, text } from './bytes.ts';
import { hfs, nilfs, raid, zfs } from './superblocks.ts';
import { udf } from './udf.ts';

/** A format, and the name that its user gave to the volume. The name is empty if it has none or is not read here. */
export interface Recognized {
  readonly kind: string;
  readonly label: string;
}

interface Signature {
  readonly kind: string;
  /** Offset of the mark, in bytes. */
  readonly at: number;
  /** The bytes of the mark, as Latin-1. */
  readonly mark: string;
  /** Where the label is. */
  readonly label?: readonly [at: number, length: number, encoding?: string];
}

/** Linux's sizes of a page: the mark of a swap area ends its first page. */
const PAGE_BYTES = [4096, 8192, 16_384, 32_768, 65_536];

const SIGNATURES: readonly Signature[] = [
  { kind: 'BitLocker', at: 3, mark: '-FVE-FS-' },
  { kind: 'ReFS', at: 3, mark: 'ReFS\0\0\0\0' },
  { kind: 'LUKS', at: 0, mark: 'LUKS\xba\xbe\0\x02', label: [24, 48] },
  { kind: 'LUKS', at: 0, mark: 'LUKS\xba\xbe' },
  ...[0, 512, 1024, 1536].map((at) => ({ kind: 'Linux LVM', at, mark: 'LABELONE' })),
  { kind: 'XFS', at: 0, mark: 'XFSB', label: [108, 12] },
  { kind: 'Btrfs', at: 65_600, mark: '_BHRfS_M', label: [65_835, 256] },
  { kind: 'F2FS', at: 1024, mark: '\x10\x20\xf5\xf2', label: [1148, 512, 'utf-16le'] },
  {
    kind: 'bcachefs',
    at: 4120,
    mark: '\xc6\x85\x73\xf6\x66\x19\xce\x90\xa9\x6a\x60\xcf\x80\x3d\xf7\xef',
    label: [4168, 32],
  },
  {
    kind: 'bcachefs',
    at: 4120,
    mark: '\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81',
    label: [4168, 32],
  },
  { kind: 'JFS', at: 32_768, mark: 'JFS1' },
  ...['ReIsErFs', 'ReIsEr2Fs', 'ReIsEr3Fs'].map(
    (mark): Signature => ({ kind: 'ReiserFS', at: 65_588, mark, label: [65_636, 16] }),
  ),
  { kind: 'ReiserFS', at: 8244, mark: 'ReIsErFs' },
  { kind: 'Reiser4', at: 65_536, mark: 'ReIsEr4' },
  { kind: 'SquashFS', at: 0, mark: 'hsqs' },
  { kind: 'SquashFS', at: 0, mark: 'sqsh' },
  { kind: 'EROFS', at: 1024, mark: '\xe2\xe1\xf5\xe0', label: [1088, 16] },
  ...[0, 512].map((at): Signature => ({ kind: 'cramfs', at: at + 16, mark: 'Compressed ROMFS', label: [at + 48, 16] })),
  { kind: 'romfs', at: 0, mark: '-rom1fs-', label: [16, 64] },
  { kind: 'APFS', at: 32, mark: 'NXSB' },
  { kind: 'UFS', at: 66_908, mark: '\x19\x01\x54\x19', label: [66_216, 32] },
  { kind: 'UFS', at: 9564, mark: '\x54\x19\x01\0', label: [8872, 32] },
  { kind: 'GFS2', at: 65_536, mark: '\x01\x16\x19\x70' },
  ...[1024, 2048, 4096, 8192].map((at) => ({ kind: 'OCFS2', at, mark: 'OCFSV2' })),
  { kind: 'VMFS', at: 2 ** 20, mark: '\x0d\xd0\x01\xc0' },
  { kind: 'HPFS', at: 8192, mark: '\x49\xe8\x95\xf9' },
  { kind: 'BFS of Haiku', at: 544, mark: '1SFB', label: [512, 32] },
  { kind: 'Stratis', at: 516, mark: '!Stra0tis' },
  { kind: 'High Sierra (a CD older than ISO 9660)', at: 32_777, mark: 'CDROM' },
  { kind: 'a CD of raw sectors', at: 0, mark: '\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0' },
  ...PAGE_BYTES.flatMap((bytes): Signature[] => [
    { kind: 'Linux swap', at: bytes - 10, mark: 'SWAPSPACE2', label: [1052, 16] },
    { kind: 'Linux swap', at: bytes - 10, mark: 'SWAP-SPACE' },
    { kind: 'Linux swap of a suspended system', at: bytes - 10, mark: 'S1SUSPEND' },
    { kind: 'Linux swap of a suspended system', at: bytes - 10, mark: 'ULSUSPEND' },
  ]),
  { kind: 'the partition map itself', at: 0, mark: 'PM\0\0' },
  { kind: 'UBI', at: 0, mark: 'UBI#' },
  { kind: 'an Android boot image', at: 0, mark: 'ANDROID!' },
  { kind: 'qcow2', at: 0, mark: 'QFI\xfb' },
  { kind: 'gzip', at: 0, mark: '\x1f\x8b' },
  { kind: 'xz', at: 0, mark: '\xfd7zXZ' },
  { kind: 'zstd', at: 0, mark: '\x28\xb5\x2f\xfd' },
];

/** Formats whose mark is too short, or not always in the same place. */
const SUPERBLOCKS: readonly ((bytes: Bytes, signal?: AbortSignal) => Promise<Recognized | undefined>)[] = [
  udf,
  hfs,
  nilfs,
  raid,
  zfs,
];

/** Returns the format that begins here, or `undefined` if it is unknown. Reads at most 128 KiB. */
export async function recognize(bytes: Bytes, signal?: AbortSignal): Promise<Recognized | undefined> {
  const pages = remembered(bytes);
  // All marks at once: one after another they would wait for the source a dozen times.
  await Promise.all(SIGNATURES.filter(({ at }) => at < bytes.size).map(({ at }) => pages.read(at, 1, signal)));
  for (const { kind, at, mark, label } of SIGNATURES) {
    if (at + mark.length > bytes.size) continue;
    const found = await pages.read(at, mark.length, signal);
    if (!found.every((byte, index) => byte === mark.charCodeAt(index))) continue;
    if (label === undefined || label[0] + label[1] > bytes.size) return { kind, label: '' };
    return { kind, label: labelOf(await pages.read(label[0], label[1], signal), label[2]) };
  }
  for (const find of SUPERBLOCKS) {
    const found = await find(pages, signal);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Decodes a label that ends with a NUL or with spaces. */
function labelOf(bytes: Uint8Array, encoding = 'utf-8'): string {
  const decoded = encoding === 'utf-8' ? text(bytes) : new TextDecoder(encoding).decode(bytes).replace(/\0.*$/s, '');
  return decoded.trimEnd();
}
