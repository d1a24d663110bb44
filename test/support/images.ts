/** Disk images as people have them, and what must be said of each. */

import { execFileSync } from 'node:child_process';
import {
  closeSync,
  copyFileSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { makeDisk, makeExt, makeIso } from './disk-images.ts';
import { imageOf } from './volume-fixtures.ts';

/** The programs that {@link makeImages} needs. */
export const imageMakers: readonly string[] = ['mke2fs', 'sfdisk', 'genisoimage', 'qemu-img', 'xz'];

const PIECE_BYTES = 2 ** 16;
const FIXTURES = fileURLToPath(new URL('../fixtures/images/', import.meta.url));

/** An image, and the texts that the page shows of it. */
export interface ImageCase {
  readonly name: string;
  readonly shows: readonly string[];
  /** Texts that the page must not show. */
  readonly hides?: readonly string[];
  /** Whether the page refuses the image before it copies anything. */
  readonly isRefused?: boolean;
}

export const imageCases: readonly ImageCase[] = [
  { name: 'apm.img', shows: ['Apple partition map, 2 partitions', '2 · primary', 'HFS “Mac”'] },
  { name: 'hfs.img', shows: ['HFS “Mac”'] },
  { name: 'fat32-label-root-only.img', shows: ['FAT32 “STICK”', 'hello.txt'] },
  { name: 'fat12-dos33-noext.img', shows: ['FAT12\n', 'hello.txt'], hides: ['FAT12 “'] },
  { name: 'exfat.img', shows: ['exFAT “PEBBLES ü”', 'licence.txt'] },
  { name: 'ntfs.img', shows: ['NTFS “PEBBLES ü”', 'licence.txt'], hides: ['$MFT', 'the last changes'] },
  { name: 'swap64k.img', shows: ['Linux swap, which'] },
  { name: 'jfs.img', shows: ['JFS, which'] },
  { name: 'nilfs2.img', shows: ['NILFS2, which'] },
  { name: 'udf.img', shows: ['UDF “LinuxUDF”'] },
  { name: 'mdraid12.img', shows: ['Linux RAID (md 1.2)'] },
  { name: 'zfs.img', shows: ['ZFS, which'] },
  { name: 'bcachefs.img', shows: ['bcachefs, which'] },
  { name: 'iso-plain.iso', shows: ['ISO 9660 with Rock Ridge “PEBBLES”', 'A longer Name.text'] },
  {
    name: 'iso-hybrid.iso',
    shows: ['MBR, 1 partition', 'The whole disk', 'A longer Name.text', '1 · the hybrid image itself (hidden NTFS)'],
  },
  {
    name: 'stale-ext-then-mbr.img',
    shows: [
      'MBR, 1 partition',
      '1 · Linux',
      'ext4 “stones”',
      'A longer Name.text',
      'ext2 “OLD”), which is probably older',
    ],
  },
  { name: 'ext4-bigalloc1k.img', shows: ['ext4 “stones”', 'A longer Name.text'] },
  { name: 'gpt-nombr.img', shows: ['GPT, 1 partition', '1 · rootfs', 'no protective MBR', 'A longer Name.text'] },
  { name: 'disk.qcow2', shows: ['GPT, 1 partition', '1 · rootfs', 'A longer Name.text'] },
  { name: 'gz.img', shows: ['compressed with gzip', 'gunzip'], isRefused: true },
  { name: 'vdi.img', shows: ['a VDI image', 'qemu-img convert'], isRefused: true },
  { name: 'html.img', shows: ['an HTML page', 'check the address'], isRefused: true },
  { name: 'empty.img', shows: ['The image is empty'], isRefused: true },
];

/** Makes the images of {@link imageCases} in `folder`. */
export function makeImages(folder: string): void {
  const at = (name: string): string => join(folder, name);
  const files = at('files');
  mkdirSync(files);
  writeFileSync(join(files, 'A longer Name.text'), 'hello\n');
  unpackImages(folder);
  for (const name of ['exfat', 'ntfs']) writeFileSync(at(`${name}.img`), imageOf(name));
  makeIso(at('iso-plain.iso'), { folder: files });
  makeHybrid(at('iso-plain.iso'), at('iso-hybrid.iso'));
  const part = at('part');
  makeExt(part, { kind: 'ext4', folder: files, mebibytes: 8 });
  makeExt(at('ext4-bigalloc1k.img'), {
    kind: 'ext4',
    folder: files,
    mebibytes: 24,
    more: ['-b', '1024', '-O', 'bigalloc', '-C', '16384'],
  });
  makeExt(at('stale-ext-then-mbr.img'), { kind: 'ext2', folder: files, mebibytes: 16, more: ['-L', 'OLD'] });
  partition(at('stale-ext-then-mbr.img'), part);
  const volumes = [{ at: 1, path: part }];
  makeDisk(at('gpt.img'), {
    mebibytes: 16,
    table: 'label: gpt\nstart=1MiB, size=8MiB, type=L, name="rootfs"\n',
    volumes,
  });
  copyFileSync(at('gpt.img'), at('gpt-nombr.img'));
  overwrite(at('gpt-nombr.img'), new Uint8Array(512), 0);
  execFileSync('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', at('gpt.img'), at('disk.qcow2')]);
  execFileSync('qemu-img', ['convert', '-f', 'raw', '-O', 'vdi', part, at('vdi.img')]);
  writeFileSync(at('gz.img'), gzipSync(readFileSync(part), { level: 1 }));
  writeFileSync(at('html.img'), `<!doctype html><title>Sign in</title>${'<p>hello\n'.repeat(2000)}`);
  writeFileSync(at('empty.img'), '');
}

function unpackImages(folder: string): void {
  for (const name of readdirSync(FIXTURES).filter((file) => file.endsWith('.xz'))) {
    const path = join(folder, name.replace(/\.xz$/, ''));
    writeSparse(path, execFileSync('xz', ['-dc', join(FIXTURES, name)], { maxBuffer: 2 ** 28 }));
  }
}

/** Writes a file without its zeros: the images are hundreds of MiB, nearly all of them zeros. */
function writeSparse(path: string, bytes: Buffer): void {
  const zeros = Buffer.alloc(PIECE_BYTES);
  const file = openSync(path, 'w');
  for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
    const piece = bytes.subarray(at, at + PIECE_BYTES);
    if (!piece.equals(zeros.subarray(0, piece.length))) writeSync(file, piece, 0, piece.length, at);
  }
  closeSync(file);
  truncateSync(path, bytes.length);
}

/** Adds an MBR with one entry of type 0x17 over the whole image, as isohybrid does. */
function makeHybrid(plain: string, hybrid: string): void {
  copyFileSync(plain, hybrid);
  truncateSync(hybrid, 2 ** 22);
  const sector = new Uint8Array(512);
  sector.set([0x80, 0, 1, 0, 0x17, 0xfe, 0xff, 0xff, 0, 0, 0, 0, 0, 0x20, 0, 0], 446);
  sector.set([0x55, 0xaa], 510);
  overwrite(hybrid, sector, 0);
}

/** Writes an MBR into the first sector of a volume, and another volume into its partition. */
function partition(whole: string, part: string): void {
  const sector = new Uint8Array(512);
  sector.set([0, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 0x40, 0, 0], 446);
  sector.set([0x55, 0xaa], 510);
  overwrite(whole, sector, 0);
  overwrite(whole, readFileSync(part), 2 ** 20);
}

function overwrite(path: string, bytes: Uint8Array, at: number): void {
  const file = openSync(path, 'r+');
  writeSync(file, bytes, 0, bytes.length, at);
  closeSync(file);
}
