/** The disk of which nothing is kept. */

import { expect, test } from 'vitest';
import { bytesSource, type Source } from '../../src/index.ts';
import { seededRandom } from '../../src/testing/random.ts';
import { MemoryDisk } from '../../src/web/memory-disk.ts';
import { expectBytes } from '../support/bytes.ts';

const BLOCK = 2 ** 16;
const SIZE = 10 * BLOCK + 777;

/** A source that counts the bytes it delivers. */
function countingSource(bytes: Uint8Array): Source & { sent: number } {
  const source = bytesSource(bytes);
  const counting = {
    size: source.size,
    sent: 0,
    read: (into: Uint8Array, offset: number): Promise<void> => {
      counting.sent += into.length;
      return source.read(into, offset);
    },
    close: () => source.close(),
  };
  return counting;
}

async function readAll(disk: MemoryDisk): Promise<Uint8Array> {
  const bytes = new Uint8Array(disk.size);
  await disk.read(bytes, 0);
  return bytes;
}

test('reads and writes as an array of bytes does, with a cache that is too small', async () => {
  const random = seededRandom(5);
  const model = random.fill(new Uint8Array(SIZE));
  const disk = new MemoryDisk(countingSource(model.slice()), { maxCachedBytes: 2 * BLOCK, maxWrittenBytes: SIZE * 2 });
  for (let round = 0; round < 60; round++) {
    const offset = random.below(SIZE);
    const bytes = new Uint8Array(random.below(Math.min(3 * BLOCK, SIZE - offset) + 1));
    if (random.below(3) === 0) {
      random.fill(bytes);
      model.set(bytes, offset);
      await disk.write(bytes, offset);
    } else {
      await disk.read(bytes, offset);
      expectBytes(bytes, model.subarray(offset, offset + bytes.length));
    }
  }
  expectBytes(await readAll(disk), model);
});

test('keeps no more blocks than the cache has room for, and fetches a block once for several reads', async () => {
  const source = countingSource(new Uint8Array(SIZE));
  const disk = new MemoryDisk(source, { maxCachedBytes: 3 * BLOCK, maxWrittenBytes: BLOCK });
  await Promise.all([disk.read(new Uint8Array(9), 5), disk.read(new Uint8Array(9), 50)]);
  expect(source.sent).toBe(BLOCK);
  await readAll(disk);
  expect(disk.status().syncedBlocks).toBe(3);
  expect([...(await disk.countSynced(11))].reduce((sum, count) => sum + count)).toBe(3);
});

test('refuses writes beyond the memory for them, and keeps the earlier ones', async () => {
  const disk = new MemoryDisk(bytesSource(new Uint8Array(SIZE)), { maxCachedBytes: BLOCK, maxWrittenBytes: 2 * BLOCK });
  await disk.write(Uint8Array.of(1, 2), BLOCK - 1);
  await expect(disk.write(Uint8Array.of(3), 5 * BLOCK)).rejects.toMatchObject({ code: 'COD_NO_MEMORY' });
  await disk.write(Uint8Array.of(4), BLOCK);
  const bytes = new Uint8Array(3);
  await disk.read(bytes, BLOCK - 1);
  expect([...bytes]).toEqual([1, 4, 0]);
});

test.each([
  [-1, 1],
  [0.5, 1],
  [SIZE, 1],
  [0, SIZE + 1],
])('refuses a range from %d of %d bytes', async (offset, length) => {
  const disk = new MemoryDisk(bytesSource(new Uint8Array(SIZE)));
  await expect(disk.read(new Uint8Array(length), offset)).rejects.toThrow(RangeError);
  await expect(disk.write(new Uint8Array(length), offset)).rejects.toThrow(RangeError);
});
