/** Containers and archives are refused, and disks are not. */

import { execFileSync } from 'node:child_process';
import { closeSync, ftruncateSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startRangeServer } from '../../src/cli/demo/range-server.ts';
import { bytesSource } from '../../src/sources/bytes.ts';
import { fileSource } from '../../src/sources/file.ts';
import { formatOf } from '../../src/sources/format.ts';
import { httpSource } from '../../src/sources/http/source.ts';
import { imageSource } from '../../src/sources/image.ts';
import { seededRandom } from '../../src/testing/random.ts';
import { describeWith, toolPath } from '../support/tools.ts';
import { tinyImage } from './qcow2/tiny-image.ts';

const SIZE = 4 << 20;
const random: Uint8Array = seededRandom(1).fill(new Uint8Array(SIZE));

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'cod-format-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

function run(tool: string, ...args: readonly string[]): void {
  execFileSync(toolPath(tool)!, args, { stdio: 'pipe', cwd: folder });
}

/** Makes a sparse file. */
function blank(name: string, size: number): string {
  const path = join(folder, name);
  const file = openSync(path, 'w');
  ftruncateSync(file, size);
  closeSync(file);
  return path;
}

async function expectRefused(bytes: Uint8Array, format: RegExp, remedy: RegExp): Promise<void> {
  const source = bytesSource(bytes);
  const refused = { code: 'COD_UNSUPPORTED', message: expect.stringMatching(format) };
  await expect(imageSource(source)).rejects.toMatchObject(refused);
  await expect(imageSource(source)).rejects.toMatchObject({ message: expect.stringMatching(remedy) });
  // Its bytes are used if the caller says so.
  expect(await imageSource(source, { format: 'raw' })).toBe(source);
}

const sector = (text: string, at = 0, length = 512): Buffer => {
  const bytes = Buffer.from(random.subarray(0, length));
  bytes.write(text, at, 'latin1');
  return bytes;
};

describe('a signature is refused with the format and the remedy', () => {
  it.each<[string, Uint8Array, RegExp, RegExp]>([
    ['VMDK', sector('KDMV\x01\0\0\0'), /VMDK/, /qemu-img convert -f vmdk/],
    ['VMDK, descriptor', sector('# Disk DescriptorFile\n'), /VMDK/, /qemu-img convert -f vmdk/],
    ['VHD, dynamic', sector('conectix'), /VHD/, /qemu-img convert -f vpc/],
    ['VHDX', sector('vhdxfile'), /VHDX/, /-f vhdx/],
    ['VDI', sector('\x7f\x10\xda\xbe\x01\0\x01\0', 64), /VDI/, /-f vdi/],
    ['QED', sector('QED\0'), /QED/, /-f qed/],
    ['qcow 1', sector('QFI\xfb\0\0\0\x01'), /version 1/, /-f qcow /],
    ['UDIF', sector('koly\0\0\0\x04\0\0\x02\0', 512, 1024), /Apple/, /-f dmg/],
    ['gzip', gzipSync(random.subarray(0, 5000)), /gzip/, /gunzip/],
    ['xz', sector('\xfd7zXZ\0'), /xz/, /xz -d/],
    ['zstd', sector('(\xb5/\xfd'), /zstd/, /zstd -d/],
    ['bzip2', sector('BZh91AY&SY'), /bzip2/, /bunzip2/],
    ['lz4', sector('\x04"M\x18'), /lz4/, /lz4 -d/],
    ['ZIP', sector('PK\x03\x04'), /ZIP/, /unzip/],
    ['7z', sector("7z\xbc\xaf'\x1c"), /7z/, /7z x/],
    ['WIM', sector('MSWIM\0\0\0'), /WIM/, /wimlib/],
    ['Android', sector(':\xff&\xed\x01\0'), /Android/, /simg2img/],
    ['HTML', Buffer.from('\n<!DOCTYPE html>\n<title>Sign in</title>'), /HTML/, /address/],
    ['HTML behind a comment', Buffer.from('\ufeff<!-- 1 -->\n<html lang="en">'), /HTML/, /address/],
    ['JSON', Buffer.from('{"message":"no such image"}'), /JSON/, /address/],
    ['XML', Buffer.from('<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>'), /XML/, /address/],
  ])('%s', (_, bytes, format, remedy) => expectRefused(bytes, format, remedy));
});

describe.each<[tool: string, args: string[], format: RegExp]>([
  ['qemu-img', ['-O', 'vmdk'], /VMDK/],
  ['qemu-img', ['-O', 'vmdk', '-o', 'subformat=streamOptimized'], /VMDK/],
  ['qemu-img', ['-O', 'vdi'], /VDI/],
  ['qemu-img', ['-O', 'vpc'], /VHD/],
  ['qemu-img', ['-O', 'vpc', '-o', 'subformat=fixed'], /VHD/],
  ['qemu-img', ['-O', 'vhdx'], /VHDX/],
  ['qemu-img', ['-O', 'qed'], /QED/],
  ['qemu-img', ['-O', 'parallels'], /Parallels/],
  ['qemu-img', ['-O', 'qcow'], /version 1/],
])('%s convert %s', (tool, args, format) => {
  describeWith([tool], 'makes an image', () => {
    it('that is refused', async () => {
      writeFileSync(join(folder, 'raw'), random);
      run(tool, 'convert', '-f', 'raw', ...args, 'raw', 'image');
      await expectRefused(readFileSync(join(folder, 'image')), format, /qemu-img convert/);
    });
  });
});

describe('the type that a server names', () => {
  /** Resolves to the format of a file on a server. */
  async function formatFrom(bytes: Uint8Array, type: string): Promise<string> {
    const server = await startRangeServer({
      size: bytes.length,
      etag: '"1"',
      headers: { 'content-type': type },
      read: async (into, offset) => into.set(bytes.subarray(offset, offset + into.length)),
    });
    try {
      const source = await httpSource(server.url, { retry: { attempts: 1 } });
      return await formatOf(source).finally(() => source.close());
    } finally {
      await server.close();
    }
  }

  const text = Buffer.from('Your session has ended.\n');
  const oldTar = sector('disk.raw\0');

  it.each<[string, Uint8Array, RegExp]>([
    ['text/html', text, /HTML/],
    ['text/html; charset=utf-8', text, /HTML/],
    ['application/xhtml+xml', text, /HTML/],
    ['application/xml', text, /XML/],
    ['text/xml', text, /XML/],
    ['application/json', text, /JSON/],
    ['application/problem+json', text, /JSON/],
    ['application/x-tar', oldTar, /tar archive/],
    ['application/x-lzma', sector(']\0\0\x80'), /lzma.*unlzma/],
    ['application/x-compress', sector('\x1f\x9d'), /uncompress/],
    ['application/x-cpio', sector('070701'), /cpio/],
    ['application/zip', sector('MZ'), /ZIP/],
  ])('%s is refused where the bytes do not tell', async (type, bytes, format) => {
    const refused = { code: 'COD_UNSUPPORTED', message: expect.stringMatching(format) };
    await expect(formatFrom(bytes, type)).rejects.toMatchObject(refused);
  });

  it.each<[string, Uint8Array]>([
    ['text/html', new Uint8Array(4096)],
    ['text/html', random.subarray(0, 4096)],
    ['application/x-tar', new Uint8Array(4096)],
    ['application/zip', sector('\x55\xaa', 510, 4096)],
    ['application/gzip', random.subarray(0, 4096)],
    ['application/octet-stream', oldTar],
    ['text/plain', text],
    ['application/x-raw-disk-image', oldTar],
  ])('%s is wrong about a disk', async (type, bytes) => {
    expect(await formatFrom(bytes, type)).toBe('raw');
  });

  it('does not hide a qcow2 image', async () => {
    expect(await formatFrom(tinyImage().bytes, 'text/html')).toBe('qcow2');
  });
});

describe('the last bytes', () => {
  /** The end of an archive whose directory is `directory` bytes at `offset`. */
  const zipEnd = (size: number, directory: number, offset: number): Buffer => {
    const bytes = sector('MZ', 0, size);
    bytes.write('PK\x05\x06', size - 22, 'latin1');
    bytes.writeUInt32LE(directory, size - 10);
    bytes.writeUInt32LE(offset, size - 6);
    return bytes;
  };

  it('tell a ZIP archive behind a program', () => expectRefused(zipEnd(4096, 100, 3974), /ZIP/, /unzip/));

  it('are not an archive’s if its directory is elsewhere', async () => {
    expect(await formatOf(bytesSource(zipEnd(4096, 100, 3000)))).toBe('raw');
  });
});

describeWith(['tar'], 'tar', () => {
  it.each(['gnu', 'ustar', 'pax'])('makes an archive of format %s that is refused', async (format) => {
    writeFileSync(join(folder, 'raw'), random);
    run('tar', `--format=${format}`, '-cf', 'archive', 'raw');
    await expectRefused(readFileSync(join(folder, 'archive')), /tar/, /tar -xf/);
  });
});

it('a qcow2 image becomes its disk', async () => {
  const { bytes, disk } = tinyImage();
  const source = await imageSource(bytesSource(bytes));
  expect(source.size).toBe(disk.length);
});

it('looks at the first bytes only if the last ones are expensive', async () => {
  const bytes = sector('koly\0\0\0\x04\0\0\x02\0', 512, 1024);
  expect(await formatOf(bytesSource(bytes), { headOnly: true })).toBe('raw');
});

describe('a disk is not refused:', () => {
  const disks: [string, () => Uint8Array][] = [
    ['nothing', () => new Uint8Array(0)],
    ['one byte', () => Uint8Array.of(0x1f)],
    ['zeros', () => new Uint8Array(SIZE)],
    ['random bytes', () => random],
    ['the word ustar without its sum', () => sector('ustar\x0000', 257, 4096)],
    ['the word conectix at the end without its sum', () => sector('conectix', 3584, 4096)],
    ['an image in its second partition', () => sector('KDMV\x01\0\0\0', 1024, 4096)],
    ['a text that is no page', () => Buffer.from('<root> of a data disk\n'.repeat(100))],
    ['a page behind a boot sector', () => sector('\x33\xc0<html>', 0, 4096)],
  ];
  it.each(disks)('%s', async (_, make) => {
    expect(await formatOf(bytesSource(make()))).toBe('raw');
  });

  it.each<[string, string, number]>([
    ['LUKS', 'LUKS\xba\xbe\0\x01', 0],
    ['squashfs', 'hsqs', 0],
    ['a hybrid ISO 9660', '\x01CD001\x01', 32_768],
    ['LVM', 'LABELONE', 512],
  ])('%s', async (_, magic, at) => {
    const bytes = new Uint8Array(1 << 20);
    bytes.set(Buffer.from(magic, 'latin1'), at);
    expect(await formatOf(bytesSource(bytes))).toBe('raw');
  });

  const table = (path: string, input: string): void =>
    void execFileSync(toolPath('sfdisk')!, ['-q', path], { input, stdio: 'pipe' });
  const made: [tool: string, name: string, mebibytes: number, make: (path: string) => void][] = [
    ['mke2fs', 'ext4', 16, (path) => run('mke2fs', '-q', '-F', '-t', 'ext4', path)],
    ['mkfs.fat', 'FAT', 16, (path) => run('mkfs.fat', path)],
    ['mkfs.xfs', 'XFS', 320, (path) => run('mkfs.xfs', '-q', '-f', path)],
    ['mkfs.btrfs', 'btrfs', 128, (path) => run('mkfs.btrfs', '-q', '-f', path)],
    ['mkswap', 'swap', 16, (path) => run('mkswap', path)],
    ['sfdisk', 'MBR', 16, (path) => table(path, 'label: dos\n,1M\n,,L,*\n')],
    ['sfdisk', 'GPT', 16, (path) => table(path, 'label: gpt\n,1M\n')],
  ];
  for (const [tool, name, mebibytes, make] of made) {
    describeWith([tool], tool, () => {
      it(`a disk with ${name}`, async () => {
        const path = blank(`disk of ${name}`, mebibytes << 20);
        make(path);
        await using source = await fileSource(path);
        expect(await formatOf(source)).toBe('raw');
      });
    });
  }

  it('20,000 sectors of random bytes', async () => {
    const stream = seededRandom(2);
    for (let round = 0; round < 20_000; round++)
      expect(await formatOf(bytesSource(stream.fill(new Uint8Array(512))))).toBe('raw');
  });
});
