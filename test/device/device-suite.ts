/** The device over a file system: every kind of request against a plain array of bytes, and every promised error. */

import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import {
  CodError,
  type Device,
  type FileSystem,
  type OpenDeviceOptions,
  openDevice,
  type Source,
} from '../../src/index.ts';
import { ALL_SLOTS, slotName } from '../../src/log/slots.ts';
import { bytesSource } from '../../src/sources/bytes.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { expectBytes } from '../support/bytes.ts';
import { nextEvent } from '../support/device-events.ts';

const BLOCK = 4096;

function pattern(size: number, seed = 1): Uint8Array {
  return seededRandom(seed).fill(new Uint8Array(size));
}

async function readAll(device: Device): Promise<Uint8Array> {
  const bytes = new Uint8Array(device.size);
  await device.read(bytes, 0);
  return bytes;
}

async function fileBytes(fileSystem: FileSystem, name: string): Promise<Uint8Array> {
  const file = await fileSystem.open(name);
  try {
    const bytes = new Uint8Array(await file.size());
    await file.read(bytes, 0);
    return bytes;
  } finally {
    await file.close();
  }
}

/** A source whose reads are counted and may wait. */
function watched(bytes: Uint8Array, before: (offset: number, length: number) => Promise<void> = async () => undefined) {
  const inner = bytesSource(bytes, { identity: 'watched' });
  const reads: { offset: number; length: number }[] = [];
  const source: Source = {
    size: inner.size,
    identity: 'watched',
    async read(into, offset, options) {
      reads.push({ offset, length: into.length });
      await before(offset, into.length);
      await inner.read(into, offset, options);
    },
    close: () => inner.close(),
  };
  return { source, reads };
}

/** A file system that counts calls and can fail. */
function meddling(
  inner: FileSystem,
  meddle: (call: { kind: 'write' | 'sync' | 'truncate'; name: string; offset: number }) => Promise<void>,
): FileSystem {
  return {
    ...(inner.bootId === undefined ? {} : { bootId: inner.bootId }),
    remove: (name) => inner.remove(name),
    async open(name, options) {
      const file = await inner.open(name, options);
      return {
        size: () => file.size(),
        read: (into, offset) => file.read(into, offset),
        async write(from, offset) {
          await meddle({ kind: 'write', name, offset });
          await file.write(from, offset);
        },
        async truncate(size) {
          await meddle({ kind: 'truncate', name, offset: size });
          await file.truncate(size);
        },
        async sync() {
          await meddle({ kind: 'sync', name, offset: 0 });
          await file.sync();
        },
        close: () => file.close(),
      };
    },
  };
}

/** The tests. `newFileSystem` makes an empty file system; `numRuns` is the number of random device histories. */
export function deviceSuite(
  where: string,
  newFileSystem: () => FileSystem | Promise<FileSystem>,
  { numRuns = 150 }: { numRuns?: number } = {},
): void {
  const opened: Device[] = [];

  async function open(options: Partial<OpenDeviceOptions> & { source: Source }): Promise<Device> {
    const device = await openDevice({
      fileSystem: options.fileSystem ?? (await newFileSystem()),
      target: 'disk',
      ...options,
    });
    opened.push(device);
    return device;
  }

  describe(`over ${where}`, () => {
    afterEach(async () => {
      for (const device of opened.splice(0)) await device.close().catch(() => undefined);
    });

    describe('a device', () => {
      it('behaves as one array of bytes for any requests and any number of restarts', async () => {
        const shape = fc.record({
          size: fc.oneof(fc.constant(1), fc.constant(BLOCK), fc.integer({ min: 1, max: 12 * BLOCK })),
          blockSize: fc.constantFrom(BLOCK, 2 * BLOCK, 65536),
          hydrate: fc.boolean(),
        });
        const step = fc.record({
          kind: fc.constantFrom(
            'read',
            'write',
            'write',
            'write',
            'discard',
            'writeZeroes',
            'flush',
            'checkpoint',
            'restart',
          ),
          at: fc.double({ min: 0, max: 1, noNaN: true }),
          length: fc.oneof(
            fc.integer({ min: 0, max: 700 }),
            fc.integer({ min: 0, max: 3 * BLOCK }),
            fc.constant(BLOCK),
          ),
          aligned: fc.boolean(),
          seed: fc.integer(),
        });
        await fc.assert(
          fc.asyncProperty(shape, fc.array(step, { maxLength: 40 }), async ({ size, blockSize, hydrate }, steps) => {
            const model = pattern(size);
            const source = bytesSource(model.slice(), { identity: 'x' });
            const fileSystem = await newFileSystem();
            const start = () =>
              openDevice({ source, fileSystem, target: 'disk', blockSize, hydrate: hydrate ? {} : false });
            let device = await start();
            try {
              for (const { kind, at, length, aligned, seed } of steps) {
                const unit = aligned ? blockSize : 1;
                const offset = Math.min(size, Math.floor((at * size) / unit) * unit);
                const bytes = Math.min(length, size - offset);
                if (kind === 'read') {
                  const into = new Uint8Array(bytes);
                  await device.read(into, offset);
                  expectBytes(into, model.slice(offset, offset + bytes));
                } else if (kind === 'write') {
                  const from = pattern(bytes, seed);
                  await device.write(from, offset, { fua: seed % 3 === 0 });
                  model.set(from, offset);
                } else if (kind === 'writeZeroes') {
                  await device.writeZeroes(offset, bytes);
                  model.fill(0, offset, offset + bytes);
                } else if (kind === 'discard') {
                  await device.discard(offset, bytes);
                  const end = offset + bytes === size ? size : Math.floor((offset + bytes) / blockSize) * blockSize;
                  model.fill(
                    0,
                    Math.ceil(offset / blockSize) * blockSize,
                    Math.max(end, Math.ceil(offset / blockSize) * blockSize),
                  );
                } else if (kind === 'flush') await device.flush();
                else if (kind === 'checkpoint') await device.checkpoint();
                else {
                  await device.close();
                  device = await start();
                }
              }
              expectBytes(await readAll(device), model);
              if (hydrate) {
                await device.hydrated;
                expectBytes(await readAll(device), model);
                // The backend's file handles may be exclusive.
                await device.close();
                expectBytes(await fileBytes(fileSystem, 'disk'), model);
              }
            } finally {
              await device.close();
            }
          }),
          { numRuns },
        );
      });

      it('is a complete copy once hydrated, and leaves only the target when finished', async () => {
        const bytes = pattern(3_000_001);
        bytes.fill(0, 500_000, 2_000_000);
        const fileSystem = await newFileSystem();
        const device = await open({ source: bytesSource(bytes), fileSystem });
        await device.hydrated;
        expect(device.status()).toMatchObject({
          state: 'hydrated',
          syncedBlocks: 733,
          totalBlocks: 733,
          dirtyBlocks: 0,
        });
        await device.finish();
        expectBytes(await fileBytes(fileSystem, 'disk'), bytes);
        for (const { kind, slot } of ALL_SLOTS) {
          await expect(fileSystem.open(slotName('disk', kind, slot))).rejects.toMatchObject({ code: 'COD_NOT_FOUND' });
        }
      });

      it('resolves empty requests, and refuses requests outside the device', async () => {
        const device = await open({ source: bytesSource(pattern(5000)), hydrate: false });
        const none = new Uint8Array(0);
        await device.read(none, 5000);
        await device.write(none, 0);
        await device.discard(5000, 0);
        await device.writeZeroes(17, 0);
        for (const [offset, length] of [
          [5000, 1],
          [-1, 1],
          [4999, 2],
          [0.5, 1],
          [Number.MAX_SAFE_INTEGER, 1],
        ] as const) {
          await expect(device.read(new Uint8Array(length), offset)).rejects.toThrow(RangeError);
          await expect(device.write(new Uint8Array(length), offset)).rejects.toThrow(RangeError);
          await expect(device.discard(offset, length)).rejects.toThrow(RangeError);
          await expect(device.writeZeroes(offset, length)).rejects.toThrow(RangeError);
        }
      });

      it('fetches a cold block once for many concurrent readers', async () => {
        const bytes = pattern(100 * BLOCK);
        const { source, reads } = watched(bytes);
        const device = await open({ source, hydrate: false });
        const results = await Promise.all(
          Array.from({ length: 10 }, async () => {
            const into = new Uint8Array(100);
            await device.read(into, 50 * BLOCK + 7);
            return into;
          }),
        );
        for (const result of results) expectBytes(result, bytes.slice(50 * BLOCK + 7, 50 * BLOCK + 107));
        await device.read(new Uint8Array(BLOCK), 50 * BLOCK);
        expect(reads).toEqual([{ offset: 50 * BLOCK, length: BLOCK }]);
      });

      it('fetches only the missing blocks of a range', async () => {
        const { source, reads } = watched(pattern(10 * BLOCK));
        const device = await open({ source, hydrate: false });
        await device.write(new Uint8Array(2 * BLOCK), 3 * BLOCK);
        await device.write(new Uint8Array(100), 7 * BLOCK);
        await device.read(new Uint8Array(5 * BLOCK + 50), 2 * BLOCK);
        expect(reads.sort((a, b) => a.offset - b.offset)).toEqual([
          { offset: 2 * BLOCK, length: BLOCK },
          { offset: 5 * BLOCK, length: 2 * BLOCK },
        ]);
      });

      it('serves a reader before the background copy', async () => {
        let letGo!: () => void;
        const gate = new Promise<void>((resolve) => {
          letGo = resolve;
        });
        const bytes = pattern(64 * 2 ** 20);
        const { source } = watched(bytes, (_offset, length) => (length > 2 * BLOCK ? gate : Promise.resolve()));
        const device = await open({ source, hydrate: { concurrency: 1 } });
        const into = new Uint8Array(BLOCK);
        await device.read(into, 40 * 2 ** 20);
        expectBytes(into, bytes.slice(40 * 2 ** 20, 40 * 2 ** 20 + BLOCK));
        letGo();
        await device.hydrated;
      });

      it('skips written, discarded and known zero blocks in the background copy', async () => {
        const bytes = pattern(4 * 2 ** 20);
        bytes.fill(0, 2 ** 20, 2 * 2 ** 20);
        const { source, reads } = watched(bytes);
        let rate: number | undefined = 1;
        const device = await open({
          source: {
            ...source,
            extents: async (offset, length) => {
              const runs: { length: number; zero: boolean }[] = [];
              for (let at = offset; at < offset + length; ) {
                const next = Math.min(offset + length, (Math.floor(at / 2 ** 20) + 1) * 2 ** 20);
                runs.push({ length: next - at, zero: Math.floor(at / 2 ** 20) === 1 });
                at = next;
              }
              return runs;
            },
          },
          hydrate: { rateBytesPerSecond: rate, concurrency: 1, extentBytes: 2 ** 20 },
        });
        await device.write(pattern(2 ** 20, 5), 2 * 2 ** 20);
        await device.discard(3 * 2 ** 20, 2 ** 20);
        rate = undefined;
        device.setRate(rate);
        await device.hydrated;
        expect(reads.reduce((sum, { length }) => sum + length, 0)).toBe(2 ** 20);
        bytes.set(pattern(2 ** 20, 5), 2 * 2 ** 20);
        bytes.fill(0, 3 * 2 ** 20);
        expectBytes(await readAll(device), bytes);
      });

      it('writes equal checkpoints for equal states, independent of the order of events', async () => {
        const checkpointOf = async (order: readonly number[]): Promise<Uint8Array> => {
          const fileSystem = await newFileSystem();
          const device = await open({
            source: bytesSource(pattern(64 * BLOCK)),
            fileSystem,
            hydrate: false,
            environment: {
              clock: { now: () => 0, sleep: () => new Promise(() => undefined) },
              randomBytes: (into) => into.fill(7),
            },
          });
          for (const block of order) await device.write(pattern(BLOCK, block), block * BLOCK);
          for (const block of order) await device.write(pattern(10, block), (block + 20) * BLOCK + 5);
          await device.close();
          return fileBytes(fileSystem, 'disk.bak');
        };
        const forward = await checkpointOf([1, 2, 3, 9, 11]);
        expectBytes(await checkpointOf([11, 3, 9, 1, 2]), forward);
      });

      it('reports which blocks are whole, partly written and missing', async () => {
        const device = await open({ source: bytesSource(pattern(10 * BLOCK)), hydrate: false });
        const states = async (): Promise<[string, number][]> =>
          (await device.extents(0, device.size, 100)).map(({ state, length }) => [state, length / BLOCK]);
        await device.write(new Uint8Array(3 * BLOCK), 4 * BLOCK - 1);
        const before = [
          ['unsynced', 3],
          ['dirty', 1],
          ['synced', 2],
          ['dirty', 1],
          ['unsynced', 3],
        ];
        expect(await states()).toEqual(before);
        await device.write(new Uint8Array(BLOCK), 3 * BLOCK);
        expect(await states()).toEqual([['unsynced', 3], ['synced', 3], ...before.slice(3)]);
        expect(device.status()).toMatchObject({ syncedBlocks: 3, dirtyBlocks: 1 });
      });

      it('fetches a block that was written in many parts, which bounds the dirty map', async () => {
        const bytes = pattern(2 * BLOCK);
        const device = await open({ source: bytesSource(bytes), hydrate: false });
        for (let at = 0; at < BLOCK; at += 8) {
          await device.write(new Uint8Array([1]), at);
          bytes[at] = 1;
        }
        expect(device.status()).toMatchObject({ syncedBlocks: 1, dirtyBlocks: 0 });
        expectBytes(await readAll(device), bytes);
      });
    });

    describe('a flush', () => {
      it('costs two syncs, and none if no block changed', async () => {
        const syncs: string[] = [];
        const fileSystem = meddling(await newFileSystem(), async ({ kind, name }) => {
          if (kind === 'sync') syncs.push(name);
        });
        const device = await open({ source: bytesSource(pattern(10 * BLOCK)), fileSystem, hydrate: false });
        syncs.length = 0;
        await device.flush();
        expect(syncs).toEqual([]);
        await device.write(new Uint8Array(BLOCK), 0);
        await device.flush();
        expect(syncs).toEqual(['disk', 'disk.wil.1']);
        await device.flush();
        expect(syncs.length).toBe(2);
      });

      it('poisons the device when a sync fails; later calls reject, and durable data stays', async () => {
        let broken = false;
        const inner = await newFileSystem();
        const fileSystem = meddling(inner, async ({ kind, name }) => {
          if (broken && kind === 'sync' && name === 'disk') throw new CodError('COD_TARGET_IO', 'sync failed');
        });
        const device = await open({ source: bytesSource(pattern(10 * BLOCK)), fileSystem, hydrate: false });
        await device.write(pattern(BLOCK, 3), 0);
        await device.flush();
        broken = true;
        await device.write(pattern(BLOCK, 4), BLOCK);
        await expect(device.flush()).rejects.toMatchObject({ code: 'COD_POISONED' });
        await expect(device.write(new Uint8Array(1), 0)).rejects.toMatchObject({ code: 'COD_POISONED' });
        await expect(device.flush()).rejects.toMatchObject({ code: 'COD_POISONED' });
        await expect(device.read(new Uint8Array(1), 0)).rejects.toMatchObject({ code: 'COD_POISONED' });
        expect(device.status().state).toBe('poisoned');
        await device.close();
        broken = false;
        const again = await open({ source: bytesSource(pattern(10 * BLOCK)), fileSystem: inner, hydrate: false });
        const into = new Uint8Array(BLOCK);
        await again.read(into, 0);
        expectBytes(into, pattern(BLOCK, 3));
      });
    });

    describe('an error', () => {
      it('of the source reaches the reader, and the next call works', async () => {
        let broken = true;
        const bytes = pattern(10 * BLOCK);
        const { source } = watched(bytes, async () => {
          if (broken) throw new CodError('COD_SOURCE_IO', 'no answer');
        });
        const device = await open({ source, hydrate: false });
        await expect(device.read(new Uint8Array(10), 0)).rejects.toMatchObject({ code: 'COD_SOURCE_IO' });
        broken = false;
        expectBytes(await readAll(device), bytes);
      });

      it('of the target or the log reaches the writer, and the next call works', async () => {
        for (const part of ['disk', 'disk.wil.1']) {
          let broken = false;
          const fileSystem = meddling(await newFileSystem(), async ({ kind, name }) => {
            if (broken && kind === 'write' && name === part) throw new CodError('COD_NO_SPACE', 'full');
          });
          const bytes = pattern(10 * BLOCK);
          const device = await open({ source: bytesSource(bytes), fileSystem, hydrate: false });
          broken = true;
          await expect(device.write(pattern(BLOCK, 8), BLOCK)).rejects.toMatchObject({ code: 'COD_NO_SPACE' });
          broken = false;
          expectBytes(await readAll(device), bytes);
          await device.write(pattern(BLOCK, 8), BLOCK);
          bytes.set(pattern(BLOCK, 8), BLOCK);
          expectBytes(await readAll(device), bytes);
        }
      });

      it('of the background copy is an event; the device works, and the copy continues by itself', async () => {
        const bytes = pattern(3 * 2 ** 20);
        let broken = true;
        const { source } = watched(bytes, async (_offset, length) => {
          if (broken && length > BLOCK) throw new CodError('COD_SOURCE_CHANGED', 'another one');
        });
        const device = await open({ source });
        expect(await nextEvent(device, 'retry')).toMatchObject({
          code: 'COD_SOURCE_CHANGED',
          message: 'another one',
          attempt: 1,
        });
        const into = new Uint8Array(BLOCK);
        await device.read(into, 2 ** 20);
        expectBytes(into, bytes.slice(2 ** 20, 2 ** 20 + BLOCK));
        expect(device.status().state).toBe('waiting');
        const recovered = nextEvent(device, 'recovered');
        broken = false;
        await recovered;
        await device.hydrated;
        expect(device.status()).toMatchObject({ state: 'hydrated', retries: expect.any(Number) });
        expectBytes(await readAll(device), bytes);
      });
    });

    describe('close', () => {
      it('rejects readers that wait for the source, is idempotent, and makes later calls reject', async () => {
        const { source } = watched(pattern(10 * BLOCK), () => new Promise(() => undefined));
        const stuck: Source = {
          ...source,
          read: (_into, _offset, options) =>
            new Promise((_, reject) =>
              options?.signal?.addEventListener('abort', () => reject(options.signal?.reason)),
            ),
        };
        const device = await open({ source: stuck });
        const reading = device.read(new Uint8Array(1), 0);
        const both = Promise.all([device.close(), device.close()]);
        await expect(reading).rejects.toMatchObject({ code: 'COD_CLOSED' });
        await both;
        await expect(device.hydrated).rejects.toMatchObject({ code: 'COD_CLOSED' });
        await expect(device.write(new Uint8Array(1), 0)).rejects.toMatchObject({ code: 'COD_CLOSED' });
        expect(device.status().state).toBe('closed');
      });
    });

    describe('opening', () => {
      it('never changes a target without metadata', async () => {
        const fileSystem = await newFileSystem();
        const file = await fileSystem.open('disk', { create: true });
        await file.write(pattern(100), 0);
        await file.close();
        await expect(open({ source: bytesSource(pattern(5000)), fileSystem })).rejects.toMatchObject({
          code: 'COD_EXISTS',
        });
        expectBytes(await fileBytes(fileSystem, 'disk'), pattern(100));
      });

      it('refuses a second device on a target until the first is closed', async () => {
        const fileSystem = await newFileSystem();
        const source = bytesSource(pattern(5000));
        const first = await open({ source, fileSystem });
        await expect(open({ source, fileSystem })).rejects.toMatchObject({ code: 'COD_LOCKED' });
        await first.close();
        await open({ source, fileSystem });
      });

      it('uses no source that holds another image', async () => {
        const fileSystem = await newFileSystem();
        const first = await open({ source: bytesSource(pattern(5000), { identity: 'a' }), fileSystem, hydrate: false });
        await first.close();
        for (const { source, message } of [
          { source: bytesSource(pattern(5000, 2), { identity: 'b' }), message: 'made from a, but the source is b' },
          { source: bytesSource(pattern(5000, 2)), message: 'the source is without identity' },
          { source: bytesSource(pattern(5001), { identity: 'a' }), message: 'the source has 5001' },
        ]) {
          const device = await open({ source, fileSystem });
          expect(device.status()).toMatchObject({ state: 'waiting', size: 5000, syncedBlocks: 0, sourceBytes: 0 });
          await expect(device.read(new Uint8Array(1), 0)).rejects.toMatchObject({
            code: 'COD_SOURCE_IO',
            message: expect.stringContaining(message),
          });
          await device.write(new Uint8Array(10).fill(9), 100);
          await device.close();
        }
        const device = await open({ source: bytesSource(pattern(5000), { identity: 'a' }), fileSystem });
        await device.hydrated;
        const model = pattern(5000).fill(9, 100, 110);
        expectBytes(await readAll(device), model);
      });

      it('detects a missing or truncated target', async () => {
        const fileSystem = await newFileSystem();
        const source = bytesSource(pattern(5000));
        const first = await open({ source, fileSystem });
        await first.hydrated;
        await first.close();
        const file = await fileSystem.open('disk');
        await file.truncate(4999);
        await file.close();
        await expect(open({ source, fileSystem })).rejects.toMatchObject({ code: 'COD_CORRUPT' });
        await fileSystem.remove('disk');
        await expect(open({ source, fileSystem })).rejects.toMatchObject({ code: 'COD_CORRUPT' });
      });

      it('refuses wrong options', async () => {
        const source = bytesSource(pattern(5000));
        await expect(open({ source, blockSize: 5000 })).rejects.toThrow(RangeError);
        await expect(open({ source, blockSize: 512 })).rejects.toThrow(RangeError);
        await expect(open({ source, target: '' })).rejects.toThrow(TypeError);
        await expect(open({ source, hydrate: { rateBytesPerSecond: 0 } })).rejects.toThrow(RangeError);
        await expect(open({ source, checkpointIntervalMs: Number.NaN })).rejects.toThrow(RangeError);
        await expect(open({ source: bytesSource(new Uint8Array(0)) })).rejects.toMatchObject({
          code: 'COD_SIZE_MISMATCH',
        });
        await expect(open({ source, signal: AbortSignal.abort(new Error('no')) })).rejects.toThrow('no');
      });
    });
  });
}
