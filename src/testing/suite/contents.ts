/** Conformance tests: contents of files, synchronous calls, concurrent calls, and large offsets. */

import { concat } from '../../core/concat.ts';
import { readFile, writeFile } from '../../fs/inline-file.ts';
import { assertBytes, assertCode, assertEqual, assertRangeError } from '../assert.ts';
import { seededRandom } from '../random.ts';
import { contentOf, MIB, pattern, type Test, withFile } from './tools.ts';

export const contentTests: readonly Test[] = [
  [
    'written bytes are read back, also after close and reopen',
    async (fileSystem) => {
      await withFile(fileSystem, 'a', async (file) => {
        await file.write(pattern(4096, 1), 0);
        await file.write(pattern(4096, 2), 4096);
        await file.write(pattern(100, 3), 4000);
        await file.sync();
      });
      const expected = concat(pattern(4096, 1), pattern(4096, 2));
      expected.set(pattern(100, 3), 4000);
      await withFile(fileSystem, 'a', async (file) => assertBytes(await contentOf(file), expected, 'content'));
    },
  ],
  [
    'a read across the end of the file rejects with COD_SHORT_READ, however long it is',
    async (fileSystem) => {
      await withFile(fileSystem, 'a', async (file) => {
        await assertCode(file.read(new Uint8Array(1), 0), 'COD_SHORT_READ', 'read of an empty file');
        await file.write(pattern(1000), 0);
        await assertCode(file.read(new Uint8Array(2), 999), 'COD_SHORT_READ', 'read across the end');
        await assertCode(file.read(new Uint8Array(MIB), 0), 'COD_SHORT_READ', 'long read across the end');
        await assertCode(file.read(new Uint8Array(1), 1000), 'COD_SHORT_READ', 'read at the end');
        await assertCode(file.read(new Uint8Array(1), 1_000_000), 'COD_SHORT_READ', 'read beyond the end');
        await file.read(new Uint8Array(1), 999);
      });
    },
  ],
  [
    'reads and writes of 0 bytes do nothing, at any offset',
    async (fileSystem) => {
      await withFile(fileSystem, 'a', async (file) => {
        await file.write(new Uint8Array(0), 0);
        await file.write(new Uint8Array(0), 1000);
        assertEqual(await file.size(), 0, 'size');
        await file.read(new Uint8Array(0), 0);
        await file.read(new Uint8Array(0), 1000);
      });
    },
  ],
  [
    'only the view of a larger buffer is read and written',
    async (fileSystem) => {
      await withFile(fileSystem, 'a', async (file) => {
        for (const length of [100, 100_000]) {
          const outer = pattern(length + 300);
          await file.write(outer.subarray(123, 123 + length), 0);
          assertEqual(await file.size(), length, 'size');
          const into = new Uint8Array(length + 300).fill(0xee);
          await file.read(into.subarray(77, 77 + length), 0);
          const expected = new Uint8Array(length + 300).fill(0xee);
          expected.set(outer.subarray(123, 123 + length), 77);
          assertBytes(into, expected, `a view of ${length} bytes`);
        }
      });
    },
  ],
  [
    'operations of any length at any offset agree with a plain array',
    async (fileSystem) => {
      const random = seededRandom(1);
      const model = new Uint8Array(600_000);
      let size = 0;
      await withFile(fileSystem, 'a', async (file) => {
        for (let step = 0; step < 200; step++) {
          const offset = random.below(300_000);
          const length = random.below(random.oneIn(10) ? 300_000 : 5_000);
          if (random.oneIn(10)) {
            await file.truncate(offset);
            model.fill(0, offset);
            size = offset;
          } else if (random.oneIn(2)) {
            const bytes = random.fill(new Uint8Array(length));
            await file.write(bytes, offset);
            model.set(bytes, offset);
            if (length > 0) size = Math.max(size, offset + length);
          } else {
            const from = Math.min(offset, size);
            const into = new Uint8Array(Math.min(length, size - from));
            await file.read(into, from);
            assertBytes(
              into,
              model.subarray(from, from + into.length),
              `step ${step}: ${into.length} bytes at ${from}`,
            );
          }
          assertEqual(await file.size(), size, `step ${step}: size`);
        }
        assertBytes(await contentOf(file), model.subarray(0, size), 'content');
      });
    },
  ],
  [
    'operations of several MiB, at odd offsets and of odd lengths, are complete',
    async (fileSystem) => {
      const bytes = pattern(9 * MIB + 12_345);
      await withFile(fileSystem, 'a', async (file) => {
        await file.write(bytes, 4_097);
        await file.sync();
        assertEqual(await file.size(), 4_097 + bytes.length, 'size');
        assertBytes(await contentOf(file), concat(new Uint8Array(4_097), bytes), 'content');
      });
    },
  ],
];

/** If a backend has no synchronous calls, these tests use its ordinary calls. */
export const inlineTests: readonly Test[] = [
  [
    'reads and writes that may complete synchronously agree with a plain array',
    async (fileSystem) => {
      const random = seededRandom(3);
      const model = new Uint8Array(70_000);
      await withFile(fileSystem, 'a', async (file) => {
        await file.write(model, 0);
        for (let step = 0; step < 300; step++) {
          const outer = random.fill(new Uint8Array(10_000));
          const length = random.below(5_000);
          const part = outer.subarray(77, 77 + length);
          const offset = random.below(model.length - length);
          if (random.oneIn(2)) {
            await writeFile(file, part, offset);
            model.set(part, offset);
            // The buffer belongs to the caller again.
            outer.fill(0);
          } else {
            const expected = outer.slice();
            expected.set(model.subarray(offset, offset + length), 77);
            await readFile(file, part, offset);
            assertBytes(outer, expected, `step ${step}: ${length} bytes at ${offset}`);
          }
        }
        assertBytes(await contentOf(file), model, 'content');
        await writeFile(file, pattern(10), 70_100);
        assertEqual(await file.size(), 70_110, 'size after a write beyond the end');
      });
    },
  ],
  [
    'reads and writes that may complete synchronously fail with the same errors as the others',
    async (fileSystem) => {
      const file = await fileSystem.open('a', { create: true });
      await file.write(pattern(1000), 0);
      const read = async (length: number, offset: number): Promise<void> => {
        await readFile(file, new Uint8Array(length), offset);
      };
      const write = async (offset: number): Promise<void> => {
        await writeFile(file, pattern(1), offset);
      };
      await assertCode(read(2, 999), 'COD_SHORT_READ', 'read across the end');
      for (const bad of [-1, 0.5, Number.NaN, Number.MAX_SAFE_INTEGER + 1]) {
        await assertRangeError(read(1, bad), `read at ${bad}`);
        await assertRangeError(write(bad), `write at ${bad}`);
      }
      assertBytes(await contentOf(file), pattern(1000), 'content');
      await file.close();
      await assertCode(read(1, 0), 'COD_CLOSED', 'read of a closed file');
      await assertCode(write(0), 'COD_CLOSED', 'write to a closed file');
    },
  ],
];

export const concurrencyTests: readonly Test[] = [
  [
    'overlapping writes to separate ranges, short and long, all arrive',
    async (fileSystem) => {
      const lengths = Array.from({ length: 48 }, (_, index) => (index % 6 === 0 ? 200_000 + index : 1_000 + index));
      await withFile(fileSystem, 'a', async (file) => {
        let offset = 0;
        const writes = lengths.map((length, index) => {
          const start = offset;
          offset += length;
          return () => file.write(pattern(length, index), start);
        });
        await Promise.all(
          seededRandom(2)
            .shuffle(writes)
            .map((write) => write()),
        );
        assertBytes(
          await contentOf(file),
          concat(...lengths.map((length, index) => pattern(length, index))),
          'content',
        );
      });
    },
  ],
  [
    'reads during writes to other ranges return the right bytes',
    async (fileSystem) => {
      const length = 100_000;
      await withFile(fileSystem, 'a', async (file) => {
        await file.write(pattern(length, 1), 0);
        const reads = Array.from({ length: 8 }, async (_, index) => {
          await file.write(pattern(length, index + 2), (index + 1) * length);
          const into = new Uint8Array(length);
          await file.read(into, 0);
          assertBytes(into, pattern(length, 1), `read ${index}`);
        });
        await Promise.all([...reads, file.sync(), file.sync()]);
      });
    },
  ],
  [
    'syncs may overlap writes and other syncs',
    async (fileSystem) => {
      await withFile(fileSystem, 'a', async (file) => {
        await Promise.all(
          Array.from({ length: 10 }, (_, index) =>
            Promise.all([file.write(pattern(5_000, index), index * 5_000), file.sync()]),
          ),
        );
        assertEqual(await file.size(), 50_000, 'size');
      });
    },
  ],
];

export const sparseTests: readonly Test[] = [
  [
    'offsets beyond 4 GiB do not wrap around',
    async (fileSystem) => {
      const far = 2 ** 32 + 1_000;
      await withFile(fileSystem, 'a', async (file) => {
        await file.write(pattern(100, 1), 1_000);
        await file.write(pattern(100, 2), far);
        await file.write(pattern(100_000, 3), 2 * far);
        assertEqual(await file.size(), 2 * far + 100_000, 'size');
        for (const [offset, length, seed] of [
          [1_000, 100, 1],
          [far, 100, 2],
          [2 * far, 100_000, 3],
        ] as const) {
          const into = new Uint8Array(length);
          await file.read(into, offset);
          assertBytes(into, pattern(length, seed), `at ${offset}`);
        }
        await file.truncate(far + 50);
        assertEqual(await file.size(), far + 50, 'size after truncate');
        await file.truncate(0);
      });
    },
  ],
];
