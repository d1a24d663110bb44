/** Files that are opened while the browser removes the data of the site. Chromium then throws InvalidStateError. */

import { afterEach, expect, it, vi } from 'vitest';
import { opfsFileSystem } from '../../src/fs/opfs.ts';

/** The browser storage, whose first `stale` root directories are being removed. */
function storage(stale: number): void {
  let roots = 0;
  vi.stubGlobal('navigator', {
    storage: {
      getDirectory: async () => {
        const removed = roots++ < stale;
        return {
          getFileHandle: async () => {
            if (removed) throw new DOMException('The state had changed.', 'InvalidStateError');
            return { createSyncAccessHandle: async () => ({ getSize: () => 5, close: () => undefined }) };
          },
        };
      },
    },
  });
}

afterEach(() => {
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

it('are opened in the directory that comes after it', async () => {
  storage(2);
  const file = await opfsFileSystem().open('disk', { create: true });
  expect(await file.size()).toBe(5);
  await file.close();
});

it('are refused after five seconds, with the way out', async () => {
  vi.useFakeTimers();
  storage(Number.POSITIVE_INFINITY);
  const told: unknown[] = [];
  opfsFileSystem()
    .open('disk', { create: true })
    .catch((error: unknown) => told.push(error));
  await vi.advanceTimersByTimeAsync(4900);
  expect(told).toEqual([]);
  await vi.advanceTimersByTimeAsync(200);
  expect(told).toMatchObject([
    { code: 'COD_TARGET_IO', message: 'open disk: the data of this site was removed: reload the page' },
  ]);
});
