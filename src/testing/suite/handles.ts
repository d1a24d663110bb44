/** Conformance tests: closing, locks, and several handles of one file. */

import { concat } from '../../core/concat.ts';
import type { FileSystem, Lease } from '../../fs/file-system.ts';
import { assertBytes, assertCode } from '../assert.ts';
import { contentOf, MIB, pattern, type Test, withFile } from './tools.ts';

export const closeTests: readonly Test[] = [
  [
    'close is idempotent, also during another close',
    async (fileSystem) => {
      const file = await fileSystem.open('a', { create: true });
      await Promise.all([file.close(), file.close()]);
      await file.close();
    },
  ],
  [
    'every use of a closed file rejects with COD_CLOSED',
    async (fileSystem) => {
      const file = await fileSystem.open('a', { create: true });
      await file.write(pattern(10), 0);
      await file.close();
      await assertCode(file.size(), 'COD_CLOSED', 'size');
      await assertCode(file.read(new Uint8Array(1), 0), 'COD_CLOSED', 'read');
      await assertCode(file.write(new Uint8Array(1), 0), 'COD_CLOSED', 'write');
      await assertCode(file.truncate(0), 'COD_CLOSED', 'truncate');
      await assertCode(file.sync(), 'COD_CLOSED', 'sync');
      await withFile(fileSystem, 'a', async (again) => assertBytes(await contentOf(again), pattern(10), 'content'));
    },
  ],
  [
    'close waits for operations in flight, and they succeed',
    async (fileSystem) => {
      const file = await fileSystem.open('a', { create: true });
      await file.write(pattern(3 * MIB, 1), 0);
      const into = new Uint8Array(3 * MIB);
      await Promise.all([file.write(pattern(3 * MIB, 2), 3 * MIB), file.read(into, 0), file.sync(), file.close()]);
      assertBytes(into, pattern(3 * MIB, 1), 'bytes read');
      await withFile(fileSystem, 'a', async (again) =>
        assertBytes(await contentOf(again), concat(pattern(3 * MIB, 1), pattern(3 * MIB, 2)), 'content'),
      );
    },
  ],
];

/** @throws if the file system has no locks */
function lockOf(fileSystem: FileSystem, name: string): Promise<Lease> {
  if (fileSystem.lock !== undefined) return fileSystem.lock(name);
  const message =
    'the file system has no `lock`, so two programs can open the same target: add `lock`, or pass `locks: false` ' +
    'to fileSystemSuite if open files are exclusive or have a single owner';
  throw new Error(message);
}

export const lockTests: readonly Test[] = [
  [
    'a lock excludes other owners of the same name until it is released',
    async (fileSystem) => {
      const lease = await lockOf(fileSystem, 'a');
      await assertCode(lockOf(fileSystem, 'a'), 'COD_LOCKED', 'second lock');
      const other = await lockOf(fileSystem, 'b');
      await other.release();
      if (!(await lease.check())) throw new Error('check says that the owner has lost its lock');
      await lease.release();
      const again = await lockOf(fileSystem, 'a');
      await lease.release();
      await assertCode(lockOf(fileSystem, 'a'), 'COD_LOCKED', 'lock after a stale release');
      await again.release();
    },
  ],
  [
    'a lock is seen by `assertNotOwned`, which takes nothing, if the file system has that method',
    async (fileSystem) => {
      await fileSystem.assertNotOwned?.('a');
      const lease = await lockOf(fileSystem, 'a');
      if (fileSystem.assertNotOwned === undefined) return lease.release();
      await assertCode(fileSystem.assertNotOwned('a'), 'COD_LOCKED', 'look at an owned name');
      await fileSystem.assertNotOwned('b');
      await lease.release();
      await fileSystem.assertNotOwned('a');
      await (await lockOf(fileSystem, 'a')).release();
    },
  ],
  [
    'a lock needs no file, and the file can be used while the lock is held',
    async (fileSystem) => {
      const lease = await lockOf(fileSystem, 'a');
      await assertCode(fileSystem.open('a'), 'COD_NOT_FOUND', 'open');
      await withFile(fileSystem, 'a', (file) => file.write(pattern(10), 0));
      await lease.release();
      await withFile(fileSystem, 'a', async (file) => assertBytes(await contentOf(file), pattern(10), 'content'));
    },
  ],
];

/** In the place of the tests of locks: a reader of the results sees that there is none. */
export const noLockTests: readonly Test[] = [
  [
    'no lock: two programs can open the same target; only owners of one `FileSystem` object exclude each other',
    async (fileSystem) => {
      if (fileSystem.lock !== undefined) throw new Error('the file system has `lock`: leave out `locks: false`');
    },
  ],
];

export const sharedHandleTests: readonly Test[] = [
  [
    'two handles of one file see each other’s writes, and close independently',
    async (fileSystem) => {
      const first = await fileSystem.open('a', { create: true });
      const second = await fileSystem.open('a');
      await first.write(pattern(1000, 1), 0);
      assertBytes(await contentOf(second), pattern(1000, 1), 'bytes that the second handle reads');
      await second.write(pattern(1000, 2), 500);
      await second.close();
      assertBytes(
        await contentOf(first),
        concat(pattern(1000, 1).subarray(0, 500), pattern(1000, 2)),
        'bytes that the first handle reads',
      );
      await first.close();
    },
  ],
];

export const removedTests: readonly Test[] = [
  [
    'a file removed while open stays usable until closed, separate from a new file of its name',
    async (fileSystem) => {
      const removed = await fileSystem.open('a', { create: true });
      await removed.write(pattern(1000, 1), 0);
      await fileSystem.remove('a');
      await assertCode(fileSystem.open('a'), 'COD_NOT_FOUND', 'open');
      await withFile(fileSystem, 'a', (file) => file.write(pattern(10, 2), 0));
      await removed.write(pattern(1000, 3), 1000);
      await removed.sync();
      assertBytes(await contentOf(removed), concat(pattern(1000, 1), pattern(1000, 3)), 'the removed file');
      await removed.close();
      await withFile(fileSystem, 'a', async (file) =>
        assertBytes(await contentOf(file), pattern(10, 2), 'the new file'),
      );
    },
  ],
];
