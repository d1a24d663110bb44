/**
 * A file of another program at one of our names is refused, and stays as it is. And the other way round: whatever a
 * crash of ours leaves while the files are made or removed is taken for ours.
 */

import { execFileSync } from 'node:child_process';
import {
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { nodeFileSystem } from '../../src/control/node-file-system.ts';
import { claim } from '../../src/core/headers.ts';
import { parseOwner } from '../../src/fs/lock-owner.ts';
import { bytesSource, type FileSystem, inspectMetadata, openDevice } from '../../src/index.ts';
import { openLog, recoverLog } from '../../src/log/intent-log.ts';
import { type IntentLog, openIntentLog, recoverIntentLog } from '../../src/log.ts';
import { type CrashKind, exploreCrashes, type Life, type Story } from '../../src/testing/index.ts';
import { effort, some } from '../support/effort.ts';
import { MemoryFiles } from './memory-files.ts';

/** With another seed other parts of the unsynced data survive. */
const SEEDS = effort('COD_FOREIGN_SEEDS', { short: 1, long: 2 });
const METADATA = ['disk.bak', 'disk.bak.1', 'disk.wil', 'disk.wil.1'];
const SIZE = 20_000;
const SOURCE = bytesSource(new Uint8Array(SIZE).fill(7), { identity: 'etag "a"' });
const STORAGE = { read: async (into: Uint8Array) => void into.fill(0), sync: async () => undefined };

let directory: string | undefined;

afterEach(() => {
  if (directory !== undefined) rmSync(directory, { recursive: true, force: true });
  directory = undefined;
});

function newDirectory(): string {
  directory = mkdtempSync(join(tmpdir(), 'cod-foreign-'));
  return directory;
}

/** Everything in a directory, with contents and the destinations of links. */
function tree(folder: string): Record<string, string> {
  const entries = readdirSync(folder).map((name) => {
    const path = join(folder, name);
    const stats = lstatSync(path);
    const what = stats.isFile()
      ? readFileSync(path, 'latin1')
      : stats.isSymbolicLink()
        ? `to ${readlinkSync(path)}`
        : `mode ${stats.mode}`;
    return [name, what] as const;
  });
  return Object.fromEntries(entries);
}

/** An ext4 image has 1024 zero bytes, and then its superblock. */
function zeroHeaded(): Uint8Array {
  const bytes = new Uint8Array(16_384);
  bytes.fill(0x5a, 1024, 3000);
  bytes.set([0x53, 0xef], 1024 + 56);
  return bytes;
}

const FOREIGN: readonly (readonly [name: string, make: (path: string) => unknown])[] = [
  ['an image that begins with zeros', (path) => writeFileSync(path, zeroHeaded())],
  ['1 MiB of zeros', (path) => writeFileSync(path, new Uint8Array(2 ** 20))],
  ['5000 zero bytes', (path) => writeFileSync(path, new Uint8Array(5000))],
  ['513 zero bytes', (path) => writeFileSync(path, new Uint8Array(513))],
  ['a text', (path) => writeFileSync(path, 'my notes\n'.repeat(200))],
  ['a short text', (path) => writeFileSync(path, 'x')],
  ['a text that begins like our magic', (path) => writeFileSync(path, 'COD is a fish\n'.repeat(60))],
  ['our magic and zeros', (path) => writeFileSync(path, Buffer.concat([Buffer.from('COD BAK'), Buffer.alloc(9000)]))],
  ['a link to an empty file', (path) => symlinkSync('victim', path)],
  ['a dangling link', (path) => symlinkSync('nowhere', path)],
  ['a directory', (path) => mkdirSync(path)],
  ...(process.platform === 'win32' ? [] : [['a pipe', (path: string) => execFileSync('mkfifo', [path])] as const]),
];

/** The ways to open what a directory has. */
const DOORS: Readonly<Record<string, (fileSystem: FileSystem) => Promise<unknown>>> = {
  'a device': (fileSystem) => openDevice({ source: SOURCE, fileSystem, target: 'disk' }),
  'an intent log': (fileSystem) => openIntentLog({ fileSystem, name: 'disk', size: SIZE, storage: STORAGE }),
  'an inspection': (fileSystem) => inspectMetadata(fileSystem, 'disk'),
};

async function expectRefusal(folder: string, name: string, door: string): Promise<void> {
  const before = tree(folder);
  await expect(DOORS[door]!(nodeFileSystem(folder))).rejects.toMatchObject({
    code: name.endsWith('.lock') ? expect.stringMatching(/^COD_(EXISTS|LOCKED)$/) : 'COD_EXISTS',
    message: expect.stringContaining(name),
    details: { file: expect.stringContaining(name) },
  });
  expect(tree(folder)).toEqual(before);
}

describe.each(some([...METADATA, 'disk.lock'], 'COD_FOREIGN_NAMES', 2))('at %s', (name) => {
  const doors = name === 'disk.lock' ? ['a device', 'an intent log'] : Object.keys(DOORS);
  for (const [what, make] of some(FOREIGN, 'COD_FOREIGN_FILES', 3)) {
    for (const door of doors) {
      it(`${what} is refused by ${door} of a new copy, and stays as it is`, async () => {
        const folder = newDirectory();
        writeFileSync(join(folder, 'victim'), '');
        make(join(folder, name));
        await expectRefusal(folder, name, door);
      });
    }

    it(`${what} is refused by a copy that resumes, and stays as it is`, async () => {
      const folder = newDirectory();
      writeFileSync(join(folder, 'victim'), '');
      const fileSystem = nodeFileSystem(folder);
      const device = await openDevice({ source: SOURCE, fileSystem, target: 'disk', hydrate: false });
      await device.write(new Uint8Array(5000).fill(3), 100);
      await device.close();
      rmSync(join(folder, name), { force: true });
      make(join(folder, name));
      for (const door of doors) await expectRefusal(folder, name, door);
    });
  }
});

it.each(METADATA.slice(1))('%s that was put there before a copy made it is refused', async (name) => {
  for (const [, make] of FOREIGN) {
    const folder = newDirectory();
    const fileSystem = nodeFileSystem(folder);
    const recovered = await recoverIntentLog({ fileSystem, name: 'disk', size: SIZE });
    await recovered.prepare();
    // After the recovery has looked, and at the next start.
    make(join(folder, name));
    const before = tree(folder)[name];
    await expect(recovered.begin(STORAGE)).rejects.toMatchObject({ code: 'COD_EXISTS' });
    await recovered.close();
    expect(tree(folder)[name]).toBe(before);
    await expectRefusal(folder, name, 'a device');
    rmSync(folder, { recursive: true });
  }
});

it('a claimed log without any checkpoint is COD_CORRUPT, and so is a claimed checkpoint that is too long', async () => {
  for (const [name, bytes, size] of [
    ['disk.wil', claim('log'), 65_536],
    ['disk.bak', claim('checkpoint'), 100_000],
  ] as const) {
    const files = new MemoryFiles(new Map([[name, { bytes, size }]]));
    await expect(inspectMetadata(files, 'disk')).rejects.toMatchObject({
      code: 'COD_CORRUPT',
      details: { file: name },
    });
  }
});

it.skipIf(process.platform === 'win32')('metadata is for its owner only, and a target as its source', async () => {
  for (const umask of [0, 0o022, 0o777]) {
    const folder = newDirectory();
    const before = process.umask(umask);
    try {
      const source = { ...SOURCE, size: SIZE, read: async () => undefined, mode: 0o750 };
      const device = await openDevice({ source, fileSystem: nodeFileSystem(folder), target: 'disk', hydrate: false });
      const modes = Object.fromEntries(
        readdirSync(folder).map((name) => [name, (lstatSync(join(folder, name)).mode & 0o777).toString(8)]),
      );
      const { socket } = parseOwner(readFileSync(join(folder, 'disk.lock'), 'utf8'))!;
      const others = [...METADATA, 'disk.lock', 'disk.lock.spare', `disk.lock.${socket}`].map((name) => [name, '600']);
      expect(modes).toEqual({ ...Object.fromEntries(others), disk: ((0o640 & ~umask) | 0o600).toString(8) });
      await device.close();
    } finally {
      process.umask(before);
    }
    rmSync(folder, { recursive: true });
  }
});

describe('a target that is a link', () => {
  it('is refused if it leads nowhere: two names would own one copy', async () => {
    const folder = newDirectory();
    symlinkSync('elsewhere', join(folder, 'disk'));
    const fileSystem = nodeFileSystem(folder);
    await expect(openDevice({ source: SOURCE, fileSystem, target: 'disk' })).rejects.toMatchObject({
      code: 'COD_EXISTS',
    });
    expect(tree(folder)).toEqual({ disk: 'to elsewhere' });
  });

  it('is written where it leads, and has one owner under each of its names', async () => {
    const folder = newDirectory();
    const fileSystem = nodeFileSystem(folder);
    const first = await openDevice({ source: SOURCE, fileSystem, target: 'disk', hydrate: false });
    await first.close();
    mkdirSync(join(folder, 'd'));
    execFileSync('mv', [join(folder, 'disk'), join(folder, 'd', 'disk')]);
    symlinkSync('d/disk', join(folder, 'disk'));
    const device = await openDevice({ source: SOURCE, fileSystem, target: 'disk', hydrate: false });
    await device.write(new Uint8Array(10).fill(1), 0);
    await expect(openDevice({ source: SOURCE, fileSystem, target: 'd/disk' })).rejects.toMatchObject({
      code: 'COD_LOCKED',
    });
    await device.close();
    expect(readFileSync(join(folder, 'd', 'disk')).subarray(0, 10)).toEqual(Buffer.alloc(10, 1));
  });
});

/** A log is made. All of its storage is copied and its files are removed, if it `finishes`. */
function story(options: { size: number; blockSize: number; identity?: string; finishes: boolean }): Story {
  const { finishes, ...shape } = options;
  const open = ({ fileSystem, clock, random }: Life): Promise<IntentLog> =>
    openLog(
      { clock, randomBytes: (into) => random.fill(into) },
      { ...shape, fileSystem, name: 'disk', storage: STORAGE },
    );
  return {
    work: async (life) => {
      const log = await open(life);
      if (!finishes) return log.close();
      const transaction = log.begin();
      await transaction.fill(0, new Uint8Array(shape.size));
      await log.commit(transaction);
      await log.remove();
    },
    recover: async (life) => {
      // Looks first: an inspection has the same rules.
      const environment = { clock: life.clock, randomBytes: (into: Uint8Array) => life.random.fill(into) };
      const found = await recoverLog(environment, { ...shape, fileSystem: life.fileSystem, name: 'disk' });
      await found.close();
      await (await open(life)).close();
    },
  };
}

describe.each<CrashKind>(['process', 'power', 'loss'])('after a %s crash at any operation', (kind) => {
  const small = { size: SIZE, blockSize: 4096 };
  it.each([
    ['log', { ...small, identity: 'etag "a"', finishes: false }],
    ['log without identity', { ...small, finishes: false }],
    ['log with the longest identity', { ...small, identity: 'x'.repeat(65_536), finishes: false }],
    ['log of a huge storage', { size: 2 ** 43, blockSize: 4096, identity: 'y'.repeat(600), finishes: false }],
    ['log that is removed', { ...small, identity: 'etag "a"', finishes: true }],
  ])('a new %s opens again', async (_, shape) => {
    for (let seed = 1; seed <= SEEDS; seed++) {
      const { crashes } = await exploreCrashes(() => story(shape), { seed, kind });
      expect(crashes).toBeGreaterThan(20);
    }
  });
});
