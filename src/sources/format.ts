/**
 * Tells disks from containers and archives, by their first and last bytes, and by the type that a server names.
 * Whatever is not known is a disk.
 *
 * A disk must not be refused by accident. So a format counts only by a signature that no boot sector, partition table
 * or file system begins with; a short one needs more to agree, such as a checksum or a version. A server's type counts
 * only for formats without a signature, and if the first sector is not a disk's.
 */

import { CodError } from '../errors.ts';
import { isQcow2 } from './qcow2/header.ts';
import type { InlineSource } from './source.ts';

const HEAD_BYTES = 1024;
/** The last sector: VHD and UDIF end with their header. */
const FOOT_BYTES = 512;

/** A format that is refused: its name, and what to do. */
type Foreign = readonly [name: string, remedy: string];

const converted = (name: string, format: string): Foreign => [
  name,
  `convert it with \`qemu-img convert -f ${format} -O qcow2\``,
];
const unpacked = (name: string, command: string): Foreign => [name, `unpack it with \`${command}\``];

const VHD = converted('a VHD image', 'vpc');
const VMDK = converted('a VMDK image', 'vmdk');
const PARALLELS = converted('a Parallels image', 'parallels');
const ZIP = unpacked('a ZIP archive', 'unzip');

/** Bytes at the beginning, as Latin-1. */
const HEADS: readonly (readonly [at: number, bytes: string, foreign: Foreign])[] = [
  [0, 'KDMV\x01\0\0\0', VMDK],
  [0, 'KDMV\x02\0\0\0', VMDK],
  [0, 'KDMV\x03\0\0\0', VMDK],
  [0, 'COWD\x01\0\0\0', VMDK],
  [0, '# Disk DescriptorFile', VMDK],
  [64, '\x7f\x10\xda\xbe\x01\0\x01\0', converted('a VDI image', 'vdi')],
  [0, 'conectix', VHD],
  [0, 'vhdxfile', converted('a VHDX image', 'vhdx')],
  [0, 'QED\0', converted('a QED image', 'qed')],
  [0, 'QFI\xfb\0\0\0\x01', converted('a qcow image of version 1', 'qcow')],
  [0, 'WithoutFreeSpace', PARALLELS],
  [0, 'WithouFreSpacExt', PARALLELS],
  [0, '\xfd7zXZ\0', unpacked('compressed with xz', 'xz -d')],
  [0, '\x28\xb5\x2f\xfd', unpacked('compressed with zstd', 'zstd -d')],
  [0, '\x04\x22\x4d\x18', unpacked('compressed with lz4', 'lz4 -d')],
  [0, '\x89LZO\0\r\n\x1a\n', unpacked('compressed with lzop', 'lzop -d')],
  [0, 'LZIP\x01', unpacked('compressed with lzip', 'lzip -d')],
  [0, 'PK\x03\x04', ZIP],
  [0, 'PK\x05\x06', ZIP],
  [0, '7z\xbc\xaf\x27\x1c', unpacked('a 7z archive', '7z x')],
  [0, 'Rar!\x1a\x07', unpacked('a RAR archive', 'unrar x')],
  [0, 'MSWIM\0\0\0', unpacked('a WIM archive', 'wimlib-imagex apply')],
  [0, '\x3a\xff\x26\xed\x01\0', unpacked('an Android sparse image', 'simg2img')],
];

const GZIP = unpacked('compressed with gzip', 'gunzip');
const BZIP2 = unpacked('compressed with bzip2', 'bunzip2');
/** After the signature and the level: the magic of a block, or of the end. */
const BZIP2_BLOCKS = ['1AY&SY', '\x17rE8P\x90'];

/** What a text begins with, and its name. */
const TEXTS: readonly (readonly [RegExp, string, types: RegExp])[] = [
  [
    /^(\xef\xbb\xbf)?\s*(<!--[\s\S]*?-->\s*)?<(!doctype html|html|head|body|title|meta|script)[\s>]/i,
    'an HTML page',
    /^\s*(text\/html|application\/xhtml)/i,
  ],
  [/^(\xef\xbb\xbf)?\s*<\?xml\s/i, 'an XML document', /^\s*(text|application)\/xml/i],
  [/^\s*\{\s*"/, 'a JSON document', /^\s*application\/(problem\+)?json/i],
];

const UDIF = converted('an Apple disk image (UDIF)', 'dmg');
const TAR = unpacked('a tar archive', 'tar -xf');

/** Types of formats whose first bytes may be anything. */
const TYPES: readonly (readonly [RegExp, Foreign])[] = [
  [/^\s*application\/(x-)?(g?tar|ustar)\b/i, TAR],
  [/^\s*application\/x-lzma\b/i, unpacked('compressed with lzma', 'unlzma')],
  [/^\s*application\/x-compress\b/i, unpacked('compressed with compress', 'uncompress')],
  [/^\s*application\/x-cpio\b/i, unpacked('a cpio archive', 'cpio -i')],
  [/^\s*application\/(x-)?zip\b/i, ZIP],
];

/**
 * Resolves to how a source is to be read. Reads its first and last bytes. A server's type counts where they do not
 * tell.
 *
 * @param options.headOnly looks at the first bytes only, for a server that sends everything before the last ones
 * @throws {@link CodError} COD_UNSUPPORTED when it is a container or an archive that is not read; the source's errors
 */
export async function formatOf(
  source: InlineSource,
  { headOnly = false, signal }: { headOnly?: boolean; signal?: AbortSignal } = {},
): Promise<'raw' | 'qcow2'> {
  const { size } = source;
  const head = new Uint8Array(Math.min(HEAD_BYTES, size));
  const foot = new Uint8Array(headOnly || size < FOOT_BYTES ? 0 : FOOT_BYTES);
  const reading = signal === undefined ? {} : { signal };
  await Promise.all([
    head.length > 0 && source.read(head, 0, reading),
    foot.length > 0 && source.read(foot, size - foot.length, reading),
  ]);
  if (isQcow2(head)) return 'qcow2';
  const foreign = foreignIn(head, foot, source);
  if (foreign === undefined) return 'raw';
  const [name, remedy] = foreign;
  throw new CodError(
    'COD_UNSUPPORTED',
    `the source is ${name}, not a disk: ${remedy}, or take it as it is with the format raw`,
    { details: { format: name, remedy } },
  );
}

function foreignIn(
  head: Uint8Array,
  foot: Uint8Array,
  { size, contentType: type = '' }: InlineSource,
): Foreign | undefined {
  const text = String.fromCharCode(...head);
  const last = String.fromCharCode(...foot);
  const found = HEADS.find(([at, bytes]) => text.startsWith(bytes, at));
  if (found !== undefined) return found[2];
  // The upper bits of the flags are reserved.
  if (text.startsWith('\x1f\x8b\x08') && head[3]! < 32) return GZIP;
  if (/^BZh[1-9]/.test(text) && BZIP2_BLOCKS.some((magic) => text.startsWith(magic, 4))) return BZIP2;
  if (isTar(head, text)) return TAR;
  if (last.startsWith('koly\0\0\0\x04\0\0\x02\0')) return UDIF;
  if (last.startsWith('conectix') && hasVhdSum(foot)) return VHD;
  if (last !== '' && isZipEnd(foot, size)) return ZIP;
  // A text has no control characters but white space and ESC.
  if (head.some((byte) => byte < 9 || (byte > 13 && byte < 32 && byte !== 27))) {
    const isDisk = text.startsWith('\x55\xaa', 510) || head.subarray(0, 512).every((byte) => byte === 0);
    return isDisk ? undefined : TYPES.find(([pattern]) => pattern.test(type))?.[1];
  }
  const page = TEXTS.find(([pattern, , types]) => pattern.test(text) || types.test(type));
  return page && [page[1], 'check the address, which may need a login or lead to a page about the file'];
}

/** Whether the last bytes end a ZIP archive that begins at the first byte: a program may unpack itself. */
function isZipEnd(foot: Uint8Array, size: number): boolean {
  const view = new DataView(foot.buffer, FOOT_BYTES - 22);
  const directory = view.getUint32(12, true) + view.getUint32(16, true);
  return view.getUint32(0) === 0x504b_0506 && directory === size - 22;
}

/** Whether the first sector is the header of a tar archive: its magic, and the sum of its bytes in octal digits. */
function isTar(head: Uint8Array, text: string): boolean {
  if (head.length < 512 || !text.startsWith('ustar', 257)) return false;
  const sum = head.subarray(0, 512).reduce((all, byte, at) => all + (at >= 148 && at < 156 ? 32 : byte), 0);
  return Number.parseInt(text.slice(148, 156).trim(), 8) === sum;
}

/** Whether a footer of a VHD has its checksum: the complement of the sum of its other bytes. */
function hasVhdSum(foot: Uint8Array): boolean {
  const sum = foot.reduce((all, byte, at) => all + (at >= 64 && at < 68 ? 0 : byte), 0);
  return new DataView(foot.buffer).getUint32(64) === ~sum >>> 0;
}
