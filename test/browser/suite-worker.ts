/** Runs the conformance suite over OPFS in a dedicated worker: runs the test of a given number in a new folder. */

import { opfsFileSystem } from '../../src/fs/opfs.ts';
import { fileSystemSuite } from '../../src/testing/file-system-suite.ts';
import { freshDirectory } from './directories.ts';

const tests = fileSystemSuite(async () => opfsFileSystem(await freshDirectory()), {
  sharedHandles: false,
  locks: false,
});

self.addEventListener('message', async ({ data }: MessageEvent<number>) => {
  try {
    await tests[data]!.run();
    postMessage(undefined);
  } catch (error) {
    postMessage(String((error as Error).stack ?? error));
  }
});
