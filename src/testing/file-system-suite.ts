/**
 * What {@link FileSystem} promises, as tests for authors of backends. They need no test runner.
 *
 * They do not test whether `sync` is durable: only a crash shows that.
 */

import type { FileSystem } from '../fs/file-system.ts';
import { concurrencyTests, contentTests, inlineTests, sparseTests } from './suite/contents.ts';
import { closeTests, lockTests, noLockTests, removedTests, sharedHandleTests } from './suite/handles.ts';
import { cloneTests, nameTests, optionTests, sizeTests } from './suite/names-and-sizes.ts';

/** One test of a {@link fileSystemSuite}. */
export interface ConformanceTest {
  /** A sentence that states the promise. */
  readonly name: string;
  /** Runs the test on a new file system. Resolves if the promise holds, and rejects with the difference otherwise. */
  run(): Promise<void>;
}

/** Abilities that some backends lack. False leaves out the tests of an ability. Default: all true. */
export interface FileSystemSuiteOptions {
  /** Whether a file can be opened again, or removed, while it is open. False for OPFS. */
  readonly sharedHandles?: boolean;
  /** Whether a file can have a few bytes beyond 4 GiB without allocating 4 GiB. */
  readonly sparse?: boolean;
  /**
   * Whether the file system has `lock`. Without `lock` the suite fails unless this is false: two programs could open
   * one target. Then the name of one test says that there is no lock.
   */
  readonly locks?: boolean;
}

/**
 * Returns tests of what {@link FileSystem} promises, for any test runner. No test leaves a file open; some leave files
 * behind. They do not test whether `sync` is durable: only a crash shows that.
 *
 * @param make returns a file system without files; called once for each test
 * @example
 * ```ts
 * import { memfsFileSystem } from 'copyondemand/memfs';
 * import { fileSystemSuite } from 'copyondemand/testing';
 *
 * const tests = fileSystemSuite(() => memfsFileSystem(), { sparse: false });
 * for (const { name, run } of tests) {
 *   await run().catch((error: unknown) => {
 *     throw new Error(`memfs: ${name}`, { cause: error });
 *   });
 * }
 * ```
 */
export function fileSystemSuite(
  make: () => Promise<FileSystem> | FileSystem,
  options: FileSystemSuiteOptions = {},
): readonly ConformanceTest[] {
  const { sharedHandles = true, sparse = true, locks = true } = options;
  const tests = [
    ...nameTests,
    ...cloneTests,
    ...optionTests,
    ...sizeTests,
    ...contentTests,
    ...inlineTests,
    ...concurrencyTests,
    ...closeTests,
    ...(locks ? lockTests : noLockTests),
    ...(sharedHandles ? [...sharedHandleTests, ...removedTests] : []),
    ...(sparse ? sparseTests : []),
  ];
  return tests.map(([name, test]) => ({ name, run: async () => test(await make()) }));
}
