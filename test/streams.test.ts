/** The streams of a device, with what Node has to read streams and Blobs as the models. */

import { Readable } from 'node:stream';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { bytesSource, openDevice } from '../src/index.ts';
import { memfsFileSystem } from '../src/memfs.ts';
import { blobOf, type ReadableDevice, readable } from '../src/streams.ts';
import { seededRandom } from '../src/testing/random.ts';

const SIZE = 600_001;
const content = seededRandom(7).fill(new Uint8Array(SIZE));

/** A device that is being copied: the background copy is paused, so every read goes to the source first. */
async function withDevice(task: (device: ReadableDevice) => Promise<void>): Promise<void> {
  const device = await openDevice({ source: bytesSource(content), fileSystem: memfsFileSystem(), target: '/disk.raw' });
  device.pause();
  try {
    await task(device);
  } finally {
    await device.close();
  }
}

/** A device that counts reads, and whose reads end when the test says so. */
function manualDevice(): ReadableDevice & {
  reads: { length: number; end(error?: Error): void }[];
  aborted: unknown[];
} {
  const reads: { length: number; end(error?: Error): void }[] = [];
  const aborted: unknown[] = [];
  return {
    size: SIZE,
    reads,
    aborted,
    read: (into, _, { signal } = {}) =>
      new Promise((resolve, reject) => {
        signal?.addEventListener('abort', () => {
          aborted.push(signal.reason);
          reject(signal.reason);
        });
        reads.push({ length: into.length, end: (error) => (error === undefined ? resolve() : reject(error)) });
      }),
  };
}

const read = async (stream: ReadableStream<Uint8Array<ArrayBuffer>>): Promise<Uint8Array> =>
  new Uint8Array(await new Response(stream).arrayBuffer());

describe('a stream of a device', () => {
  test('is a body of a Response, whole or a range of it', () =>
    withDevice(async (device) => {
      expect(Buffer.compare(await read(readable(device)), content)).toBe(0);
      const part = await read(readable(device, { start: 5, end: 300_007 }));
      expect(Buffer.compare(part, content.subarray(5, 300_007))).toBe(0);
      expect(await read(readable(device, { start: SIZE }))).toHaveLength(0);
    }));

  test('is piped, and read by Node’s streams', () =>
    withDevice(async (device) => {
      const pieces: Uint8Array[] = [];
      await readable(device).pipeTo(new WritableStream({ write: (piece) => void pieces.push(piece) }));
      expect(Buffer.compare(Buffer.concat(pieces), content)).toBe(0);
      const chunks = await Readable.fromWeb(readable(device, { start: 9 }) as never).toArray();
      expect(Buffer.compare(Buffer.concat(chunks), content.subarray(9))).toBe(0);
    }));

  test('fills the buffers of its reader', () =>
    withDevice(async (device) => {
      const reader = readable(device, { start: 1, end: 100_001 }).getReader({ mode: 'byob' });
      const first = await reader.read(new Uint8Array(70_000));
      expect(Buffer.compare(first.value!, content.subarray(1, 70_001))).toBe(0);
      const second = await reader.read(new Uint8Array(70_000));
      expect(Buffer.compare(second.value!, content.subarray(70_001, 100_001))).toBe(0);
      expect((await reader.read(new Uint8Array(1))).done).toBe(true);
    }));

  test('reads nothing ahead of its consumer', async () => {
    const device = manualDevice();
    const reader = readable(device).getReader();
    await new Promise(setImmediate);
    expect(device.reads).toHaveLength(0);
    const first = reader.read();
    await new Promise(setImmediate);
    expect(device.reads.map(({ length }) => length)).toEqual([2 ** 18]);
    device.reads[0]!.end();
    await first;
    await new Promise(setImmediate);
    expect(device.reads).toHaveLength(1);
  });

  test('aborts the read in flight when it is cancelled', async () => {
    const device = manualDevice();
    const reader = readable(device).getReader();
    const ended = reader.read();
    await new Promise(setImmediate);
    await reader.cancel('enough');
    expect(await ended).toEqual({ done: true, value: undefined });
    expect(device.aborted).toEqual(['enough']);
  });

  test('ends with the reason of its signal, before, between and during reads', async () => {
    const reason = new Error('no more');
    const device = manualDevice();
    const early = readable(device, { signal: AbortSignal.abort(reason) });
    await expect(early.getReader().read()).rejects.toBe(reason);
    const idle = new AbortController();
    const idleStream = readable(device, { signal: idle.signal });
    idle.abort(reason);
    await expect(idleStream.getReader().read()).rejects.toBe(reason);
    expect(device.reads).toHaveLength(0);
    const busy = new AbortController();
    const reading = readable(device, { signal: busy.signal }).getReader().read();
    await new Promise(setImmediate);
    busy.abort(reason);
    await expect(reading).rejects.toBe(reason);
    expect(device.aborted).toEqual([reason]);
  });

  test('ends with the error of a read', async () => {
    const device = manualDevice();
    const reading = readable(device).getReader().read();
    await new Promise(setImmediate);
    device.reads[0]!.end(new Error('the disk is gone'));
    await expect(reading).rejects.toThrow('the disk is gone');
  });

  test.each([
    { start: -1 },
    { start: 0.5 },
    { start: 2, end: 1 },
    { end: SIZE + 1 },
    { start: SIZE + 1 },
    { end: Number.NaN },
  ])('is refused for %o', (range) => {
    expect(() => readable(manualDevice(), range)).toThrow(RangeError);
  });
});

describe('a device read like a Blob', () => {
  test('has the slices of a Blob', () =>
    withDevice(async (device) => {
      const offset = fc.option(fc.integer({ min: -SIZE - 9, max: SIZE + 9 }), { nil: undefined });
      const model = new Blob([content]);
      const slices = fc.asyncProperty(offset, offset, offset, offset, async (start, end, from, to) => {
        const found = blobOf(device).slice(start, end, 'a/b').slice(from, to);
        const expected = model.slice(start, end, 'a/b').slice(from, to);
        expect([found.size, found.type]).toEqual([expected.size, expected.type]);
        expect(Buffer.compare(Buffer.from(await found.arrayBuffer()), Buffer.from(await expected.arrayBuffer()))).toBe(
          0,
        );
      });
      await fc.assert(slices, { numRuns: 30 });
    }));

  test('has the members of a Blob that read it', () =>
    withDevice(async (device) => {
      const blob = blobOf(device, { type: 'application/x-raw-disk-image' });
      expect([blob.size, blob.type]).toEqual([SIZE, 'application/x-raw-disk-image']);
      expect(Buffer.compare(await read(blob.slice(3, 70_000).stream()), content.subarray(3, 70_000))).toBe(0);
      expect(await blob.slice(-9).bytes()).toEqual(content.subarray(-9));
      expect(await blob.slice(0, 400).text()).toBe(await new Blob([content.subarray(0, 400)]).text());
    }));

  test('refuses to read more than a buffer can hold', async () => {
    const blob = blobOf({ size: 2 ** 40, read: () => Promise.reject(new Error('read')) });
    await expect(blob.arrayBuffer()).rejects.toThrow(RangeError);
  });
});
