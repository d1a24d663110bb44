/**
 * What {@link FileSystem} promises, as tests that need no test runner: whoever writes a backend runs them over it.
 *
 * What only a crash shows, whether `sync` is durable, is not in here.
 */

import { concat } from '../core/concat.ts';
import type { File, FileSystem, Lease } from '../fs/file-system.ts';
import { readFile, writeFile } from '../fs/inline-file.ts';
import { assertBytes, assertCode, assertEqual, assertRangeError } from './assert.ts';
import { seededRandom } from './random.ts';

/** One test: it passes if `run` resolves. `name` is a sentence. */
export interface ConformanceTest {
  readonly name: string;
  run(): Promise<void>;
}

/** What some backends cannot do, and whose tests are then left out. All are on by default. */
export interface FileSystemSuiteOptions {
  /** A name can be opened a second time, or removed, while it is open. Not so in OPFS. */
  readonly sharedHandles?: boolean;
  /** A file can have a few bytes beyond 4 GiB without needing 4 GiB. */
  readonly sparse?: boolean;
  /** It has `lock`. Without one, the suite fails unless told so: two programs could then open one target. */
  readonly locks?: boolean;
}

const MIB = 1 << 20;

/**
 * The tests, to be given to any runner. `make` is called once for each, and returns a file system without files.
 * No test leaves a file open; some leave files behind.
 */
export function fileSystemSuite(
  make: () => Promise<FileSystem> | FileSystem,
  options: FileSystemSuiteOptions = {},
): readonly ConformanceTest[] {
  const { sharedHandles = true, sparse = true, locks = true } = options;
  const tests = [
    ...nameTests,
    ...sizeTests,
    ...contentTests,
    ...inlineTests,
    ...concurrencyTests,
    ...closeTests,
    ...(locks ? lockTests : []),
    ...(sharedHandles ? [...sharedHandleTests, ...removedTests] : []),
    ...(sparse ? sparseTests : []),
  ];
  return tests.map(([name, test]) => ({ name, run: async () => test(await make()) }));
}

type Test = readonly [name: string, test: (fileSystem: FileSystem) => Promise<void>];

const nameTests: readonly Test[] = [
  [
    'opening a missing file without create rejects with COD_NOT_FOUND, and creates nothing',
    async (fileSystem) => {
      await assertCode(fileSystem.open('a'), 'COD_NOT_FOUND', 'open');
      await assertCode(fileSystem.open('a', { create: false }), 'COD_NOT_FOUND', 'open again');
    },
  ],
  [
    'a created file is empty, and is there when opened again',
    async (fileSystem) => {
      await withFile(fileSystem, 'a', async (file) => assertEqual(await file.size(), 0, 'size'));
      const file = await fileSystem.open('a');
      await file.close();
    },
  ],
  [
    'opening with create leaves what an existing file holds',
    async (fileSystem) => {
      await withFile(fileSystem, 'a', (file) => file.write(pattern(1000), 0));
      await withFile(fileSystem, 'a', async (file) => assertBytes(await contentOf(file), pattern(1000), 'content'));
    },
  ],
  [
    'files of different names, one a beginning of the other, do not share anything',
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
    'a removed file is missing, and empty when created anew',
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

const sizeTests: readonly Test[] = [
  [
    'the size is the end of the last byte written, and overwriting does not change it',
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
    'a file that truncate makes longer reads as zeros there',
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
    'what truncate cut off does not come back when the file grows again',
    async (fileSystem) => {
      await withFile(fileSystem, 'a', async (file) => {
        await file.write(pattern(10_000), 0);
        await file.truncate(4_321);
        assertBytes(await contentOf(file), pattern(10_000).subarray(0, 4_321), 'content when cut');
        await file.truncate(10_000);
        assertBytes(
          await contentOf(file),
          concat(pattern(10_000).subarray(0, 4_321), new Uint8Array(5_679)),
          'content when grown by truncate',
        );
        await file.write(pattern(10_000), 0);
        await file.truncate(1);
        await file.write(pattern(1), 9_999);
        assertBytes(
          await contentOf(file),
          concat(pattern(1), new Uint8Array(9_998), pattern(1)),
          'content when grown by a write',
        );
      });
    },
  ],
  [
    'truncate to zero empties the file, truncate to its size changes nothing',
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
    'a negative, fractional or unsafe offset or size is a RangeError, and changes nothing',
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
          'write whose end is no safe integer',
        );
        assertBytes(await contentOf(file), pattern(10), 'content');
      });
    },
  ],
];

const contentTests: readonly Test[] = [
  [
    'written bytes are read back, also after the file was closed',
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
        await assertCode(file.read(new Uint8Array(1), 1_000_000), 'COD_SHORT_READ', 'read behind the end');
        await file.read(new Uint8Array(1), 999);
      });
    },
  ],
  [
    'reads and writes of no bytes do nothing, anywhere',
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
    'a view into a larger buffer is read and written alone',
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
    'operations of several MiB, with odd lengths and offsets, are whole',
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

/** Of a backend without such calls, the others are tested again. */
const inlineTests: readonly Test[] = [
  [
    'reads and writes that complete now or later agree with a plain array once they are done',
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
            // It is the caller's again.
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
        assertEqual(await file.size(), 70_110, 'size after a write behind the end');
      });
    },
  ],
  [
    'reads and writes that complete now or later fail with the same errors as the others',
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

const concurrencyTests: readonly Test[] = [
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
    'reads beside writes to other ranges see the right bytes',
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
    'syncs may overlap writes and each other',
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

const closeTests: readonly Test[] = [
  [
    'close is idempotent, also while another close is under way',
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
    'close waits for the operations under way, and these succeed',
    async (fileSystem) => {
      const file = await fileSystem.open('a', { create: true });
      await file.write(pattern(3 * MIB, 1), 0);
      const into = new Uint8Array(3 * MIB);
      await Promise.all([file.write(pattern(3 * MIB, 2), 3 * MIB), file.read(into, 0), file.sync(), file.close()]);
      assertBytes(into, pattern(3 * MIB, 1), 'what was read');
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
    'this file system has no `lock`, so two programs can open the same target; add it, or pass `locks: false` to ' +
    'fileSystemSuite if open files are exclusive or one program owns them';
  throw new Error(message);
}

const lockTests: readonly Test[] = [
  [
    'a lock keeps others away until it is released, and other names do not matter',
    async (fileSystem) => {
      const lease = await lockOf(fileSystem, 'a');
      await assertCode(lockOf(fileSystem, 'a'), 'COD_LOCKED', 'second lock');
      const other = await lockOf(fileSystem, 'b');
      await other.release();
      await lease.release();
      const again = await lockOf(fileSystem, 'a');
      await lease.release();
      await assertCode(lockOf(fileSystem, 'a'), 'COD_LOCKED', 'lock after a stale release');
      await again.release();
    },
  ],
  [
    'a lock needs no file, and the file can be used while it is held',
    async (fileSystem) => {
      const lease = await lockOf(fileSystem, 'a');
      await assertCode(fileSystem.open('a'), 'COD_NOT_FOUND', 'open');
      await withFile(fileSystem, 'a', (file) => file.write(pattern(10), 0));
      await lease.release();
      await withFile(fileSystem, 'a', async (file) => assertBytes(await contentOf(file), pattern(10), 'content'));
    },
  ],
];

const sharedHandleTests: readonly Test[] = [
  [
    'two handles on one file see what either wrote, and close apart',
    async (fileSystem) => {
      const first = await fileSystem.open('a', { create: true });
      const second = await fileSystem.open('a');
      await first.write(pattern(1000, 1), 0);
      assertBytes(await contentOf(second), pattern(1000, 1), 'what the second sees');
      await second.write(pattern(1000, 2), 500);
      await second.close();
      assertBytes(
        await contentOf(first),
        concat(pattern(1000, 1).subarray(0, 500), pattern(1000, 2)),
        'what the first sees',
      );
      await first.close();
    },
  ],
];

const removedTests: readonly Test[] = [
  [
    'a file that is removed while it is open can be used until it is closed, and is not the new one of its name',
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

const sparseTests: readonly Test[] = [
  [
    'offsets beyond 4 GiB are not taken for others',
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
        assertEqual(await file.size(), far + 50, 'size when cut');
        await file.truncate(0);
      });
    },
  ],
];

async function withFile(fileSystem: FileSystem, name: string, use: (file: File) => Promise<unknown>): Promise<void> {
  const file = await fileSystem.open(name, { create: true });
  try {
    await use(file);
  } finally {
    await file.close();
  }
}

async function contentOf(file: File): Promise<Uint8Array> {
  const content = new Uint8Array(await file.size());
  await file.read(content, 0);
  return content;
}

/** Bytes of which no two shifted or differently seeded stretches are alike. */
function pattern(length: number, seed = 0): Uint8Array {
  return seededRandom(1000 + seed).fill(new Uint8Array(length));
}
