/** Makes disk images with partitions and files, by the standard programs. */

import { execFileSync } from 'node:child_process';
import {
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { seededRandom } from '../../src/testing/random.ts';
import { toolPath } from './tools.ts';

/** The programs that the functions below need. */
export const imageTools: readonly string[] = ['mke2fs', 'mkfs.fat', 'mcopy', 'sfdisk'];

export const LICENCE = 'Copying is fine.\nSo is reading.\n';
/** Modification time of the file licence.txt, in ms since 1970. */
export const CHANGED_MS: number = Date.UTC(2024, 1, 29, 12, 34, 56);

function run(tool: string, args: readonly string[], input = ''): void {
  const path = toolPath(tool);
  if (path === undefined) throw new Error(`${tool} is missing`);
  execFileSync(path, args, {
    input,
    stdio: ['pipe', 'ignore', 'pipe'],
    env: { ...process.env, MTOOLS_SKIP_CHECK: '1', TZ: 'UTC' },
  });
}

/** Returns the bytes of the file `name` in the folder of {@link makeFolder}. */
export function contentsOf(name: string): Uint8Array {
  if (name === 'licence.txt') return new TextEncoder().encode(LICENCE);
  if (name === 'big.bin') return seededRandom(7).fill(new Uint8Array(3_000_017));
  if (name === 'empty') return new Uint8Array(0);
  return new TextEncoder().encode(`This is ${name}.\n`);
}

/** Makes a folder with text files, a large file, an empty file, a directory of 300 files, and optionally links. */
export function makeFolder(folder: string, options: { links: boolean }): string {
  mkdirSync(join(folder, 'docs', 'deeper'), { recursive: true });
  mkdirSync(join(folder, 'many'));
  for (const name of ['licence.txt', 'big.bin', 'empty', 'A longer name, with ümläuts.txt'])
    writeFileSync(join(folder, name), contentsOf(name));
  writeFileSync(join(folder, 'docs', 'deeper', 'note.md'), contentsOf('note.md'));
  for (let index = 0; index < 300; index++)
    writeFileSync(join(folder, 'many', `file number ${index}.txt`), contentsOf(`${index}`));
  utimesSync(join(folder, 'licence.txt'), CHANGED_MS / 1000, CHANGED_MS / 1000);
  if (options.links) {
    symlinkSync('docs/deeper/note.md', join(folder, 'short link'));
    symlinkSync(`${'docs/../'.repeat(10)}licence.txt`, join(folder, 'long link'));
    const sparse = openSync(join(folder, 'sparse'), 'w');
    writeSync(sparse, 'begin', 0);
    writeSync(sparse, 'end', 5_000_000);
    closeSync(sparse);
  }
  return folder;
}

/** Makes an ext2, ext3 or ext4 volume with the files of a folder. */
export function makeExt(
  path: string,
  options: { kind: 'ext2' | 'ext3' | 'ext4'; folder: string; mebibytes: number; more?: readonly string[] },
): void {
  const { kind, folder, mebibytes, more = [] } = options;
  run('mke2fs', ['-q', '-F', '-t', kind, '-d', folder, '-L', 'stones', ...more, path, `${mebibytes}M`]);
}

/** Makes a FAT volume with the files of a folder. */
export function makeFat(
  path: string,
  options: { bits: 12 | 16 | 32; folder: string; mebibytes: number; more?: readonly string[] },
): void {
  const { bits, folder, mebibytes, more = [] } = options;
  writeFileSync(path, '');
  truncateSync(path, mebibytes * 2 ** 20);
  run('mkfs.fat', ['-F', String(bits), '-n', 'PEBBLES', ...more, path]);
  const names = ['docs', 'many', 'licence.txt', 'big.bin', 'empty', 'A longer name, with ümläuts.txt'];
  run('mcopy', ['-Q', '-s', '-m', '-i', path, ...names.map((name) => join(folder, name)), '::']);
}

/** Makes an ISO 9660 image of a folder. `more` chooses its long names: `-R` is Rock Ridge, `-J` is Joliet. */
export function makeIso(path: string, options: { folder: string; more?: readonly string[] }): void {
  const { folder, more = ['-R', '-J'] } = options;
  run('genisoimage', ['-quiet', '-input-charset', 'utf-8', '-V', 'PEBBLES', ...more, '-o', path, folder]);
}

/** Makes a disk with volumes at offsets in MiB. `table` is a script for sfdisk. */
export function makeDisk(
  path: string,
  options: { mebibytes: number; table: string; volumes: readonly { at: number; path: string }[] },
): void {
  const { mebibytes, table, volumes } = options;
  writeFileSync(path, '');
  truncateSync(path, mebibytes * 2 ** 20);
  run('sfdisk', ['-q', '--no-reread', '--no-tell-kernel', path], table);
  const file = openSync(path, 'r+');
  for (const volume of volumes) writeSync(file, readFileSync(volume.path), 0, undefined, volume.at * 2 ** 20);
  closeSync(file);
}
