/** qcow2 images of all kinds, made by qemu-img and qemu-io. */

import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { seededRandom } from '../../../src/testing/random.ts';
import { toolPath } from '../../support/tools.ts';

export const qemuTools: readonly string[] = ['qemu-img', 'qemu-io'];

const MIB = 2 ** 20;
/** Not a multiple of a cluster. */
export const DISK_BYTES: number = 12 * MIB + 3 * 512;

export function qemu(tool: 'qemu-img' | 'qemu-io', ...args: readonly string[]): string {
  return execFileSync(toolPath(tool)!, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

/** A disk with random bytes, text, short and long runs of zeros. */
export function diskBytes(seed: number): Uint8Array {
  const random = seededRandom(seed);
  const bytes = new Uint8Array(DISK_BYTES);
  const text = new TextEncoder().encode('a line that packs well, and its number: ');
  const put = (offset: number, length: number, kind: 'random' | 'text'): void => {
    const part = bytes.subarray(offset, offset + length);
    if (kind === 'random') random.fill(part);
    else for (let at = 0; at < part.length; at++) part[at] = at % 251 < 40 ? text[at % 40]! : (at >> 8) & 0xff;
  };
  put(0, 300_000, 'text');
  put(MIB, MIB, 'random');
  put(2 * MIB, MIB, 'text');
  for (let at = 3 * MIB; at < 5 * MIB; at += 40_960)
    put(at, 512 + 512 * random.below(40), random.oneIn(2) ? 'text' : 'random');
  put(7 * MIB + 4096, 2 * MIB, 'text');
  put(DISK_BYTES - 70_000, 70_000, 'random');
  return bytes;
}

export interface Kind {
  readonly name: string;
  /** The zeros that qemu-img reports are those of the tables alone, not of holes in files. */
  readonly hasExactZeros: boolean;
  make(folder: string): void;
}

/** The name of the image that a kind makes in its folder. */
export const TOP = 'top.qcow2';

/** Converts a disk to an image. */
function convert(folder: string, seed: number, options: readonly string[], name: string = TOP): void {
  const raw = join(folder, `${name}.raw`);
  writeFileSync(raw, diskBytes(seed));
  qemu('qemu-img', 'convert', '-t', 'unsafe', '-f', 'raw', '-O', 'qcow2', ...options, raw, join(folder, name));
}

function create(folder: string, options: readonly string[], size: number = DISK_BYTES, name: string = TOP): void {
  qemu('qemu-img', 'create', '-q', '-f', 'qcow2', ...options, join(folder, name), String(size));
}

function io(folder: string, commands: readonly string[], name: string = TOP): void {
  qemu('qemu-io', '-t', 'unsafe', '-f', 'qcow2', ...commands.flatMap((command) => ['-c', command]), join(folder, name));
}

/** Writes in random order, as a running machine does. */
function scattered(seed: number, count: number, align = 512): string[] {
  const random = seededRandom(seed);
  const places = Math.floor(DISK_BYTES / align);
  return Array.from({ length: count }, (_, index) => {
    const at = random.below(places) * align;
    const length = Math.min(DISK_BYTES - at, align * (1 + random.below(Math.ceil(50_000 / align))));
    return random.oneIn(6) ? `write -z -u ${at} ${length}` : `write -P ${1 + (index % 255)} ${at} ${length}`;
  });
}

function converted(name: string, options: readonly string[]): Kind {
  return { name, hasExactZeros: true, make: (folder) => convert(folder, 1, options) };
}

export const kinds: readonly Kind[] = [
  converted('version 3', []),
  converted('version 2', ['-o', 'compat=0.10']),
  converted('clusters of 512 B', ['-o', 'cluster_size=512']),
  converted('clusters of 4 KiB', ['-o', 'cluster_size=4k']),
  converted('clusters of 2 MiB', ['-o', 'cluster_size=2M']),
  converted('zlib', ['-c']),
  converted('zlib, version 2', ['-c', '-o', 'compat=0.10']),
  converted('zlib, clusters of 512 B', ['-c', '-o', 'cluster_size=512']),
  converted('zlib, clusters of 2 MiB', ['-c', '-o', 'cluster_size=2M']),
  converted('zlib, out of order', ['-c', '-W', '-m', '16']),
  converted('zstd', ['-c', '-o', 'compression_type=zstd']),
  converted('zstd, clusters of 4 KiB', ['-c', '-o', 'compression_type=zstd,cluster_size=4k']),
  converted('zstd, clusters of 2 MiB', ['-c', '-o', 'compression_type=zstd,cluster_size=2M']),
  converted('subclusters', ['-o', 'extended_l2=on']),
  converted('subclusters, zlib', ['-c', '-o', 'extended_l2=on,cluster_size=128k']),
  converted('counts of 1 bit', ['-o', 'refcount_bits=1']),
  {
    name: 'subclusters of 512 B, written in parts',
    hasExactZeros: true,
    make(folder) {
      create(folder, ['-o', 'extended_l2=on,cluster_size=16k']);
      io(folder, scattered(2, 200));
    },
  },
  {
    name: 'preallocated metadata',
    hasExactZeros: false,
    make(folder) {
      create(folder, ['-o', 'preallocation=metadata']);
      io(folder, scattered(3, 40, 4096));
    },
  },
  {
    name: 'preallocated data',
    hasExactZeros: false,
    make(folder) {
      create(folder, ['-o', 'preallocation=falloc']);
      io(folder, scattered(4, 40, 4096));
    },
  },
  {
    name: 'marked as dirty',
    hasExactZeros: true,
    make(folder) {
      create(folder, ['-o', 'lazy_refcounts=on']);
      // The process aborts after the flush, so the counts of references are wrong and the tables right.
      try {
        io(folder, [...scattered(5, 60), 'flush', 'abort']);
      } catch {
        // Expected.
      }
      if ((readFileSync(join(folder, TOP))[79]! & 1) === 0) throw new Error('the image is not marked as dirty');
    },
  },
  {
    name: 'written in random order',
    hasExactZeros: true,
    make(folder) {
      create(folder, []);
      io(folder, scattered(6, 300));
    },
  },
  {
    name: 'clusters of zeros with and without room',
    hasExactZeros: true,
    make(folder) {
      convert(folder, 1, ['-c']);
      io(folder, ['write -z 0 128k', 'write -z -u 1M 192k', 'discard 2M 128k', 'write -P 9 2M 4k', 'write -z 7M 1M']);
      // A compressed cluster leaves no room behind, so these zeros have stale bytes in their room.
      io(folder, ['write -P 11 5M 256k', 'write -z 5M 128k']);
    },
  },
  {
    name: 'snapshots within',
    hasExactZeros: true,
    make(folder) {
      convert(folder, 1, []);
      qemu('qemu-img', 'snapshot', '-c', 'before', join(folder, TOP));
      io(folder, scattered(7, 50));
      qemu('qemu-img', 'snapshot', '-c', 'after', join(folder, TOP));
      io(folder, ['write -P 5 0 64k']);
    },
  },
  {
    name: 'grown',
    hasExactZeros: true,
    make(folder) {
      convert(folder, 1, ['-o', 'cluster_size=4k']);
      qemu('qemu-img', 'resize', '-q', join(folder, TOP), '40M');
      io(folder, ['write -P 7 39M 64k']);
    },
  },
  {
    name: 'a backing file, raw',
    hasExactZeros: false,
    make(folder) {
      writeFileSync(join(folder, 'base.raw'), diskBytes(8));
      create(folder, ['-b', 'base.raw', '-F', 'raw']);
      io(folder, scattered(8, 60));
    },
  },
  {
    name: 'a backing file that is shorter, raw',
    hasExactZeros: false,
    make(folder) {
      writeFileSync(join(folder, 'base.raw'), diskBytes(9).subarray(0, 3 * MIB + 512));
      create(folder, ['-b', 'base.raw', '-F', 'raw']);
      io(folder, ['write -P 3 1M 4k', 'write -P 4 6M 64k']);
    },
  },
  {
    name: 'a backing file that is longer',
    hasExactZeros: true,
    make(folder) {
      convert(folder, 10, ['-c'], 'base.qcow2');
      create(folder, ['-b', 'base.qcow2', '-F', 'qcow2'], 5 * MIB);
      io(folder, ['write -P 3 1M 4k']);
    },
  },
  {
    name: 'four layers of other clusters',
    hasExactZeros: true,
    make(folder) {
      convert(folder, 11, ['-c', '-o', 'compression_type=zstd'], 'one.qcow2');
      create(folder, ['-b', 'one.qcow2', '-F', 'qcow2', '-o', 'cluster_size=4k'], DISK_BYTES - 4096, 'two.qcow2');
      io(folder, scattered(12, 30).slice(0, 20), 'two.qcow2');
      create(folder, ['-b', 'two.qcow2', '-F', 'qcow2', '-o', 'cluster_size=2M'], DISK_BYTES, 'three.qcow2');
      io(folder, ['write -z 4M 3k', 'write -P 8 8M 70k'], 'three.qcow2');
      create(folder, ['-b', 'three.qcow2', '-F', 'qcow2', '-o', 'extended_l2=on'], DISK_BYTES + 2 * MIB);
      io(folder, ['write -P 9 9M 3k', 'write -z -u 2M 6k', 'write -z 300k 400k']);
    },
  },
  {
    name: 'an external data file',
    hasExactZeros: false,
    make(folder) {
      create(folder, ['-o', `data_file=${join(folder, 'data')}`]);
      io(folder, scattered(13, 60));
    },
  },
  {
    name: 'an external data file that is a disk',
    hasExactZeros: false,
    make(folder) {
      create(folder, ['-o', `data_file=${join(folder, 'data')},data_file_raw=on,extended_l2=on`]);
      // The first cluster of the disk is the first one of the file.
      io(folder, [...scattered(14, 60), 'write -P 7 0 4k']);
    },
  },
];
