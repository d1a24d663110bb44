/** Inodes of ext whose block numbers are damaged. */

import { expect, test } from 'vitest';
import { Inode } from '../../src/web/volumes/ext-inode.ts';
import { arrayBytes } from '../support/volumes.ts';

const BLOCK_BYTES = 1024;
const FILE = 0x8000;
const TRIPLE_INDIRECT = 14;

/** A file of 1 TiB on a disk of three blocks. Its only pointer is to block 1, of which each pointer is to `next`. */
async function lengthOf(next: number): Promise<number> {
  const disk = arrayBytes(new Uint8Array(3 * BLOCK_BYTES));
  const blocks = new Uint8Array(3 * BLOCK_BYTES);
  new Uint32Array(blocks.buffer, BLOCK_BYTES, BLOCK_BYTES / 4).fill(next);
  const bytes = { ...disk, read: async (at: number, length: number) => blocks.slice(at, at + length) };
  const raw = new Uint8Array(128);
  const view = new DataView(raw.buffer);
  view.setUint16(0, FILE, true);
  view.setUint32(108, 2 ** 8, true);
  view.setUint32(40 + TRIPLE_INDIRECT * 4, 1, true);
  let length = 0;
  const inode = new Inode(raw, { bytes, blockBytes: BLOCK_BYTES, blockCount: 3 });
  for await (const run of inode.file().runs()) length += run.length;
  return length;
}

test('refuses a block of block numbers that is used twice, which would take billions of steps', async () => {
  await expect(lengthOf(1)).rejects.toThrow('this file uses block 1 of its block numbers twice');
  await expect(lengthOf(2)).rejects.toThrow('this file uses block 2 of its block numbers twice');
});

test('reads pointers that are zero as holes', async () => {
  expect(await lengthOf(0)).toBe(2 ** 40);
});
