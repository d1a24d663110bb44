/**
 * `node scripts/volume-fixtures.mjs`: makes test/fixtures/volumes, images of exFAT and NTFS that other programs wrote,
 * with what those programs read from them.
 *
 * Needs root, /dev/fuse, and Debian's packages exfatprogs, exfat-fuse, ntfs-3g and attr.
 */
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  ftruncateSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { root, say, script } from './lib/steps.mjs';

const folder = join(root, 'test', 'fixtures', 'volumes');
const work = mkdtempSync(join(tmpdir(), 'cod-volumes-'));
const KIB = 1024;
const CHANGED = new Date('2024-02-29T12:34:56Z');
const LONG_NAME = `${'Long nämé 😀 '.repeat(19)}end.txt`;

/** @param {string} program @param {readonly string[]} args */
function run(program, ...args) {
  const env = { ...process.env, TZ: 'UTC' };
  return execFileSync(program, args, { stdio: ['ignore', 'pipe', 'pipe'], encoding: 'utf8', env });
}

/** Text that gzip compresses well and that is different in each 512 bytes. */
function textOf(/** @type {string} */ name, /** @type {number} */ bytes) {
  const lines = Array.from({ length: Math.ceil(bytes / 512) }, (_, index) =>
    `${`${name} ${index}`.padEnd(31).slice(-31)}\n`.repeat(16),
  );
  return Buffer.from(lines.join('')).subarray(0, bytes);
}

/** Writes files by turns in small pieces, so that each of them is in many pieces on the volume. */
function interleave(/** @type {readonly string[]} */ paths, /** @type {number} */ bytes, /** @type {number} */ piece) {
  const files = paths.map((path) => openSync(path, 'w'));
  for (let at = 0; at < bytes; at += piece) {
    for (const [index, file] of files.entries())
      writeSync(file, textOf(`turn ${index}`, bytes), at, Math.min(piece, bytes - at), at);
  }
  files.forEach(closeSync);
}

/** The files that every volume has. */
function fill(/** @type {string} */ mounted, /** @type {{ many: number, piece: number, bytes: number }} */ sizes) {
  mkdirSync(join(mounted, 'docs', 'deeper'), { recursive: true });
  mkdirSync(join(mounted, 'many'));
  mkdirSync(join(mounted, 'nothing'));
  writeFileSync(join(mounted, 'licence.txt'), 'Copying is fine.\n');
  writeFileSync(join(mounted, 'empty'), '');
  writeFileSync(join(mounted, LONG_NAME), 'long');
  writeFileSync(join(mounted, '\ufeffmark 名前.txt'), 'mark');
  writeFileSync(join(mounted, 'docs', 'deeper', 'note.md'), textOf('note', 20 * KIB + 3));
  interleave(
    ['first', 'second'].map((name) => join(mounted, `${name} in pieces`)),
    sizes.bytes,
    sizes.piece,
  );
  for (let index = 0; index < sizes.many; index++) {
    const contents = index % 10 === 0 ? `This is ${index}.\n` : '';
    writeFileSync(join(mounted, 'many', `file number ${index}.txt`), contents);
  }
  for (let index = 0; index < sizes.many; index += 7) rmSync(join(mounted, 'many', `file number ${index}.txt`));
  utimesSync(join(mounted, 'licence.txt'), CHANGED, CHANGED);
}

/** What only NTFS has here: links, holes, streams and compression. */
function fillNtfs(/** @type {string} */ mounted) {
  symlinkSync('docs/deeper/note.md', join(mounted, 'link'));
  linkSync(join(mounted, 'licence.txt'), join(mounted, 'docs', 'other name.txt'));
  writeFileSync(join(mounted, 'licence.txt:stream'), textOf('stream', 5000));
  const sparse = openSync(join(mounted, 'sparse'), 'w');
  writeSync(sparse, 'begin', 0);
  writeSync(sparse, 'middle', 3_000_000);
  ftruncateSync(sparse, 7_000_000);
  closeSync(sparse);
  const packed = join(mounted, 'packed');
  mkdirSync(packed);
  // 0x810: a directory, whose new files are compressed.
  run('setfattr', '-h', '-v', '0x10080000', '-n', 'system.ntfs_attrib', packed);
  writeFileSync(join(packed, 'text'), textOf('packed', 300_000));
  writeFileSync(join(packed, 'short'), textOf('short', 5000));
  const digests = Array.from({ length: 2100 }, (_, index) => createHash('sha256').update(`${index}`).digest());
  const random = Buffer.concat(digests).subarray(0, 66_000);
  const mixed = [textOf('a', 65_536), random, Buffer.alloc(200_000), textOf('b', 999)];
  writeFileSync(join(packed, 'mixed'), Buffer.concat(mixed));
}

/** Reparse points as Windows makes them, which ntfs-3g shows in its own way. */
function addReparsePoints(/** @type {string} */ mounted) {
  const folder = join(mounted, 'reparse');
  mkdirSync(folder);
  const add = (/** @type {string} */ name, /** @type {number} */ tag, /** @type {Buffer} */ data) => {
    const header = Buffer.alloc(8);
    header.writeUInt32LE(tag);
    header.writeUInt16LE(data.length, 4);
    const value = `0x${Buffer.concat([header, data]).toString('hex')}`;
    run('setfattr', '-h', '-v', value, '-n', 'system.ntfs_reparse_data', join(folder, name));
  };
  /** Two names, of which the second is shown, behind their places. */
  const names = (/** @type {string} */ first, /** @type {string} */ second, /** @type {number} */ more) => {
    const places = Buffer.alloc(8 + more);
    places.writeUInt16LE(first.length * 2, 2);
    places.writeUInt16LE(first.length * 2, 4);
    places.writeUInt16LE(second.length * 2, 6);
    // For a symbolic link: its target is relative.
    if (more > 0) places[8] = 1;
    return Buffer.concat([places, Buffer.from(first + second, 'utf16le')]);
  };
  mkdirSync(join(folder, 'junction'));
  add('junction', 0xa0000003, names('\\??\\C:\\Users', 'C:\\Users', 0));
  for (const name of ['link', 'linux link', 'system file']) writeFileSync(join(folder, name), '');
  add('link', 0xa000000c, names('..\\licence.txt', '', 4));
  add('linux link', 0xa000001d, Buffer.from('\u0002\0\0\0/usr/bin'));
  add('system file', 0x80000017, Buffer.alloc(16, 1));
}

/** Fills a volume, so that the table of files grows in pieces. Then writes a file with hundreds of holes. */
function fragment(/** @type {string} */ mounted, /** @type {number} */ clusterBytes) {
  const filler = join(mounted, 'filler');
  mkdirSync(filler);
  try {
    for (let count = 0; ; count++) writeFileSync(join(filler, `${count}`), Buffer.alloc(2 * clusterBytes, 1));
  } catch (error) {
    if (/** @type {NodeJS.ErrnoException} */ (error).code !== 'ENOSPC') throw error;
  }
  rmSync(filler, { recursive: true });
  const holes = openSync(join(mounted, 'in many pieces'), 'w');
  for (let index = 0; index < 400; index++)
    writeSync(holes, textOf(`hole ${index}`, clusterBytes), 0, clusterBytes, 3 * index * clusterBytes);
  closeSync(holes);
}

/** @typedef {{ path: string, kind: string, size?: number, changed?: number, sha256?: string, target?: string }} Fact */

/** What the program that mounts the volume reads from it. */
function factsOf(/** @type {string} */ mounted) {
  /** @type {Fact[]} */
  const facts = [];
  const visit = (/** @type {string} */ path) => {
    for (const name of readdirSync(join(mounted, path)).sort()) {
      const own = path === '' ? name : `${path}/${name}`;
      const stat = lstatSync(join(mounted, own), { bigint: true });
      if (stat.isDirectory()) {
        facts.push({ path: own, kind: 'directory' });
        visit(own);
      } else if (stat.isSymbolicLink())
        facts.push({ path: own, kind: 'link', target: readlinkSync(join(mounted, own)) });
      else {
        const sha256 = createHash('sha256')
          .update(readFileSync(join(mounted, own)))
          .digest('hex')
          .slice(0, 16);
        facts.push({
          path: own,
          kind: 'file',
          size: Number(stat.size),
          changed: Number(stat.mtimeNs / 1_000_000n),
          sha256,
        });
      }
    }
  };
  visit('');
  return facts;
}

/**
 * Makes one image: formats it, fills it, and records what is read after it was mounted again.
 * @param {string} name
 * @param {{
 *   kibibytes: number, format: readonly string[], mount: readonly string[], fill: (mounted: string) => void
 * }} how
 */
function make(name, { kibibytes, format, mount, fill }) {
  const image = join(work, `${name}.img`);
  const mounted = join(work, name);
  mkdirSync(mounted);
  writeFileSync(image, '');
  truncateSync(image, kibibytes * KIB);
  const [formatter, ...formatOptions] = format;
  const [mounter, ...mountOptions] = mount;
  const whileMounted = (/** @type {(mounted: string) => void} */ body) => {
    const device = run('losetup', '--find', '--show', image).trim();
    try {
      run(/** @type {string} */ (mounter), ...mountOptions, device, mounted);
      try {
        body(mounted);
      } finally {
        run('umount', mounted);
      }
    } finally {
      run('losetup', '--detach', device);
    }
  };
  run(/** @type {string} */ (formatter), ...formatOptions, image);
  whileMounted(fill);
  whileMounted(() => {
    const facts = factsOf(mounted)
      .filter(({ path }) => !path.startsWith('reparse'))
      .map((fact) => JSON.stringify(fact));
    writeFileSync(join(folder, `${name}.json`), `[\n${facts.join(',\n')}\n]\n`);
  });
  const packed = gzipSync(readFileSync(image), { level: 9 });
  writeFileSync(join(folder, `${name}.img.gz`), packed);
  say(`${name}: ${Math.round(packed.length / KIB)} KiB`);
}

await script(async () => {
  mkdirSync(folder, { recursive: true });
  try {
    make('exfat', {
      kibibytes: 4096,
      format: ['mkfs.exfat', '-c', '512', '-L', 'PEBBLES ü'],
      mount: ['mount.exfat-fuse'],
      fill: (mounted) => fill(mounted, { many: 400, piece: 1024, bytes: 100_001 }),
    });
    make('exfat-large-clusters', {
      kibibytes: 4096,
      format: ['mkfs.exfat', '-c', '65536'],
      mount: ['mount.exfat-fuse'],
      fill: (mounted) => fill(mounted, { many: 30, piece: 65_536, bytes: 300_001 }),
    });
    const ntfs = ['mkfs.ntfs', '-q', '-f', '-F', '-T'];
    const mount = ['ntfs-3g', '-o', 'streams_interface=windows,compression'];
    make('ntfs', {
      kibibytes: 12_288,
      format: [...ntfs, '-c', '4096', '-L', 'PEBBLES ü'],
      mount,
      fill: (mounted) => {
        fill(mounted, { many: 500, piece: 4096, bytes: 600_001 });
        fillNtfs(mounted);
        addReparsePoints(mounted);
      },
    });
    make('ntfs-small-clusters', {
      kibibytes: 3072,
      format: [...ntfs, '-c', '512'],
      mount,
      fill: (mounted) => {
        fill(mounted, { many: 300, piece: 512, bytes: 60_001 });
        fragment(mounted, 512);
      },
    });
    make('ntfs-large-clusters', {
      kibibytes: 8192,
      format: [...ntfs, '-c', '65536'],
      mount,
      fill: (mounted) => fill(mounted, { many: 100, piece: 65_536, bytes: 300_001 }),
    });
    make('ntfs-4k-sectors', {
      kibibytes: 4096,
      format: [...ntfs, '-s', '4096', '-c', '4096'],
      mount,
      fill: (mounted) => {
        fill(mounted, { many: 60, piece: 4096, bytes: 50_001 });
        // Of a system that was resumed. `hibr` is the mark of one that was not.
        writeFileSync(join(mounted, 'hiberfil.sys'), 'wake');
      },
    });
    return 0;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
});
