/**
 * What {@link FileSystem} promises, as tests that need no test runner: whoever writes a backend runs them over it.
 *
 * What only a crash shows, whether `sync` is durable, is not in here.
 */

import type { FileSystem } from '../fs/file-system.ts';
import { concurrencyTests, contentTests, inlineTests, sparseTests } from './suite/contents.ts';
import { closeTests, lockTests, removedTests, sharedHandleTests } from './suite/handles.ts';
import { nameTests, sizeTests } from './suite/names-and-sizes.ts';

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
