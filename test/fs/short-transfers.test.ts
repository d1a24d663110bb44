/** Backends whose system calls move fewer bytes than they were asked to, pass the conformance suite. */

import { Volume } from 'memfs';
import { describe, expect, test } from 'vitest';
import { fsAdapter } from '../../src/fs/fs-adapter.ts';
import { memfsFileSystem } from '../../src/fs/memfs.ts';
import { nodeEventLoop } from '../../src/platform/node-event-loop.ts';
import { fileSystemSuite, seededRandom, shortTransfers } from '../../src/testing/index.ts';

describe('synchronous calls', () => {
  for (const { name, run } of fileSystemSuite(() => memfsFileSystem(shortTransfers(new Volume())), { sparse: false }))
    test(name, run);
});

describe('calls on a pool', () => {
  const backend = () => {
    const volume = shortTransfers(new Volume(), seededRandom(1));
    return fsAdapter({
      fs: volume,
      flags: { readOnly: 0, readWrite: 2, create: 64, exclusive: 128, noFollow: 0 },
      resolve: (name) => `/${name}`,
      pool: {
        loop: nodeEventLoop,
        read: async (fd, into, position) => volume.readSync(fd, into, 0, into.length, position),
        write: async (fd, from, position) => volume.writeSync(fd, from, 0, from.length, position),
      },
      sync: async () => undefined,
      syncName: async () => undefined,
    });
  };
  for (const { name, run } of fileSystemSuite(backend, { sparse: false, locks: false })) test(name, run);
});

test('a call that moves nothing is an error, not a loop', async () => {
  const volume = new Volume();
  const full = new Proxy(volume, {
    get: (target, name) => (name === 'writeSync' ? () => 0 : Reflect.get(target, name)),
  });
  const file = await memfsFileSystem(full).open('a', { create: true });
  await expect(file.write(new Uint8Array(1), 0)).rejects.toMatchObject({ code: 'COD_TARGET_IO' });
});

test('each call moves from one byte to all of them', () => {
  const volume = shortTransfers(new Volume(), seededRandom(3));
  const fd = volume.openSync('/a', 66);
  const counts = Array.from({ length: 400 }, () => volume.writeSync(fd, new Uint8Array(4), 0, 4, 0));
  expect(new Set(counts)).toEqual(new Set([1, 2, 3, 4]));
  expect(volume.writeSync(fd, new Uint8Array(0), 0, 0, 0)).toBe(0);
});
