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
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
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

/** Text that gzip compresses well and that is different in each block. */
function textOf(/** @type {string} */ name, /** @type {number} */ bytes) {
  const lines = Array.from({ length: Math.ceil(bytes / 16) }, (_, index) => `${name} ${index}`.padEnd(15).slice(-15));
  return Buffer.from(lines.map((line) => `${line}\n`).join('')).subarray(0, bytes);
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

/** @typedef {{ path: string, kind: string, size?: number, changed?: number, sha256?: string, target?: string }} Fact */

/** What the program that mounts the volume reads from it. */
function factsOf(/** @type {string} */ mounted) {
  /** @type {Fact[]} */
  const facts = [];
  const visit = (/** @type {string} */ path) => {
    for (const name of readdirSync(join(mounted, path)).sort()) {
      const own = path === '' ? name : `${path}/${name}`;
      const stat = lstatSync(join(mounted, own));
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
        facts.push({ path: own, kind: 'file', size: stat.size, changed: Math.floor(stat.mtimeMs), sha256 });
      }
    }
  };
  visit('');
  return facts;
}

/**
 * Makes one image: formats it, fills it, and records what is read after it was mounted again.
 * @param {string} name
 * @param {{ kibibytes: number, format: readonly string[], mount: readonly string[], fill: (mounted: string) => void }} how
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
    const facts = factsOf(mounted).map((fact) => JSON.stringify(fact));
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
    return 0;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
});
