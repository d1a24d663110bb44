import { expect, test } from 'vitest';
import { ReadAhead } from '../../src/device/read-ahead.ts';

const KiB = 1024;
const SIZE = 64 * 1024 * KiB;
const BLOCK = 4 * KiB;

function begin(size = SIZE): { ahead: ReadAhead; fetched: [offset: number, length: number][] } {
  const fetched: [number, number][] = [];
  const device = { size, blockSize: BLOCK };
  return { ahead: new ReadAhead(device, async (offset, length) => void fetched.push([offset, length])), fetched };
}

/** Checks that the fetched ranges have no gap and no overlap. Returns their bounds. */
function contiguous(fetched: readonly [offset: number, length: number][]): [start: number, end: number] {
  for (let index = 1; index < fetched.length; index++)
    expect(fetched[index]![0]).toBe(fetched[index - 1]![0] + fetched[index - 1]![1]);
  return [fetched[0]![0], fetched.at(-1)![0] + fetched.at(-1)![1]];
}

test('reads nothing ahead after one read or random reads', () => {
  const { ahead, fetched } = begin();
  for (const offset of [0, 100, 5000, 9000, 3000, 8000]) ahead.note(offset * KiB, 4 * KiB);
  expect(fetched).toEqual([]);
});

test('reads increasingly far ahead of a run, in pieces, up to the end of the device', () => {
  const { ahead, fetched } = begin();
  for (let offset = 0; offset < SIZE; offset += 64 * KiB) ahead.note(offset, 64 * KiB);
  expect(contiguous(fetched)).toEqual([128 * KiB, SIZE]);
  expect(Math.max(...fetched.map(([, length]) => length))).toBe(256 * KiB);
});

test('continues a run after its fetched bytes', () => {
  const { ahead, fetched } = begin();
  ahead.note(0, 64 * KiB);
  ahead.note(64 * KiB, 64 * KiB);
  const [, end] = contiguous(fetched);
  expect(end).toBe(384 * KiB);
  ahead.note(end, 64 * KiB);
  expect(fetched.slice(1)[0]![0]).toBe(end + 64 * KiB);
});

test('follows a client that reads sectors, and waits at the beginning of each block only', () => {
  const { ahead, fetched } = begin();
  let waits = 0;
  for (let offset = 0; offset < SIZE; waits++) {
    ahead.note(offset, 512);
    // The client comes to a block that was not fetched: here, nothing arrives before the client.
    offset = Math.max(offset + BLOCK, ...fetched.map(([start, length]) => start + length));
  }
  expect(waits).toBeLessThan(30);
});

test('takes neighbouring reads of sectors in one block for a run', () => {
  const { ahead, fetched } = begin();
  ahead.note(10 * BLOCK, 512);
  ahead.note(10 * BLOCK + 512, 512);
  expect(fetched[0]![0]).toBe(11 * BLOCK);
});

test('follows several runs at once', () => {
  const { ahead, fetched } = begin();
  for (let step = 0; step < 16; step++)
    for (const base of [0, 8, 16, 24]) ahead.note((base * 1024 + step * 64) * KiB, 64 * KiB);
  for (const base of [0, 8, 16, 24]) {
    const mine = fetched.filter(([offset]) => Math.floor(offset / (8 * 1024 * KiB)) === base / 8);
    expect(contiguous(mine)[1] - base * 1024 * KiB).toBeGreaterThan(1024 * KiB);
  }
});
