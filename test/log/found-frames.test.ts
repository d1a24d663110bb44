/** The frames that a repair finds in a log: all that are whole, wherever they are. */

import { expect, test } from 'vitest';
import { concat } from '../../src/core/concat.ts';
import { HEADER_BYTES, SECTOR_BYTES } from '../../src/core/layout.ts';
import { type FoundFrame, framesOf } from '../../src/log/found-frames.ts';
import { CrashingFileSystem } from '../../src/testing/index.ts';
import { Core } from '../../src/wasm/core.ts';
import {
  BASED,
  barrier,
  CONTINUED,
  filled,
  frame,
  logBody,
  mayRead,
  modified,
  written,
  writtenPair,
} from '../core/models.ts';

const EPOCH = 7;
const core = Core.create();

/** Finds the frames in the body of a log. */
async function framesIn(body: Uint8Array, epoch: number = EPOCH): Promise<FoundFrame[]> {
  const fileSystem = new CrashingFileSystem();
  const file = await fileSystem.open('log', { create: true });
  await file.write(concat(new Uint8Array(HEADER_BYTES), body), 0);
  const found: FoundFrame[] = [];
  for await (const each of framesOf(core, file, HEADER_BYTES + body.length, epoch)) found.push(each);
  await file.close();
  return found;
}

type Record = Parameters<typeof frame>[1][number];
const one = (sequence: number, ...records: Record[]) => frame({ epoch: EPOCH, sequence }, records);
const bodyOf = (...records: Record[]) => logBody([one(5, ...records)]);

test('frames are found behind missing ones, side by side in a sector, and in the order of their places', async () => {
  const far = new Uint8Array(600 * SECTOR_BYTES);
  const body = concat(logBody([one(3, written(0, 1)), one(9, written(0, 1))]), far, logBody([one(1, written(0, 1))]));
  expect((await framesIn(body)).map(({ sequence }) => sequence)).toEqual([3, 9, 1]);
});

test('a frame of another epoch is not found, and an epoch counts modulo 2^32', async () => {
  const body = bodyOf(written(0, 1));
  expect(await framesIn(body, EPOCH + 1)).toEqual([]);
  expect(await framesIn(body, EPOCH + 2 ** 32)).toHaveLength(1);
});

test('a frame with a wrong byte is not found, and hides none behind it', async () => {
  const first = one(1, written(4096, 100), filled(8192, 4096));
  const second = one(2, written(0, 1));
  for (let at = 0; at < first.length; at++) {
    const body = logBody([first, second]);
    body[at]! ^= 1 << (at % 8);
    expect(
      (await framesIn(body)).map(({ sequence }) => sequence),
      `byte ${at}`,
    ).toEqual([2]);
  }
});

test('a frame does not cross a sector, has a record, and its length is that of whole records', async () => {
  const crossing = concat(new Uint8Array(SECTOR_BYTES - 32), one(1, written(0, 1)));
  expect(await framesIn(concat(crossing, new Uint8Array(2 * SECTOR_BYTES - crossing.length)))).toEqual([]);
  const last = concat(new Uint8Array(SECTOR_BYTES - 40), one(1, written(0, 1)));
  expect(await framesIn(last)).toHaveLength(1);
  expect(await framesIn(logBody([one(1)], 1))).toEqual([]);
});

test('a frame says what its records name', async () => {
  const [found] = await framesIn(
    bodyOf(
      written(4096 + 7, 10),
      writtenPair(8192),
      filled(2 ** 40, 5000),
      modified(100, 50),
      mayRead(2 ** 45),
      barrier(3),
      BASED,
    ),
  );
  expect(found).toMatchObject({
    sequence: 5,
    isRegular: true,
    held: [
      { offset: 4103, length: 10 },
      { offset: 8192, length: 8192 },
      { offset: 2 ** 40, length: 5000 },
    ],
    changes: [
      { offset: 4103, length: 10 },
      { offset: 8192, length: 8192 },
      { offset: 100, length: 50 },
    ],
    end: 2 ** 45 + 1,
    ...{ barrier: 3, hasBarrier: true, hasBased: true },
  });
  const [plain] = await framesIn(bodyOf(CONTINUED));
  expect(plain).toMatchObject({ isRegular: true, held: [], changes: [], end: 0 });
  expect(plain).toMatchObject({ barrier: 0, hasBarrier: false, hasBased: false });
  // The highest of several barriers counts.
  const [barriers] = await framesIn(bodyOf(barrier(4), barrier(2)));
  expect(barriers!.barrier).toBe(4);
});

test('a frame is alone in the sector that it returns', async () => {
  const [, second] = await framesIn(logBody([one(1, written(0, 1)), one(2, written(0, 2))]));
  const sector = second!.sector();
  expect(sector.length).toBe(SECTOR_BYTES);
  expect((await framesIn(sector)).map(({ sequence }) => sequence)).toEqual([2]);
});

const REGULAR: readonly [string, Record][] = [
  ['a write up to the end of its cell', written(4095, 1)],
  ['a pair of cells', writtenPair(4096)],
  ['one filled byte', filled(1, 1)],
  ['one modified byte', modified(1, 1)],
  ['a cell that may be read', mayRead(8192)],
  ['a barrier through all frames before', barrier(5)],
  ['a continued log', CONTINUED],
  ['a durable checkpoint', BASED],
];

test.each(REGULAR)('%s is regular', async (_, record) => {
  const [found] = await framesIn(bodyOf(record));
  expect(found!.isRegular).toBe(true);
});

const IRREGULAR: readonly [string, Record][] = [
  ['an empty write', written(0, 0)],
  ['a write beyond its cell', written(4095, 2)],
  ['a pair that begins within a cell', writtenPair(1)],
  ['nothing filled', filled(0, 0)],
  ['nothing modified', modified(0, 0)],
  ['a part of a cell that may be read', mayRead(1)],
  ['a barrier through later frames', barrier(6)],
  ['a barrier with an offset', [(2n << 56n) | 1n, 1]],
  ['a durable checkpoint with an offset', [(4n << 56n) | 1n, 0]],
  ['a durable checkpoint with a value', [4n << 56n, 1]],
  ['an unknown record', [9n << 56n, 0]],
];

test.each(IRREGULAR)('%s is irregular, also between regular records', async (_, record) => {
  for (const records of [[record], [written(0, 1), record], [record, written(0, 1), CONTINUED]]) {
    const [found] = await framesIn(bodyOf(...records));
    expect(found!.isRegular).toBe(false);
  }
});
