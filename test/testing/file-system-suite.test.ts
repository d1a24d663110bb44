import { expect, test } from 'vitest';
import { CodError } from '../../src/errors.ts';
import type { File, FileSystem } from '../../src/fs/file-system.ts';
import { memfsFileSystem } from '../../src/fs/memfs.ts';
import { fileSystemSuite } from '../../src/testing/index.ts';

/** A file system whose files have some methods replaced. */
function broken(fault: (file: File) => Partial<File>): () => FileSystem {
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

async function failuresOf(make: () => FileSystem): Promise<string[]> {
  const failures: string[] = [];
  for (const { name, run } of fileSystemSuite(make, { sparse: false })) await run().catch(() => failures.push(name));
  return failures;
}

test('a file system without locks and without a boot passes', async () => {
  expect(await failuresOf(broken(() => ({})))).toEqual([]);
});

const FAULTS: [string, (file: File) => Partial<File>][] = [
  [
    'a short read passes as a whole one',
    (file) => ({ read: (into, offset) => file.read(into, offset).catch(() => undefined) }),
  ],
  [
    'a view is written from the start of its buffer',
    (file) => ({ write: (from, offset) => file.write(new Uint8Array(from.buffer, 0, from.length), offset) }),
  ],
  ['a long write ends early', (file) => ({ write: (from, offset) => file.write(from.subarray(0, 8 << 20), offset) })],
  ['offsets wrap at 64 KiB', (file) => ({ write: (from, offset) => file.write(from, offset % 65_536) })],
  [
    'a write inside the call is of the buffer as it is later',
    (file) => ({
      writeNow: (from, offset) => {
        Promise.resolve()
          .then(() => file.write(from, offset))
          .catch(() => undefined);
        return true;
      },
    }),
  ],
  ['a short read inside the call passes as a whole one', () => ({ readNow: () => true })],
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

test.each(FAULTS)('the suite notices where %s', async (_, fault) => {
  expect(await failuresOf(broken(fault))).not.toEqual([]);
});
