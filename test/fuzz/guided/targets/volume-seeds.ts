/** Images that standard programs make, as far as the readers look at them. */

import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { type Bytes, checkRange, VolumeError } from '../../../../src/web/volumes/bytes.ts';
import { makeDisk, makeExt, makeFat, makeFolder, makeIso } from '../../../support/disk-images.ts';
import { visit } from '../../../support/visit-volumes.ts';
import { encodedDisk } from '../target.ts';

export type VolumeKind = 'fat' | 'exfat' | 'ntfs' | 'ext' | 'iso' | 'partitions';

/** Only the sectors that a visit reads, and of them at most so many. */
const MAX_SECTORS = 64;

async function seedOf(image: Uint8Array): Promise<Uint8Array> {
  const touched = new Set<number>();
  const bytes: Bytes = {
    size: image.length,
    read: async (offset, length) => {
      checkRange(bytes, offset, length);
      for (let sector = Math.floor(offset / 512); sector * 512 < offset + length; sector++) {
        const isZero = image.subarray(sector * 512, (sector + 1) * 512).every((byte) => byte === 0);
        if (!isZero && touched.size < MAX_SECTORS) touched.add(sector);
      }
      return image.slice(offset, offset + length);
    },
  };
  await visit(bytes).catch((error) => {
    if (!(error instanceof VolumeError)) throw error;
  });
  return encodedDisk(image, (sector) => touched.has(sector));
}

function fixtures(folder: string, pattern: RegExp): Uint8Array[] {
  return readdirSync(folder)
    .filter((name) => pattern.test(name))
    .map((name) => {
      const path = join(folder, name);
      return name.endsWith('.xz')
        ? execFileSync('xz', ['-dc', path], { maxBuffer: 2 ** 30 })
        : gunzipSync(readFileSync(path));
    });
}

/** A small folder, so that a few sectors hold it. */
function smallFolder(folder: string, options: { links: boolean }): string {
  makeFolder(folder, options);
  for (let index = 8; index < 300; index++) rmSync(join(folder, 'many', `file number ${index}.txt`));
  writeFileSync(join(folder, 'big.bin'), new Uint8Array(20_000).fill(1));
  return folder;
}

function imagesOf(kind: VolumeKind, folder: string): Uint8Array[] {
  const path = join(folder, 'image');
  const make = (name: string, links: boolean): string => smallFolder(join(folder, name), { links });
  const read = (): Uint8Array => {
    const bytes = readFileSync(path);
    rmSync(path);
    return bytes;
  };
  if (kind === 'exfat') return fixtures('test/fixtures/volumes', /^exfat.*gz$/);
  if (kind === 'ntfs') return fixtures('test/fixtures/volumes', /^ntfs.*gz$/);
  mkdirSync(folder, { recursive: true });
  if (kind === 'fat') {
    const files = make('plain', false);
    const images = (
      [
        [12, 2],
        [16, 9],
        [32, 34],
      ] as const
    ).map(([bits, mebibytes]) => {
      makeFat(path, { bits, folder: files, mebibytes });
      return read();
    });
    return [...images, ...fixtures('test/fixtures/images', /^fat/)];
  }
  if (kind === 'ext') {
    const files = make('linked', true);
    const more = [[], ['-O', '^metadata_csum,64bit'], ['-O', 'inline_data', '-I', '256'], ['-b', '4096']];
    return (['ext2', 'ext3', 'ext4'] as const).flatMap((name) =>
      (name === 'ext4' ? more : more.slice(0, 1)).map((each) => {
        makeExt(path, { kind: name, folder: files, mebibytes: 8, more: each });
        return read();
      }),
    );
  }
  if (kind === 'iso') {
    const files = make('linked', true);
    return [['-R', '-J'], ['-R'], ['-J'], [], ['-R', '-J', '-udf']].map((more) => {
      makeIso(path, { folder: files, more });
      return read();
    });
  }
  const files = make('plain', false);
  const volume = join(folder, 'volume');
  makeFat(volume, { bits: 12, folder: files, mebibytes: 1 });
  const tables = [
    'label: gpt\nstart=2048,size=2048,name="one ü"\nsize=2048\n',
    'label: dos\nstart=2048,size=2048,type=c\nsize=2048,type=5\nstart=5000,size=500,type=83\nsize=500,type=82\n',
    'label: dos\nstart=2048,size=9000,type=f,bootable\n',
  ];
  const disks = tables.map((table) => {
    makeDisk(path, { mebibytes: 6, table, volumes: [{ at: 1, path: volume }] });
    return read();
  });
  return [...disks, ...fixtures('test/fixtures/images', /^(?!fat).*xz$/)];
}

/** Needs the programs of test/support/disk-images.ts, and xz. */
export async function* volumeSeeds(kind: VolumeKind): AsyncIterable<Uint8Array> {
  const folder = mkdtempSync(join(tmpdir(), 'copyondemand-seeds-'));
  try {
    for (const image of imagesOf(kind, folder)) yield await seedOf(image);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
