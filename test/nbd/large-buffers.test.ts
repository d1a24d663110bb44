/** Buffers of large requests: reused, bounded, and never in two hands. */

import { expect, it } from 'vitest';
import { giveBuffer, takeBuffer } from '../../src/nbd/server/large-buffers.ts';

const LARGE = 2 ** 20 + 16;

it('are reused once they are given back, also for another length', () => {
  const first = takeBuffer(LARGE);
  expect(takeBuffer(LARGE).buffer).not.toBe(first.buffer);
  giveBuffer(first);
  const second = takeBuffer(LARGE - 16);
  expect([second.buffer, second.length]).toEqual([first.buffer, LARGE - 16]);
  giveBuffer(second);
  // A part of it is enough to give it back, and only once.
  giveBuffer(second.subarray(5));
  expect(takeBuffer(LARGE).buffer).toBe(first.buffer);
  expect(takeBuffer(LARGE).buffer).not.toBe(first.buffer);
});

it('have no more than twice the length', () => {
  const first = takeBuffer(4 * LARGE);
  giveBuffer(first);
  expect(takeBuffer(LARGE).buffer).not.toBe(first.buffer);
  expect(takeBuffer(3 * LARGE).buffer).toBe(first.buffer);
});

it('are kept up to 8 MiB, and short or foreign ones not at all', () => {
  const taken = Array.from({ length: 12 }, () => takeBuffer(LARGE));
  taken.forEach(giveBuffer);
  const memory = new Set(taken.map(({ buffer }) => buffer));
  const again = Array.from({ length: 12 }, () => takeBuffer(LARGE));
  const reused = again.filter(({ buffer }) => memory.has(buffer)).length;
  // Others of this process may be kept too.
  expect(reused).toBeGreaterThan(0);
  expect(reused).toBeLessThanOrEqual(7);
  expect(new Set(again.map(({ buffer }) => buffer)).size).toBe(12);
  for (const bytes of [takeBuffer(100), new Uint8Array(LARGE)]) {
    giveBuffer(bytes);
    expect(takeBuffer(bytes.length).buffer).not.toBe(bytes.buffer);
  }
});
