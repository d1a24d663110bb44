/**
 * What {@link FileSystem} promises, as tests for authors of backends. They need no test runner.
 *
 * They do not test whether `sync` is durable: only a crash shows that.
 */

import type { FileSystem } from '../fs/file-system.ts';
import { concurrencyTests, contentTests, inlineTests, sparseTests } from './suite/contents.ts';
import { closeTests, lockTests, removedTests, sharedHandleTests } from './suite/handles.ts';
import { nameTests, sizeTests } from './suite/names-and-sizes.ts';

/** One test. It passes if `run` resolves. `name` is a sentence. */
export interface ConformanceTest {
  readonly name: string;
  run(): Promise<void>;
}

/** Abilities that some backends lack. False leaves out the tests of an ability. Default: all true. */
export interface FileSystemSuiteOptions {
  /** A name can be opened again, or removed, while it is open. False for OPFS. */
  readonly sharedHandles?: boolean;
  /** A file can have a few bytes beyond 4 GiB without allocating 4 GiB. */
  readonly sparse?: boolean;
  /**
   * The file system has `lock`. Without `lock` the suite fails unless this is false: two programs could then open one
   * target.
   */
  readonly locks?: boolean;
}

/**
 * Returns the tests, for any test runner. No test leaves a file open; some leave files behind.
 * @param make returns a file system without files; called once for each test
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
