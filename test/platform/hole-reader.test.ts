/** Holes of files on a real file system. */

import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { HOLE_BYTES } from '../../src/fs/inline-file.ts';
import { nodeFileSystem } from '../../src/node.ts';

const MIB = 2 ** 20;
const SIZE = 32 * MIB + 1234;

let folder: string;
let path: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'cod-holes-'));
  path = join(folder, 'disk');
});

afterEach(() => {
  rmSync(folder, { recursive: true });
});

/** Makes a file of `size` bytes that are zero but for some pieces, and returns what it holds. */
function makeSparse(size: number): Uint8Array {
  const expected = new Uint8Array(size);
  const fd = openSync(path, 'w+');
  ftruncateSync(fd, size);
  for (const [at, length] of [
    [5 * MIB + 17, 3],
    [12 * MIB, 3 * MIB],
    [20 * MIB - 1, 2],
    [size - 5, 5],
  ] as const) {
    expected.fill(7, at, at + length);
    writeSync(fd, expected, at, length, at);
  }
  closeSync(fd);
  return expected;
}

describe('a file of nodeFileSystem', () => {
  it('tells its holes in pieces, and nothing of a file without holes', async () => {
    const expected = makeSparse(SIZE);
    const file = await nodeFileSystem(folder).open('disk');
    const isHole = (at: number): Promise<boolean> =>
      (file as unknown as { isHole(offset: number, length: number): Promise<boolean> }).isHole(at, HOLE_BYTES);
    for (let at = 0; at + HOLE_BYTES <= SIZE; at += HOLE_BYTES) {
      const isZero = expected.subarray(at, at + HOLE_BYTES).every((byte) => byte === 0);
      expect(await isHole(at), `piece at ${at}`).toBe(isZero);
    }
    // The end of the file is within the piece.
    expect(await isHole(32 * MIB)).toBe(false);
    await file.close();
    writeFileSync(path, new Uint8Array(HOLE_BYTES));
    const whole = await nodeFileSystem(folder).open('disk');
    expect(await (whole as unknown as { isHole: typeof isHole }).isHole(0)).toBe(false);
    await whole.close();
  });
});
