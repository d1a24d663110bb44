/** Both logs count while a checkpoint is being taken: damage to the header of the second one. */

import { expect, it } from 'vitest';
import { inspectMetadata } from '../../src/log/inspect.ts';
import { type Images, MemoryFiles } from './memory-files.ts';
import { BLOCK, Life } from './states.ts';

const NEXT_LOG = 'disk.wil';

/** Killed before the header of checkpoint 2: log 1 says that log 2 continues it, and log 2 has a record. */
async function checkpointUnderWay(): Promise<Images> {
  const life = new Life();
  await life.start();
  await life.write(BLOCK, 100);
  let hasWritten = false;
  let images: Images | undefined;
  life.fileSystem.before = async ({ kind, name, offset }) => {
    if (kind !== 'write' || name !== 'disk.bak') return;
    if (offset === 0) images = life.fileSystem.images();
    else if (!hasWritten && offset >= 512) {
      hasWritten = true;
      await life.write(3 * BLOCK + 50, 7);
    }
  };
  await life.checkpoint();
  return images!;
}

function withHeader(images: Images, change: (header: Uint8Array) => unknown): MemoryFiles {
  const { bytes, size } = images.get(NEXT_LOG)!;
  const changed = bytes.slice();
  change(changed.subarray(0, 512));
  return new MemoryFiles(new Map(images).set(NEXT_LOG, { bytes: changed, size }));
}

it('both logs are read', async () => {
  const { dirty } = await inspectMetadata(new MemoryFiles(await checkpointUnderWay()), 'disk');
  expect(dirty).toEqual([
    { block: 1, ranges: [[0, 100]] },
    { block: 3, ranges: [[50, 7]] },
  ]);
});

it('a header of the second log that is zeroed, also in part, is refused, since no step zeroes it', async () => {
  const images = await checkpointUnderWay();
  for (let length = 1; length <= 512; length++) {
    const files = withHeader(images, (header) => header.fill(0, 0, length));
    await expect(inspectMetadata(files, 'disk'), `${length} bytes`).rejects.toMatchObject({
      // Without magic and end, nothing says that the file is ours.
      code: length <= 504 ? 'COD_CORRUPT' : 'COD_EXISTS',
      details: { file: NEXT_LOG },
    });
  }
});

it('a second log without a header is no damage: the mark of a failed checkpoint may survive', async () => {
  const images = await checkpointUnderWay();
  const without = [
    withHeader(images, (header) => header.fill(0, 9)),
    withHeader(images, (header) => header.fill(0, 504)),
    withHeader(images, (header) => header.fill(0, 511)),
    new MemoryFiles(new Map([...images].filter(([name]) => name !== NEXT_LOG))),
  ];
  for (const files of without) {
    const { dirty } = await inspectMetadata(files, 'disk');
    expect(dirty).toEqual([{ block: 1, ranges: [[0, 100]] }]);
  }
});
