import { expect, test } from 'vitest';
import { CodError } from '../../src/errors.ts';
import type { File, FileSystem, Lease } from '../../src/fs/file-system.ts';
import type { InlineFile } from '../../src/fs/inline-file.ts';
import { memfsFileSystem } from '../../src/fs/memfs.ts';
import { type FileSystemSuiteOptions, fileSystemSuite } from '../../src/testing/index.ts';

/** A file system without locks, with some methods of its files replaced. */
function broken(fault: (file: File) => Partial<InlineFile>): () => FileSystem {
  return () => {
    const whole = memfsFileSystem();
    return {
      remove: (name) => whole.remove(name),
      open: async (name, options) => {
        const file = await whole.open(name, options);
        const methods: File = {
          size: () => file.size(),
          read: (into, offset) => file.read(into, offset),
          write: (from, offset) => file.write(from, offset),
          truncate: (size) => file.truncate(size),
          sync: () => file.sync(),
          close: () => file.close(),
        };
        return { ...methods, ...fault(file) };
      },
    };
  };
}

async function failuresOf(make: () => FileSystem, options: FileSystemSuiteOptions = {}): Promise<string[]> {
  const failures: string[] = [];
  for (const { name, run } of fileSystemSuite(make, { sparse: false, ...options }))
    await run().catch(() => failures.push(name));
  return failures;
}

const NO_LOCKS: FileSystemSuiteOptions = { locks: false };

/** A file system with another `lock`. */
function locking(lock: (name: string, whole: FileSystem) => Promise<Lease>): () => FileSystem {
  return () => {
    const whole = memfsFileSystem();
    return { ...whole, lock: (name) => lock(name, whole) };
  };
}

test('a file system without boot ID and locks passes the suite without locks', async () => {
  expect(
    await failuresOf(
      broken(() => ({})),
      NO_LOCKS,
    ),
  ).toEqual([]);
});

test('a file system without locks fails exactly the tests of locks', async () => {
  const failures = await failuresOf(broken(() => ({})));
  expect(failures.length).toBeGreaterThan(0);
  const names = (options: FileSystemSuiteOptions): string[] =>
    fileSystemSuite(() => memfsFileSystem(), { sparse: false, ...options }).map(({ name }) => name);
  const withoutLocks = names(NO_LOCKS);
  expect(failures).toEqual(names({}).filter((name) => !withoutLocks.includes(name)));
});

test('the suite without locks omits only the tests of locks', () => {
  const all = fileSystemSuite(() => memfsFileSystem());
  const others = fileSystemSuite(() => memfsFileSystem(), NO_LOCKS);
  const isOfLocks = (name: string): boolean => /^(a|no) lock/.test(name);
  expect(others.map(({ name }) => name).filter((name) => !isOfLocks(name))).toEqual(
    all.map(({ name }) => name).filter((name) => !isOfLocks(name)),
  );
});

test('the suite without locks says so in the name of a test, which fails if there is a lock', async () => {
  const finding = (fileSystem: FileSystem) =>
    fileSystemSuite(() => fileSystem, NO_LOCKS).filter(({ name }) => name.startsWith('no lock: two programs'));
  const { lock: _, ...without } = memfsFileSystem();
  expect(finding(without)).toHaveLength(1);
  await finding(without)[0]!.run();
  await expect(finding(memfsFileSystem())[0]!.run()).rejects.toThrow('leave out `locks: false`');
});

/** The latest lease of each name. */
const owners = new WeakMap<FileSystem, Map<string, Lease>>();

const LOCK_FAULTS: [string, (name: string, whole: FileSystem) => Promise<Lease>][] = [
  ['a lock excludes no other owner', async () => ({ check: async () => true, release: async () => undefined })],
  ['an owner counts as replaced', async (name, whole) => ({ ...(await whole.lock!(name)), check: async () => false })],
  ['one lock holds for all names', (_, whole) => whole.lock!('one')],
  [
    'a released lock stays held',
    async (name, whole) => {
      await whole.lock!(name);
      return { check: async () => true, release: async () => undefined };
    },
  ],
  [
    'a second release of a lease releases the lock of the next owner',
    async (name, whole) => {
      const owner = owners.get(whole) ?? new Map<string, Lease>();
      owners.set(whole, owner);
      const lease = await whole.lock!(name);
      owner.set(name, lease);
      return { check: async () => true, release: async () => owner.get(name)!.release() };
    },
  ],
  [
    'a lock needs its file',
    async (name, whole) => {
      await (await whole.open(name)).close();
      return whole.lock!(name);
    },
  ],
  [
    'a lock makes its file',
    async (name, whole) => {
      await (await whole.open(name, { create: true })).close();
      return whole.lock!(name);
    },
  ],
];

test.each(LOCK_FAULTS)('the suite detects that %s', async (_, lock) => {
  expect(await failuresOf(locking(lock))).not.toEqual([]);
});

const FAULTS: [string, (file: File) => Partial<InlineFile>][] = [
  ['a short read succeeds', (file) => ({ read: (into, offset) => file.read(into, offset).catch(() => undefined) })],
  [
    'a view is written from the start of its buffer',
    (file) => ({ write: (from, offset) => file.write(new Uint8Array(from.buffer, 0, from.length), offset) }),
  ],
  ['a long write ends early', (file) => ({ write: (from, offset) => file.write(from.subarray(0, 8 << 20), offset) })],
  ['offsets wrap at 64 KiB', (file) => ({ write: (from, offset) => file.write(from, offset % 65_536) })],
  [
    'a synchronous write takes the bytes of its buffer later',
    (file) => ({
      submitWrite: (from, offset) => {
        Promise.resolve()
          .then(() => file.write(from, offset))
          .catch(() => undefined);
        return undefined;
      },
    }),
  ],
  ['a synchronous read reads nothing', () => ({ submitRead: () => undefined })],
  [
    'a submitted short read succeeds',
    (file) => ({ submitRead: (into, offset) => file.read(into, offset).catch(() => undefined) }),
  ],
  [
    'a submitted write to a closed file succeeds',
    (file) => ({
      submitWrite: (from, offset) =>
        file.write(from, offset).catch((error: CodError) => {
          if (error.code !== 'COD_CLOSED') throw error;
        }),
    }),
  ],
  [
    'truncate does not grow',
    (file) => ({ truncate: async (size) => file.truncate(Math.min(size, await file.size())) }),
  ],
  [
    'truncate does not shrink',
    (file) => ({ truncate: async (size) => file.truncate(Math.max(size, await file.size())) }),
  ],
  ['sync closes', (file) => ({ sync: () => file.close() })],
  [
    'a second close rejects',
    (file) => {
      let closed = false;
      return {
        close: async () => {
          if (closed) throw new CodError('COD_CLOSED', 'closed');
          closed = true;
          await file.close();
        },
      };
    },
  ],
  ['close does nothing', () => ({ close: async () => {} })],
];

test.each(FAULTS)('the suite detects that %s', async (_, fault) => {
  expect(await failuresOf(broken(fault), NO_LOCKS)).not.toEqual([]);
});

test.each(['exclusive', 'readOnly'] as const)('the suite detects that open ignores `%s`', async (ignored) => {
  const make = (): FileSystem => {
    const whole = memfsFileSystem();
    return {
      ...whole,
      open: (name, options = {}) =>
        whole.open(name, { ...options, create: options.create || options.exclusive || false, [ignored]: false }),
    };
  };
  expect(await failuresOf(make)).not.toEqual([]);
});
