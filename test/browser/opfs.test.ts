/** What is specific to OPFS as storage. Everything else is in opfs-suite.test.ts. */

import { afterEach, expect, test } from 'vitest';
import { opfsFileSystem } from '../../src/fs/opfs.ts';
import { estimateStorage, persistStorage } from '../../src/fs/opfs-quota.ts';
import { freshDirectory } from './directories.ts';
import { type RemoteFiles, remoteFiles } from './remote-files.ts';

const running: RemoteFiles[] = [];

async function files(...options: Parameters<typeof remoteFiles>): Promise<RemoteFiles> {
  const remote = await remoteFiles(...options);
  running.push(remote);
  return remote;
}

afterEach(() => {
  for (const remote of running.splice(0)) remote.terminate();
});

test('the files are those of the directory, by their names', async () => {
  const { directory, open } = await files();
  const file = await open('disk.raw.bak.1', { create: true });
  await file.write(new TextEncoder().encode('abc'), 2);
  await file.close();
  const found = await (await directory.getFileHandle('disk.raw.bak.1')).getFile();
  expect(await found.text()).toBe('\0\0abc');
});

test('has no boot ID unless one is given', async () => {
  expect('bootId' in opfsFileSystem()).toBe(false);
  expect(opfsFileSystem(undefined, { bootId: 'x' }).bootId).toBe('x');
});

test('waits for a file that is open elsewhere, and then rejects with COD_LOCKED', async () => {
  const first = await files();
  const second = await files({ directory: first.directory });
  const file = await first.open('a', { create: true });
  const locked = { code: 'COD_LOCKED', message: expect.stringMatching(/ a: the file is open in another tab/) };
  await Promise.all([
    expect(second.open('a')).rejects.toMatchObject(locked),
    expect(second.remove('a')).rejects.toMatchObject(locked),
  ]);
  await file.close();
  await (await second.open('a')).close();
});

test('opens a file once the worker that had it open is terminated', async () => {
  const first = await files();
  const second = await files({ directory: first.directory });
  const file = await first.open('a', { create: true });
  await file.write(new Uint8Array(100).fill(7), 0);
  const opening = second.open('a');
  first.terminate();
  const again = await opening;
  const into = new Uint8Array(100);
  await again.read(into, 0);
  expect(into).toEqual(new Uint8Array(100).fill(7));
});

test('refuses a folder as a file, a path as a name, and a page without OPFS access', async () => {
  const { directory, open } = await files();
  await directory.getDirectoryHandle('d', { create: true });
  await expect(open('d')).rejects.toMatchObject({ code: 'COD_TARGET_IO' });
  await expect(open('d/a', { create: true })).rejects.toBeInstanceOf(TypeError);
  await expect(open('', { create: true })).rejects.toBeInstanceOf(TypeError);
  await expect(opfsFileSystem(await freshDirectory()).open('a', { create: true })).rejects.toMatchObject({
    code: 'COD_UNSUPPORTED',
    message: expect.stringContaining('dedicated worker'),
  });
});

test('rejects a size or a write beyond the quota with COD_NO_SPACE, and keeps the file unchanged', async () => {
  const { open } = await files();
  // The effective quota is a part of the disk; the reported quota is smaller.
  const far = 2 ** 43;
  expect((await estimateStorage()).quotaBytes).toBeGreaterThan(0);
  const file = await open('a', { create: true });
  await file.write(new Uint8Array(10), 0);
  await expect(file.truncate(far)).rejects.toMatchObject({
    code: 'COD_NO_SPACE',
    details: { name: 'a', error: expect.stringMatching(/^(QuotaExceededError|NS_ERROR_FILE_NO_DEVICE_SPACE)$/) },
  });
  await expect(file.write(new Uint8Array(10), far)).rejects.toMatchObject({ code: 'COD_NO_SPACE' });
  expect(await file.size()).toBe(10);
  await file.write(new Uint8Array(10), 10);
  expect(await file.size()).toBe(20);
});

test('estimates include files, sparse ones with their whole size; persist() answers', async () => {
  const { open } = await files();
  const before = await estimateStorage();
  const file = await open('a', { create: true });
  await file.truncate(2 ** 30);
  expect((await estimateStorage()).usageBytes - before.usageBytes).toBeGreaterThanOrEqual(2 ** 30);
  await file.truncate(0);
  expect(await persistStorage()).toBe((await estimateStorage()).persisted);
});

test('a directory at the name of a file is refused, whatever the options are', async () => {
  const files = await remoteFiles();
  await files.directory.getDirectoryHandle('a', { create: true });
  for (const options of [{}, { noFollow: true }, { exclusive: true }, { create: true }])
    await expect(files.open('a', options)).rejects.toMatchObject({ code: 'COD_TARGET_IO' });
  files.terminate();
});
