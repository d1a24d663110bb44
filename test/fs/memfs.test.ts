import { memfs } from 'memfs';
import { expect, test } from 'vitest';
import { memfsFileSystem } from '../../src/fs/memfs.ts';
import { fileSystemSuite } from '../../src/testing/file-system-suite.ts';

for (const { name, run } of fileSystemSuite(() => memfsFileSystem(), { sparse: false })) test(name, run);

test('the files are those of the volume', async () => {
  const { fs } = memfs({ '/disk.raw': 'abc' });
  const file = await memfsFileSystem(fs).open('disk.raw');
  await file.write(new TextEncoder().encode('XY'), 1);
  await file.close();
  expect(fs.readFileSync('/disk.raw', 'utf8')).toBe('aXY');
});

test('a lock holds for all file systems over one volume, and for no other volume', async () => {
  const { vol } = memfs();
  const lease = await memfsFileSystem(vol).lock!('a');
  await expect(memfsFileSystem(vol).lock!('a')).rejects.toMatchObject({ code: 'COD_LOCKED' });
  await (await memfsFileSystem().lock!('a')).release();
  await lease.release();
  await (await memfsFileSystem(vol).lock!('a')).release();
});

test('the boot ID is that of the volume, unless another is given', () => {
  expect(memfsFileSystem().bootId).toBe('memfs');
  expect(memfsFileSystem(undefined, { bootId: 'x' }).bootId).toBe('x');
  expect('bootId' in memfsFileSystem(undefined, { bootId: undefined })).toBe(false);
});
