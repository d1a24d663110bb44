/** Holes of files on a real file system. */

import {
  appendFileSync,
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { HOLE_BYTES } from '../../src/fs/inline-file.ts';
import { nodeFileSystem } from '../../src/node.ts';
import { HoleReader } from '../../src/platform/hole-reader.ts';
import { fileSource } from '../../src/sources/file.ts';

const MIB = 2 ** 20;
const SIZE = 32 * MIB + 1234;

let folder: string;
let path: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'cod-holes-'));
  path = join(folder, 'disk');
});

afterEach(() => {
  vi.restoreAllMocks();
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

describe('a stream of a sparse file', () => {
  for (const pieceBytes of [undefined, 2 * MIB, 4 * MIB]) {
    it(`yields the file's bytes, of holes past the page cache, in pieces of ${pieceBytes} bytes`, async () => {
      const expected = makeSparse(SIZE);
      const read = vi.spyOn(HoleReader.prototype, 'read');
      const source = await fileSource(path);
      for (const offset of [0, 4096, 511]) {
        const found = new Uint8Array(SIZE - offset);
        let at = 0;
        for await (const piece of source.stream!(offset, SIZE - offset, { pieceBytes } as object)) {
          found.set(piece, at);
          at += piece.length;
        }
        expect(at).toBe(SIZE - offset);
        expect(Buffer.compare(found, expected.subarray(offset)), `from ${offset} on`).toBe(0);
      }
      // Two of the streams begin on a page.
      const holes = await Promise.all(read.mock.results.map(({ value }) => value as Promise<boolean>));
      expect(holes.filter((isRead) => isRead).length * (pieceBytes ?? 2 ** 17)).toBeGreaterThan(24 * MIB);
      await source.close();
    });
  }

  it('notices that the file changes', async () => {
    makeSparse(SIZE);
    const source = await fileSource(path);
    const reading = (async () => {
      for await (const piece of source.stream!(0, SIZE)) if (piece.length > 0) appendFileSync(path, 'x');
    })();
    await expect(reading).rejects.toMatchObject({ code: 'COD_SOURCE_CHANGED' });
    await source.close();
  });

  it('ends when the source is closed meanwhile', async () => {
    makeSparse(SIZE);
    const source = await fileSource(path);
    const reading = (async () => {
      for await (const piece of source.stream!(0, SIZE)) if (piece.length > 0) void source.close();
    })();
    await expect(reading).rejects.toMatchObject({ code: 'COD_CLOSED' });
  });
});
