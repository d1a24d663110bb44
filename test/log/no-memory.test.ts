/** Lack of memory is COD_NO_MEMORY. The state stays as it was, or the log is poisoned. */

import { Volume } from 'memfs';
import { RoaringUint8Array } from 'roaring-wasm/browser';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { bitmapsReady } from '../../src/core/bitmap-heap.ts';
import { BlockMap } from '../../src/core/block-map.ts';
import { geometry } from '../../src/core/geometry.ts';
import { GrowingBuffer } from '../../src/core/growing-buffer.ts';
import type { CodError } from '../../src/errors.ts';
import { memfsFileSystem } from '../../src/fs/memfs.ts';
import { inspectMetadata } from '../../src/log/inspect.ts';
import { type OpenLog, openLog } from '../../src/log/intent-log.ts';
import { failureOf } from '../../src/nbd/server/commands.ts';
import { ioError } from '../../src/platform/errno.ts';
import { SimulatedClock } from '../../src/testing/index.ts';
import { Core } from '../../src/wasm/core.ts';

const BLOCK = 4096;
const SIZE = 2 ** 36;

afterEach(() => vi.restoreAllMocks());

const noMemory = expect.objectContaining({ name: 'CodError', code: 'COD_NO_MEMORY' });

/** Takes all memory of roaring-wasm, whose heap cannot grow from now on. Returns a function that gives it back. */
async function takeHeap(): Promise<() => void> {
  await bitmapsReady();
  vi.spyOn(WebAssembly.Memory.prototype, 'grow').mockImplementation(() => {
    throw new RangeError('WebAssembly.Memory.grow(): Maximum memory size exceeded');
  });
  // roaring-wasm prints the aborts that it throws.
  vi.spyOn(console, 'error').mockImplementation(() => undefined);
  const taken: RoaringUint8Array[] = [];
  for (let length = 2 ** 20; length >= 8; ) {
    try {
      taken.push(new RoaringUint8Array(length));
    } catch {
      length /= 2;
    }
  }
  return () => {
    vi.restoreAllMocks();
    for (const bytes of taken) bytes.dispose();
  };
}

async function open(fileSystem = memfsFileSystem(new Volume())): Promise<OpenLog> {
  const storage = { read: async () => undefined, sync: async () => undefined };
  return openLog(
    { clock: new SimulatedClock(), randomBytes: (into) => into.fill(1) },
    { fileSystem, name: 'log', size: SIZE, checkpointIntervalMs: Number.POSITIVE_INFINITY, storage },
  );
}

/** Commits every second block of 2^16 blocks, which is a bitmap of 8 KiB. */
async function commitScattered(log: OpenLog, first: number): Promise<void> {
  const transaction = log.begin();
  for (let block = 0; block < 2 ** 16; block += 2) transaction.filled((first + block) * BLOCK, BLOCK);
  await log.commit(transaction);
}

describe('bytes of a length that we choose', () => {
  it('are COD_NO_MEMORY', () => {
    const buffer = new GrowingBuffer();
    buffer.extend(3).set([1, 2, 3]);
    expect(() => buffer.extend(2 ** 52)).toThrow(noMemory);
    expect([...buffer.bytes]).toEqual([1, 2, 3]);
  });

  it('are COD_NO_MEMORY in a file system in memory, and if the kernel says so', () => {
    expect(ioError('write', new RangeError('Array buffer allocation failed')).code).toBe('COD_NO_MEMORY');
    expect(ioError('read', Object.assign(new Error('ENOMEM'), { code: 'ENOMEM' })).code).toBe('COD_NO_MEMORY');
    expect(ioError('write', new Error('other')).code).toBe('COD_TARGET_IO');
  });

  it('are ENOMEM for a client of NBD', () => {
    const error = ioError('write', new RangeError('Array buffer allocation failed'));
    expect(failureOf(error)).toEqual({ error: 12, message: 'COD_NO_MEMORY' });
  });
});

describe('an instance of the core', () => {
  it('that cannot be made is COD_NO_MEMORY, and a wrong limit a RangeError', () => {
    class Failing {
      constructor() {
        throw new RangeError('WebAssembly.Instance(): Out of memory: Cannot allocate Wasm memory for new instance');
      }
    }
    vi.spyOn(WebAssembly, 'Instance').mockImplementation(Failing as never);
    expect(() => Core.create()).toThrow(noMemory);
    expect(() => Core.create(undefined, { memoryLimit: 1 })).toThrow(RangeError);
  });
});

describe('a heap of the bitmaps that is full', () => {
  /** The heap seems to have its full size, so that only what is free within is room. */
  function fullHeap(): void {
    const view = new Uint8Array(8);
    Object.defineProperty(view, 'buffer', { value: { byteLength: 2 ** 31 } });
    vi.spyOn(RoaringUint8Array.prototype, 'asTypedArray').mockReturnValue(view);
  }

  it('refuses records before they are in the log, and everything works again with room', async () => {
    const files = memfsFileSystem(new Volume());
    const log = await open(files);
    await commitScattered(log, 0);
    const giveBack = await takeHeap();
    fullHeap();
    const used = log.metadataBytes;
    await expect(commitScattered(log, 2 ** 16)).rejects.toThrow(noMemory);
    expect([log.metadataBytes, log.blocks.count]).toEqual([used, 2 ** 15]);
    await expect(open(memfsFileSystem(new Volume()))).rejects.toThrow(noMemory);
    giveBack();
    await commitScattered(log, 2 ** 16);
    expect(log.blocks.count).toBe(2 ** 16);
    await log.close();
    const again = await open(files);
    expect(again.blocks.count).toBe(2 ** 16);
    await again.close();
  });

  it('refuses a recovery and an inspection', async () => {
    const files = memfsFileSystem(new Volume());
    const log = await open(files);
    await commitScattered(log, 0);
    await log.close();
    const giveBack = await takeHeap();
    fullHeap();
    await expect(open(files)).rejects.toThrow(noMemory);
    await expect(inspectMetadata(files, 'log')).rejects.toThrow(noMemory);
    giveBack();
    await (await open(files)).close();
  });

  it('needs only what is free within', async () => {
    await bitmapsReady();
    fullHeap();
    const log = await open();
    await commitScattered(log, 0);
    expect(log.blocks.count).toBe(2 ** 15);
    await log.close();
  });
});

// Last, since all bitmaps of the thread are unusable afterwards.
describe('a heap of the bitmaps that fails to grow unforeseen', () => {
  it('poisons the log, and every map of the thread refuses its calls', async () => {
    const other = await BlockMap.open(geometry({ size: SIZE, blockSize: BLOCK }));
    other.add(0, 1);
    const log = await open();
    await commitScattered(log, 0);
    const giveBack = await takeHeap();
    const refused = await commitScattered(log, 2 ** 16).catch((error: CodError) => error);
    expect(refused).toMatchObject({ code: 'COD_POISONED' });
    expect(refused?.cause).toMatchObject({ code: 'COD_NO_MEMORY' });
    giveBack();
    await expect(log.flush()).rejects.toMatchObject({ code: 'COD_POISONED' });
    for (const call of [
      () => other.has(0),
      () => other.hasAny(0, 9),
      () => other.add(1, 2),
      () => other.countOf(0),
      () => other.serialize(0, new GrowingBuffer()),
      () => [...other.runs()],
    ])
      expect(call).toThrow(noMemory);
    other.dispose();
    await log.close();
    await expect(open()).rejects.toThrow(noMemory);
  });
});
