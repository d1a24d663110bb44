/** The signatures of formats that the page names and cannot browse. */

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { findVolume, readDisk } from '../../src/web/volumes/disk.ts';
import { recognize } from '../../src/web/volumes/signatures.ts';
import { arrayBytes } from '../support/volumes.ts';

const MIB = 2 ** 20;

/** A disk of zeros, with bytes at some offsets. Text is Latin-1. */
function diskOf(pieces: Readonly<Record<number, string>>, size = 2 * MIB): ReturnType<typeof arrayBytes> {
  const bytes = new Uint8Array(size);
  for (const [at, piece] of Object.entries(pieces))
    bytes.set(
      Array.from(piece, (character) => character.charCodeAt(0)),
      Number(at),
    );
  return arrayBytes(bytes);
}

const RAID = '\xfc\x4e\x2b\xa9';
/** Offset of a superblock of md 1.0 on 2 MiB, in sectors. */
const LATE = (2 * MIB - 8192) / 512;
const POOL = '\0\0\0\x20\0\0\0\x20\0\0\0\x04name\0\0\0\x09\0\0\0\x01\0\0\0\x04tank';

test.each([
  ['BitLocker', '', { 3: '-FVE-FS-' }],
  ['ReFS', '', { 3: 'ReFS\0\0\0\0' }],
  ['LUKS', 'vault', { 0: 'LUKS\xba\xbe\0\x02', 24: 'vault' }],
  ['LUKS', '', { 0: 'LUKS\xba\xbe\0\x01', 24: 'aes' }],
  ['Linux LVM', '', { 512: 'LABELONE' }],
  ['XFS', 'data', { 0: 'XFSB', 108: 'data' }],
  ['Btrfs', 'pool', { 65600: '_BHRfS_M', 65835: 'pool' }],
  ['F2FS', 'phone', { 1024: '\x10\x20\xf5\xf2', 1148: 'p\0h\0o\0n\0e\0' }],
  ['bcachefs', 'b', { 4120: '\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81', 4168: 'b' }],
  ['ReiserFS', 'old', { 65588: 'ReIsEr2Fs', 65636: 'old' }],
  ['SquashFS', '', { 0: 'hsqs' }],
  ['EROFS', 'system', { 1024: '\xe2\xe1\xf5\xe0', 1088: 'system' }],
  ['cramfs', 'router', { 16: 'Compressed ROMFS', 48: 'router' }],
  ['APFS', '', { 32: 'NXSB' }],
  ['UFS', 'bsd', { 66908: '\x19\x01\x54\x19', 66216: 'bsd' }],
  ['VMFS', '', { [MIB]: '\x0d\xd0\x01\xc0' }],
  ['HFS+', '', { 1024: 'H+\0\x04' }],
  ['HFS+', 'Wrapper', { 1024: 'BD', 1044: '\0\0\x10\0', 1060: '\x07Wrapper', 1148: 'H+' }],
  ['Linux RAID (md 1.1)', 'host:0', { 0: `${RAID}\x01`, 32: 'host:0' }],
  [
    'Linux RAID (md 1.0)',
    'host:1',
    { [LATE * 512]: `${RAID}\x01`, [LATE * 512 + 32]: 'host:1', [LATE * 512 + 144]: '\xf0\x0f' },
  ],
  ['Linux RAID (md 0.90)', '', { [2 * MIB - 65_536]: RAID }],
  ['ZFS', 'tank', { 16384: '\x01\x01', 16395: '\x01', 16400: '\0\0\0\x07version\0', 16420: POOL }],
  ['ZFS', '', { [2 ** 17 + 4096]: '\0\0\0\0\0\xba\xb1\x0c' }],
  ...[4096, 8192, 16_384, 32_768].map(
    (page) => ['Linux swap', 'spare', { [page - 10]: 'SWAPSPACE2', 1052: 'spare' }] as const,
  ),
] as const)('%s “%s” is recognized', async (kind, label, pieces) => {
  expect(await recognize(diskOf(pieces))).toEqual({ kind, label });
});

test('a member of a RAID at the end of a partition does not make the disk one', async () => {
  const inPartition = { [LATE * 512]: `${RAID}\x01`, [LATE * 512 + 144]: '\xf0\x07' };
  expect(await recognize(diskOf(inPartition))).toBeUndefined();
});

test('a blank disk is unknown and begins with zeros', async () => {
  const disk = diskOf({});
  const { table, parts } = await readDisk(disk);
  expect(table).toBeUndefined();
  expect(await findVolume(disk, parts[0]!)).toMatchObject({ reason: 'unknown contents, which begin with zeros' });
});

test('an Apple partition map is read as far as it is sound', async () => {
  const entry = (count: string, start: string): string => `PM\0\0\0\0\0${count}\0\0${start}\0\0\x01\0`;
  const disk = diskOf({
    0: 'ER',
    512: entry('\x03', '\0\x01'),
    560: 'Apple_partition_map',
    1024: entry('\x03', '\x08\0'),
    1072: 'Apple_HFS',
  });
  const { table, parts } = await readDisk(disk);
  expect(table).toMatchObject({ kind: 'Apple partition map', remark: 'the partition map is damaged' });
  expect(parts.map(({ number, start, size, type }) => [number, start, size, type])).toEqual([
    [1, 512, 131_072, 'partition map'],
    [2, MIB, 131_072, 'Apple HFS'],
  ]);
});

test('arbitrary bytes behind any signature end with a name or without one', async () => {
  const marks = [
    'BD',
    'H+\0\x04',
    `${RAID}\x01`,
    'ER',
    'PM',
    '\x01BEA01',
    '\x01NSR02',
    'CD001',
    '\x01\x01\0\0\0\0\0\0\0\0\0\x01',
  ];
  const places = [0, 512, 1024, 4096, 16_384, 32_768, 34_816, 131_072];
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.constantFrom(...places), fc.constantFrom(...marks), fc.uint8Array({ maxLength: 300 }))),
      async (pieces) => {
        const bytes = new Uint8Array(MIB + 512);
        for (const [at, mark, rest] of pieces) {
          bytes.set(
            Array.from(mark, (character) => character.charCodeAt(0)),
            at,
          );
          bytes.set(rest, at + mark.length);
        }
        const disk = arrayBytes(bytes);
        for (const part of (await readDisk(disk)).parts) await findVolume(disk, part);
        expect(disk.bytesRead).toBeLessThan(2 ** 24);
      },
    ),
    { numRuns: 200 },
  );
});
