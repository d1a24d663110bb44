/** The conformance suite of a file system over OPFS in Chromium. */

import { expect, test } from 'vitest';
import { opfsFileSystem } from '../../src/fs/opfs.ts';
import { fileSystemSuite } from '../../src/testing/file-system-suite.ts';
import { bundledWorker } from './workers.ts';

const worker = bundledWorker('suite-worker');

function runInWorker(index: number): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }: MessageEvent<string | undefined>) => resolve(data);
    worker.onerror = ({ message }) => reject(new Error(message));
    worker.postMessage(index);
  });
}

// This page uses only the names: the tests run in the worker.
const names = fileSystemSuite(() => opfsFileSystem(), { sharedHandles: false, locks: false }).map(({ name }) => name);

test.each(names.map((name, index) => ({ name, index })))('$name', async ({ index }) => {
  expect(await runInWorker(index)).toBeUndefined();
});
