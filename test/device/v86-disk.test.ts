/** A device as a disk of v86, tested without v86. */

import { expect, onTestFinished, test, vi } from 'vitest';
import { bytesSource, CodError } from '../../src/index.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { type V86Device, v86Disk } from '../../src/v86.ts';
import { expectBytes } from '../support/bytes.ts';

const bytes = seededRandom(1).fill(new Uint8Array(10_000));

/** A device in memory whose writes wait until the test releases them. */
function heldDevice(): { device: V86Device; calls: string[]; letGo(): void } {
  const content = bytes.slice();
  const source = bytesSource(content);
  const calls: string[] = [];
  const held: (() => void)[] = [];
  return {
    calls,
    letGo: () => held.shift()!(),
    device: {
      size: content.length,
      read: async (into, offset, options) => {
        calls.push(`read ${offset}`);
        await source.read(into, offset, options);
      },
      write: async (from, offset, options) => {
        calls.push(`write ${offset}${options?.fua ? ' fua' : ''}`);
        await new Promise<void>((resolve) => held.push(resolve));
        content.set(from, offset);
      },
      flush: async () => {
        calls.push('flush');
      },
    },
  };
}

const settle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve));
const fail = (error: unknown): void => {
  throw error;
};

test('has whole sectors, and calls `onload` when it is ready', async () => {
  const { device } = heldDevice();
  const disk = v86Disk(device, { onError: fail });
  expect(disk.byteLength).toBe(9728);
  await new Promise<void>((resolve) => {
    disk.onload = () => resolve();
    disk.load();
  });
});

test('keeps cached bytes available synchronously until they are written', async () => {
  const { device } = heldDevice();
  const disk = v86Disk(device, { onError: fail });
  expect(disk.get_from_cache(0, 512)).toBeUndefined();
  expectBytes(await new Promise<Uint8Array>((resolve) => disk.get_and_cache(0, 512, resolve)), bytes.subarray(0, 512));
  expectBytes(disk.get_from_cache(0, 512)!, bytes.subarray(0, 512));
  expect(disk.get_from_cache(512, 512)).toBeUndefined();
  disk.set(512, new Uint8Array(512), () => undefined);
  expect(disk.get_from_cache(0, 512)).toBeDefined();
  disk.set(0, new Uint8Array(512), () => undefined);
  expect(disk.get_from_cache(0, 512)).toBeUndefined();
});

test('completes a write when it is durable, delays only overlapping requests, and copies the buffer', async () => {
  const { device, calls, letGo } = heldDevice();
  const disk = v86Disk(device, { onError: fail });
  const buffer = new Uint8Array(512).fill(1);
  const done: string[] = [];
  disk.set(1024, buffer, () => done.push('first'));
  buffer.fill(2);
  disk.set(1024, buffer, () => done.push('second'));
  buffer.fill(3);
  let found: Uint8Array | undefined;
  disk.get(1024, 512, (read) => (found = read));
  disk.get(2048, 512, () => done.push('other'));
  await settle();
  expect([calls, done]).toEqual([['write 1024 fua', 'read 2048'], ['other']]);
  letGo();
  await settle();
  expect([calls.slice(2), done]).toEqual([['write 1024 fua'], ['other', 'first']]);
  letGo();
  await settle();
  expect([calls.slice(3), done]).toEqual([['read 1024'], ['other', 'first', 'second']]);
  expectBytes(found!, new Uint8Array(512).fill(2));
});

test('reports errors to `onError`, except those of an aborted read', async () => {
  const errors: unknown[] = [];
  const device: V86Device = {
    size: 512,
    read: (_into, _offset, options) => Promise.reject(options?.signal?.reason ?? 'read'),
    write: () => Promise.reject('write'),
    flush: async () => undefined,
  };
  const disk = v86Disk(device, { onError: (error) => errors.push(error) });
  disk.get(0, 512, fail);
  disk.set(0, new Uint8Array(512), () => fail('done'));
  disk.get(0, 512, fail, { signal: AbortSignal.abort('aborted') });
  await settle();
  expect(errors.sort()).toEqual(['read', 'write']);
});

test('fetches ahead of a guest that reads in sequence, by at most 1 MiB', async () => {
  const size = 2 ** 24;
  const asked: [offset: number, length: number][] = [];
  const device: V86Device = {
    size,
    blockSize: 4096,
    read: async () => undefined,
    write: async () => undefined,
    flush: async () => undefined,
    hydrateRange: async (...range) => {
      asked.push(range);
      throw new Error('the source is away');
    },
  };
  const disk = v86Disk(device, { onError: fail });
  const read = (start: number): Promise<Uint8Array> => new Promise((done) => disk.get(start, 32_768, done));
  await read(2 ** 23);
  expect(asked).toEqual([]);
  for (let start = 0; start < 2 ** 22; start += 32_768) await read(start);
  const ends = asked.map(([offset, length]) => offset + length);
  expect(asked.map(([offset]) => offset)).toEqual([65_536, ...ends.slice(0, -1)]);
  expect(ends.at(-1)).toBeGreaterThan(2 ** 22);
  expect(ends.at(-1)).toBeLessThanOrEqual(2 ** 22 + 2 ** 20);
});

test.each([
  { code: 'COD_CLOSED', told: [] },
  { code: 'COD_NO_SPACE', told: ['COD_NO_SPACE'] },
] as const)('tells of $told when the flush after a write rejects with $code', async ({ code, told }) => {
  vi.useFakeTimers();
  onTestFinished(() => void vi.useRealTimers());
  const { device, letGo } = heldDevice();
  const errors: unknown[] = [];
  const flush = async (): Promise<never> => {
    throw new CodError(code, 'the flush');
  };
  const disk = v86Disk(
    { ...device, flush },
    { durable: false, onError: (error) => void errors.push((error as CodError).code) },
  );
  disk.set(0, new Uint8Array(512), () => undefined);
  await vi.advanceTimersByTimeAsync(1);
  letGo();
  await vi.advanceTimersByTimeAsync(1500);
  expect(errors).toEqual(told);
});
