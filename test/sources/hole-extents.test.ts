/** What a source over a sparse local file tells of its holes. */

import {
  appendFileSync,
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  rmSync,
  truncateSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { type Device, openDevice, type Source } from '../../src/index.ts';
import { nodeFileSystem } from '../../src/node.ts';
import { HoleReader } from '../../src/platform/hole-reader.ts';
import { fileSource } from '../../src/sources/file.ts';

const MIB = 2 ** 20;
const UNIT = 65_536;
const SIZE = 64 * MIB + 1234;
/** Offsets and lengths of data. */
const PIECES: readonly (readonly [number, number])[] = [
  [5 * MIB + 17, 3],
  [12 * MIB, 3 * MIB],
  [20 * MIB - 1, 2],
  [SIZE - 5, 5],
];

let folder: string;
let path: string;
let source: Source;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'cod-holes-'));
  path = join(folder, 'image');
});

afterEach(async () => {
  vi.restoreAllMocks();
  await source.close();
  rmSync(folder, { recursive: true });
});

/** Makes a file that is zero but for some pieces, opens it, and returns what it holds. */
async function open(size: number, pieces: readonly (readonly [number, number])[]): Promise<Uint8Array> {
  const expected = new Uint8Array(size);
  const fd = openSync(path, 'w');
  ftruncateSync(fd, size);
  for (const [at, length] of pieces) {
    expected.fill(7, at, at + length);
    writeSync(fd, expected, at, length, at);
  }
  closeSync(fd);
  source = await fileSource(path);
  return expected;
}

/** Asks for ranges of `step` bytes, and returns the units and the number of bytes that count as zeros. */
async function zerosOf(step: number): Promise<{ units: Set<number>; bytes: number }> {
  const units = new Set<number>();
  let bytes = 0;
  for (let offset = 0; offset < source.size; offset += step) {
    let at = offset;
    for (const { length, zero } of await source.extents!(offset, Math.min(step, source.size - offset))) {
      if (zero) bytes += length;
      if (zero) for (let unit = Math.ceil(at / UNIT); (unit + 1) * UNIT <= at + length; unit++) units.add(unit);
      at += length;
    }
    expect(at).toBe(Math.min(offset + step, source.size));
  }
  return { units, bytes };
}

describe('the extents of a sparse file', () => {
  for (const step of [SIZE, 8 * MIB, 5 * MIB, MIB + 4096]) {
    test(`are its zeros, in units of 64 KiB, when ranges of ${step} bytes are asked for`, async () => {
      const expected = await open(SIZE, PIECES);
      const { units, bytes } = await zerosOf(step);
      for (const unit of units) {
        const held = expected.subarray(unit * UNIT, (unit + 1) * UNIT);
        expect(
          held.every((byte) => byte === 0),
          `unit ${unit}`,
        ).toBe(true);
      }
      // Three reads of data only, at most, after each of which as much again counts as data.
      expect(bytes).toBeGreaterThan(SIZE - 12 * MIB);
    });
  }

  test('are data where the offset is not on a page', async () => {
    await open(SIZE, []);
    expect(await source.extents!(511, 2 * MIB)).toEqual([{ length: 2 * MIB, zero: false }]);
  });

  test('are data in a file without holes, which is not read for that', async () => {
    await open(4 * MIB, [[0, 4 * MIB]]);
    const read = vi.spyOn(HoleReader.prototype, 'read');
    expect(await source.extents!(0, 4 * MIB)).toEqual([{ length: 4 * MIB, zero: false }]);
    expect(read).not.toHaveBeenCalled();
  });

  test('are found with few reads where data is', async () => {
    await open(256 * MIB, [[0, 250 * MIB]]);
    const read = vi.spyOn(HoleReader.prototype, 'read');
    const { bytes } = await zerosOf(8 * MIB);
    const readBytes = read.mock.calls.reduce((sum, [into]) => sum + into.length, 0);
    // 4 MiB after 0, 4, 8, 16, 32, 64 and 64 MiB of data, and the rest.
    expect(readBytes).toBeLessThan(48 * MIB);
    expect(bytes).toBeLessThanOrEqual(6 * MIB);
  });

  test('take turns', async () => {
    const expected = await open(SIZE, PIECES);
    const starts = Array.from({ length: 8 }, (_, index) => index * 8 * MIB);
    const found = await Promise.all(starts.map((start) => source.extents!(start, 8 * MIB)));
    for (const [index, extents] of found.entries()) {
      let at = starts[index]!;
      for (const { length, zero } of extents) {
        if (zero) expect(expected.subarray(at, at + length).every((byte) => byte === 0)).toBe(true);
        at += length;
      }
      expect(at).toBe(starts[index]! + 8 * MIB);
    }
  });

  test('tell that the file has changed', async () => {
    await open(SIZE, PIECES);
    await source.extents!(0, MIB);
    appendFileSync(path, 'x');
    await expect(source.extents!(MIB, MIB)).rejects.toMatchObject({ code: 'COD_SOURCE_CHANGED' });
  });

  test('leave a file that became shorter to its readers', async () => {
    await open(SIZE, PIECES);
    truncateSync(path, MIB);
    expect(await source.extents!(32 * MIB, 8 * MIB)).toEqual([{ length: 8 * MIB, zero: false }]);
    await expect(source.read(new Uint8Array(512), 32 * MIB)).rejects.toMatchObject({ code: 'COD_SHORT_READ' });
  });

  test('end when the source is closed meanwhile', async () => {
    await open(SIZE, PIECES);
    const asked = source.extents!(0, SIZE);
    const closing = source.close();
    await expect(asked).rejects.toMatchObject({ code: 'COD_CLOSED' });
    await closing;
  });
});

describe('a stream of a sparse file', () => {
  for (const pieceBytes of [undefined, 2 * MIB, 4 * MIB]) {
    test(`yields the file's bytes in pieces of ${pieceBytes} bytes`, async () => {
      const expected = await open(SIZE, PIECES);
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
    });
  }

  test('notices that the file changes', async () => {
    await open(SIZE, PIECES);
    const reading = (async () => {
      for await (const piece of source.stream!(0, SIZE)) if (piece.length > 0) appendFileSync(path, 'x');
    })();
    await expect(reading).rejects.toMatchObject({ code: 'COD_SOURCE_CHANGED' });
  });

  test('ends when the source is closed meanwhile', async () => {
    await open(SIZE, PIECES);
    const reading = (async () => {
      for await (const piece of source.stream!(0, SIZE)) if (piece.length > 0) void source.close();
    })();
    await expect(reading).rejects.toMatchObject({ code: 'COD_CLOSED' });
  });
});

test('a copy of a sparse file has its bytes, and reads few of its holes as data', async () => {
  const expected = await open(SIZE, PIECES);
  const stream = vi.spyOn(source, 'stream');
  const copied: Device = await openDevice({ source, fileSystem: nodeFileSystem(folder), target: 'disk' });
  await copied.hydrated;
  const found = new Uint8Array(SIZE);
  await copied.read(found, 0);
  await copied.close();
  expect(Buffer.compare(found, expected)).toBe(0);
  expect(stream.mock.calls.reduce((sum, [, length]) => sum + length, 0)).toBeLessThan(12 * MIB);
});
