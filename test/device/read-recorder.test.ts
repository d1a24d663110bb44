import { expect, test } from 'vitest';
import { ReadRecorder } from '../../src/index.ts';

/** A recorder for a device of `size` bytes, and a function that sets its clock. */
function recorder(size: number, known: { offset: number; length: number }[] = []) {
  let nowMs = 1000;
  return {
    recorder: new ReadRecorder({ size, clock: { now: () => nowMs }, known }),
    at: (ms: number) => (nowMs = 1000 + ms),
  };
}

test('records each byte once, in whole units, in the order and at the time of its first read', () => {
  const { recorder: notes, at } = recorder(1_000_000);
  at(3.4);
  notes.read(500_000, 1);
  at(7);
  notes.read(4096, 8192);
  notes.read(500_100, 100);
  expect(notes.take()).toEqual([
    { offset: 499_712, length: 4096, atMs: 3 },
    { offset: 4096, length: 8192, atMs: 7 },
  ]);
  at(9);
  notes.read(0, 16_384);
  expect(notes.take()).toEqual([
    { offset: 0, length: 4096, atMs: 9 },
    { offset: 12_288, length: 4096, atMs: 9 },
  ]);
  expect(notes.take()).toEqual([]);
});

test('joins sequential reads into one extent, also of several interleaved streams', () => {
  const { recorder: notes } = recorder(1_000_000);
  for (let step = 0; step < 10; step++) {
    notes.read(step * 4096, 4096);
    notes.read(500_000 - (500_000 % 4096) + step * 4096, 4096);
  }
  expect(notes.take()).toEqual([
    { offset: 0, length: 40_960, atMs: 0 },
    { offset: 499_712, length: 40_960, atMs: 0 },
  ]);
});

test('records nothing beyond a short last block, and nothing for an empty read', () => {
  const { recorder: notes } = recorder(5000);
  notes.read(100, 0);
  notes.read(4999, 1);
  expect(notes.take()).toEqual([{ offset: 4096, length: 904, atMs: 0 }]);
});

test('does not record again what an earlier run recorded', () => {
  const { recorder: notes } = recorder(1_000_000, [{ offset: 8192, length: 4096 }]);
  notes.read(4096, 12_288);
  expect(notes.take()).toEqual([
    { offset: 4096, length: 4096, atMs: 0 },
    { offset: 12_288, length: 4096, atMs: 0 },
  ]);
});

test('records at most 131,072 extents, which bounds memory', () => {
  const { recorder: notes } = recorder(2 ** 40);
  let noted = 0;
  for (let index = 0; index < 2 ** 17 + 100; index++) {
    notes.read(index * 8192, 4096);
    if (index % 1000 === 0) noted += notes.take().length;
  }
  expect(noted + notes.take().length).toBe(2 ** 17);
});
