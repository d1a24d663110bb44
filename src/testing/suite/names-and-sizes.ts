/** Conformance tests: names, sizes, and ranges that read as zeros. */

import { concat } from '../../core/concat.ts';
import { assertBytes, assertCode, assertEqual, assertRangeError } from '../assert.ts';
import { contentOf, pattern, type Test, withFile } from './tools.ts';

export const nameTests: readonly Test[] = [
  [
    'opening a missing file without create rejects with COD_NOT_FOUND, and creates nothing',
    async (fileSystem) => {
      await assertCode(fileSystem.open('a'), 'COD_NOT_FOUND', 'open');
      await assertCode(fileSystem.open('a', { create: false }), 'COD_NOT_FOUND', 'open again');
    },
  ],
  [
    'a created file is empty, and exists when opened again',
    async (fileSystem) => {
      await withFile(fileSystem, 'a', async (file) => assertEqual(await file.size(), 0, 'size'));
      const file = await fileSystem.open('a');
      await file.close();
    },
  ],
  [
    'opening with create keeps the contents of an existing file',
    async (fileSystem) => {
      await withFile(fileSystem, 'a', (file) => file.write(pattern(1000), 0));
      await withFile(fileSystem, 'a', async (file) => assertBytes(await contentOf(file), pattern(1000), 'content'));
    },
  ],
  [
    'files are independent, also if one name is a prefix of the other',
    async (fileSystem) => {
      const names = ['disk', 'disk.bak', 'disk.bak.1', 'disk.wil'];
      for (const [index, name] of names.entries())
        await withFile(fileSystem, name, (file) => file.write(pattern(100, index), 0));
      for (const [index, name] of names.entries()) {
        await withFile(fileSystem, name, async (file) => assertBytes(await contentOf(file), pattern(100, index), name));
      }
    },
  ],
  [
    'a removed file is missing, and empty when created again',
    async (fileSystem) => {
      await withFile(fileSystem, 'a', (file) => file.write(pattern(1000), 0));
      await fileSystem.remove('a');
      await assertCode(fileSystem.open('a'), 'COD_NOT_FOUND', 'open');
      await withFile(fileSystem, 'a', async (file) => assertEqual(await file.size(), 0, 'size'));
    },
  ],
  [
    'removing a missing file resolves',
    async (fileSystem) => {
      await fileSystem.remove('a');
      await withFile(fileSystem, 'a', async () => {});
      await fileSystem.remove('a');
      await fileSystem.remove('a');
    },
  ],
];

export const cloneTests: readonly Test[] = [
  [
    'a clone, where there are clones, is a new file with the same bytes, and neither changes with the other',
    async (fileSystem) => {
      const { clone } = fileSystem;
      if (clone === undefined) return;
      await withFile(fileSystem, 'a', async (file) => {
        await file.write(pattern(10_000), 0);
        await assertCode(fileSystem.open('b'), 'COD_NOT_FOUND', 'open');
        try {
          await clone.call(fileSystem, 'a', 'b');
        } catch (error) {
          if ((error as { code?: unknown }).code !== 'COD_UNSUPPORTED') throw error;
          await assertCode(fileSystem.open('b'), 'COD_NOT_FOUND', 'open after a refusal');
          return;
        }
        await file.write(pattern(5000, 1), 0);
        await withFile(fileSystem, 'b', async (copy) => {
          await copy.sync();
          assertBytes(await contentOf(copy), pattern(10_000), 'clone');
          await copy.write(pattern(10_000, 2), 0);
        });
        assertBytes(await contentOf(file), concat(pattern(5000, 1), pattern(10_000).subarray(5000)), 'content');
        await assertCode(clone.call(fileSystem, 'a', 'b'), 'COD_EXISTS', 'clone');
        await assertCode(clone.call(fileSystem, 'c', 'd'), 'COD_NOT_FOUND', 'clone of a missing file');
        await withFile(fileSystem, 'b', async (copy) =>
          assertBytes(await contentOf(copy), pattern(10_000, 2), 'clone again'),
        );
      });
    },
  ],
];

export const optionTests: readonly Test[] = [
  [
    'an exclusive open makes a new file, and rejects with COD_EXISTS if there is one, whose bytes stay',
    async (fileSystem) => {
      const file = await fileSystem.open('a', { exclusive: true, mode: 0o600 });
      await file.write(pattern(1000), 0);
      await file.close();
      for (const create of [false, true])
        await assertCode(fileSystem.open('a', { create, exclusive: true }), 'COD_EXISTS', 'open');
      await withFile(fileSystem, 'a', async (again) => assertBytes(await contentOf(again), pattern(1000), 'content'));
      await fileSystem.remove('a');
      await (await fileSystem.open('a', { exclusive: true })).close();
    },
  ],
  [
    'a file that was opened for reading can be read, and rejects every change with COD_READ_ONLY',
    async (fileSystem) => {
      await withFile(fileSystem, 'a', (file) => file.write(pattern(1000), 0));
      const file = await fileSystem.open('a', { readOnly: true });
      await assertCode(file.write(pattern(1), 0), 'COD_READ_ONLY', 'write');
      await assertCode(file.truncate(0), 'COD_READ_ONLY', 'truncate');
      await file.sync();
      assertBytes(await contentOf(file), pattern(1000), 'content');
      await file.close();
      await assertCode(file.read(new Uint8Array(1), 0), 'COD_CLOSED', 'read of a closed file');
      await assertCode(file.write(new Uint8Array(1), 0), 'COD_CLOSED', 'write to a closed file');
    },
  ],
  [
    'an open for reading makes no file',
    async (fileSystem) => {
      for (const options of [{}, { create: true }, { exclusive: true }])
        await assertCode(fileSystem.open('a', { ...options, readOnly: true }), 'COD_NOT_FOUND', 'open');
      await assertCode(fileSystem.open('a'), 'COD_NOT_FOUND', 'open afterwards');
    },
  ],
  [
    'an open that follows no link opens a file as any other open does',
    async (fileSystem) => {
      await assertCode(fileSystem.open('a', { noFollow: true }), 'COD_NOT_FOUND', 'open');
      await withFile(fileSystem, 'a', (file) => file.write(pattern(10), 0));
      const file = await fileSystem.open('a', { noFollow: true });
      assertBytes(await contentOf(file), pattern(10), 'content');
      await file.close();
    },
  ],
];

export const sizeTests: readonly Test[] = [
  [
    'the size is the end of the last byte, and overwriting does not change it',
    async (fileSystem) => {
      await withFile(fileSystem, 'a', async (file) => {
        await file.write(pattern(100), 0);
        assertEqual(await file.size(), 100, 'size after 100 bytes');
        await file.write(pattern(10), 50);
        assertEqual(await file.size(), 100, 'size after overwriting');
        await file.write(pattern(10), 95);
        assertEqual(await file.size(), 105, 'size after writing over the end');
      });
    },
  ],
  [
    'a gap between the old end and a write reads as zeros',
    async (fileSystem) => {
      await withFile(fileSystem, 'a', async (file) => {
        await file.write(pattern(100), 0);
        await file.write(pattern(7), 70_001);
        assertBytes(await contentOf(file), concat(pattern(100), new Uint8Array(69_901), pattern(7)), 'content');
      });
    },
  ],
  [
    'bytes added by truncate read as zeros',
    async (fileSystem) => {
      await withFile(fileSystem, 'a', async (file) => {
        await file.write(pattern(100), 0);
        await file.truncate(10_000);
        assertEqual(await file.size(), 10_000, 'size');
        assertBytes(await contentOf(file), concat(pattern(100), new Uint8Array(9_900)), 'content');
      });
    },
  ],
  [
    'bytes removed by truncate do not return when the file grows again',
    async (fileSystem) => {
      await withFile(fileSystem, 'a', async (file) => {
        await file.write(pattern(10_000), 0);
        await file.truncate(4_321);
        assertBytes(await contentOf(file), pattern(10_000).subarray(0, 4_321), 'contents after truncate');
        await file.truncate(10_000);
        assertBytes(
          await contentOf(file),
          concat(pattern(10_000).subarray(0, 4_321), new Uint8Array(5_679)),
          'contents after growth by truncate',
        );
        await file.write(pattern(10_000), 0);
        await file.truncate(1);
        await file.write(pattern(1), 9_999);
        assertBytes(
          await contentOf(file),
          concat(pattern(1), new Uint8Array(9_998), pattern(1)),
          'contents after growth by a write',
        );
      });
    },
  ],
  [
    'truncate to 0 empties the file, and truncate to its size changes nothing',
    async (fileSystem) => {
      await withFile(fileSystem, 'a', async (file) => {
        await file.write(pattern(5_000), 0);
        await file.truncate(5_000);
        assertBytes(await contentOf(file), pattern(5_000), 'content');
        await file.truncate(0);
        assertEqual(await file.size(), 0, 'size');
      });
    },
  ],
  [
    'a negative, fractional or unsafe offset or size rejects with RangeError, and changes nothing',
    async (fileSystem) => {
      await withFile(fileSystem, 'a', async (file) => {
        await file.write(pattern(10), 0);
        for (const bad of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, Number.MAX_SAFE_INTEGER + 1]) {
          await assertRangeError(file.read(new Uint8Array(1), bad), `read at ${bad}`);
          await assertRangeError(file.write(new Uint8Array(1), bad), `write at ${bad}`);
          await assertRangeError(file.truncate(bad), `truncate to ${bad}`);
        }
        await assertRangeError(
          file.write(new Uint8Array(1), Number.MAX_SAFE_INTEGER),
          'write whose end is not a safe integer',
        );
        assertBytes(await contentOf(file), pattern(10), 'content');
      });
    },
  ],
];
