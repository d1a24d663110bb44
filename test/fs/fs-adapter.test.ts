/** What the adapter makes of the calls of `node:fs`. */

import { Volume } from 'memfs';
import { expect, it } from 'vitest';
import type { FileSystem } from '../../src/fs/file-system.ts';
import { fsAdapter } from '../../src/fs/fs-adapter.ts';
import { shortTransfers } from '../../src/testing/index.ts';

/** A backend over memfs, and the paths whose names were synced, in order. `fail` makes the next sync of a name fail. */
function backend(volume = new Volume()): { fileSystem: FileSystem; synced: string[]; fail: { next: boolean } } {
  const synced: string[] = [];
  const fail = { next: false };
  const fileSystem = fsAdapter({
    fs: volume,
    flags: { readOnly: 0, readWrite: 2, create: 64, exclusive: 128, noFollow: 0 },
    resolve: (name) => `/${name}`,
    sync: async () => undefined,
    syncName: async (path) => {
      if (fail.next) {
        fail.next = false;
        throw Object.assign(new Error('EIO'), { code: 'EIO' });
      }
      synced.push(path);
    },
  });
  return { fileSystem, synced, fail };
}

it('the first sync of an open file syncs its name, also one that exists, and later syncs do not', async () => {
  const volume = new Volume();
  volume.writeFileSync('/old', 'x');
  const { fileSystem, synced } = backend(volume);
  for (const name of ['new', 'old']) {
    const file = await fileSystem.open(name, { create: name === 'new' });
    expect(synced.splice(0)).toEqual([]);
    await file.sync();
    expect(synced.splice(0)).toEqual([`/${name}`]);
    await file.sync();
    expect(synced).toEqual([]);
    await file.close();
  }
});

it('a name whose sync failed is synced by the next sync', async () => {
  const { fileSystem, synced, fail } = backend();
  const file = await fileSystem.open('new', { create: true });
  fail.next = true;
  await expect(file.sync()).rejects.toMatchObject({ code: 'COD_TARGET_IO' });
  expect(synced).toEqual([]);
  await file.sync();
  expect(synced).toEqual(['/new']);
});

it('a write that takes several calls writes all of its bytes', async () => {
  const volume = new Volume();
  const { fileSystem } = backend(shortTransfers(volume));
  const file = await fileSystem.open('a', { create: true });
  const bytes = Uint8Array.from({ length: 5000 }, (_, index) => index % 251);
  await file.write(bytes, 3);
  expect(new Uint8Array(volume.readFileSync('/a') as Buffer).subarray(3)).toEqual(bytes);
  const found = new Uint8Array(5000);
  await file.read(found, 3);
  expect(found).toEqual(bytes);
});
