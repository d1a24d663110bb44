/** Signals that many waiters share: Node prints no warning of a leak. */

import { expect, onTestFinished, test } from 'vitest';
import { openDevice, type Source } from '../../src/index.ts';
import { memfsFileSystem } from '../../src/memfs.ts';

function warnings(): Error[] {
  const seen: Error[] = [];
  const listener = (warning: Error): void => void seen.push(warning);
  process.on('warning', listener);
  onTestFinished(() => void process.off('warning', listener));
  return seen;
}

/** A source that answers later, and that listens to each signal until then. */
const slow: Source = {
  size: 2 ** 24,
  identity: 'slow',
  async read(into, _offset, options) {
    const listener = (): void => undefined;
    options?.signal?.addEventListener('abort', listener);
    await new Promise((resolve) => setTimeout(resolve, 5));
    options?.signal?.removeEventListener('abort', listener);
    into.fill(1);
  },
  close: async () => undefined,
};

test.each([undefined, 2 ** 25])('a copy with 20 streams and the rate %s', async (rateBytesPerSecond) => {
  const seen = warnings();
  const device = await openDevice({
    source: slow,
    fileSystem: memfsFileSystem(),
    target: 'disk',
    hydrate: {
      concurrency: 20,
      extentBytes: 2 ** 18,
      ...(rateBytesPerSecond === undefined ? {} : { rateBytesPerSecond }),
    },
  });
  const reads = Array.from({ length: 40 }, (_, index) =>
    device.read(new Uint8Array(512), 2 ** 24 - 512 * 8 * (index + 1)),
  );
  await Promise.all(reads);
  await device.hydrated;
  await device.close();
  await new Promise(setImmediate);
  expect(seen).toEqual([]);
});
