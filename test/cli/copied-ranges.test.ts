/** Which bytes of a copy are those of its source. */

import { closeSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { copiedRanges, intersection } from '../../src/cli/copied-ranges.ts';
import { openDevice } from '../../src/index.ts';
import { fileSource, nodeFileSystem } from '../../src/node.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { temporaryDirectory } from './temporary.ts';

const BLOCK = 4096;

test('of copied blocks only those that were not modified since', async () => {
  const random = seededRandom(8);
  for (let round = 0; round < 10; round++) {
    const directory = temporaryDirectory();
    const blocks = 40;
    const size = blocks * BLOCK - 100;
    writeFileSync(join(directory, 'image'), new Uint8Array(size).fill(1));
    const source = await fileSource(join(directory, 'image'));
    const options = { source, fileSystem: nodeFileSystem(directory), target: 'disk', hydrate: false } as const;
    const device = await openDevice(options);
    const states = Array.from({ length: blocks }, () => 'missing');
    for (let step = 0; step < 25; step++) {
      const block = random.below(blocks);
      const isWrite = random.below(2) === 0;
      if (isWrite) await device.write(new Uint8Array(10), block * BLOCK);
      else await device.hydrateRange(block * BLOCK, 1);
      if (isWrite) states[block] = 'modified';
      else if (states[block] === 'missing') states[block] = 'copied';
    }
    await device.close();
    await source.close();
    const { ranges, hasMetadata } = await copiedRanges(join(directory, 'disk'), undefined);
    const found = Array.from({ length: blocks }, () => false);
    for (const { offset, length } of ranges)
      for (let at = offset; at < offset + length; at += BLOCK) found[at / BLOCK] = true;
    expect(found).toEqual(states.map((state) => state === 'copied'));
    expect(ranges.every(({ offset, length }) => offset + length <= size)).toBe(true);
    expect(hasMetadata).toBe(true);
  }
});

test('of a file without metadata all', async () => {
  const directory = temporaryDirectory();
  const path = join(directory, 'disk');
  const file = openSync(path, 'w');
  writeSync(file, 'x', 9999);
  closeSync(file);
  expect(await copiedRanges(path, undefined)).toEqual({
    size: 10_000,
    ranges: [{ offset: 0, length: 10_000 }],
    hasMetadata: false,
    isDevice: false,
  });
});

test('intersections', () => {
  const some = [
    { offset: 0, length: 10 },
    { offset: 20, length: 10 },
    { offset: 40, length: 1 },
  ];
  const others = [
    { offset: 5, length: 20 },
    { offset: 26, length: 2 },
    { offset: 29, length: 100 },
  ];
  const expected = [
    { offset: 5, length: 5 },
    { offset: 20, length: 5 },
    { offset: 26, length: 2 },
    { offset: 29, length: 1 },
    { offset: 40, length: 1 },
  ];
  expect(intersection(some, others)).toEqual(expected);
  expect(intersection(others, some)).toEqual(expected);
  expect(intersection(some, [])).toEqual([]);
});
