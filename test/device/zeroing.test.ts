/** Zeroing of a new target: bytes that were never written are neither read nor written. */

import { afterEach, describe, expect, it } from 'vitest';
import { EventStream } from '../../src/async/event-stream.ts';
import { Fetcher } from '../../src/device/fetcher.ts';
import { Filler } from '../../src/device/filler.ts';
import { openDeviceIn } from '../../src/device/open.ts';
import { Origin } from '../../src/device/origin.ts';
import { Target } from '../../src/device/target.ts';
import type { InlineDevice } from '../../src/device/types.ts';
import { Writer } from '../../src/device/writer.ts';
import { CodError } from '../../src/errors.ts';
import type { File, FileSystem, OpenOptions } from '../../src/fs/file-system.ts';
import { openLog } from '../../src/log/intent-log.ts';
import type { Clock } from '../../src/platform/clock.ts';
import { isZero } from '../../src/platform/zeros.ts';
import type { Source } from '../../src/sources/source.ts';
import { SimulatedClock, seededRandom } from '../../src/testing/index.ts';
import { SparseBytes } from '../../src/testing/sparse-bytes.ts';
import { MemoryFiles } from '../log/memory-files.ts';

const BLOCK = 4096;
const TIB = 2 ** 40;
const MIB = 2 ** 20;

/** The source's bytes are all 7. */
function sevens(size: number): Source {
  return { size, identity: 'sevens', read: async (into) => void into.fill(7), close: async () => undefined };
}

/** Metadata in memory, and a target of any size that counts the bytes that are read and written. */
class SparseFiles implements FileSystem {
  readonly bootId = 'boot';
  readonly #metadata: MemoryFiles;
  readonly bytes: SparseBytes;
  #isMade: boolean;
  read = 0;
  written = 0;

  /** @param after the files that a process left which was killed */
  constructor(after?: SparseFiles) {
    this.#metadata = new MemoryFiles(after === undefined ? undefined : after.#metadata.images());
    this.bytes = after?.bytes.clone() ?? new SparseBytes();
    this.#isMade = after !== undefined;
  }

  readonly target: File = {
    size: async () => this.bytes.size,
    read: async (into, offset) => {
      this.read += into.length;
      this.bytes.read(into, offset);
    },
    write: async (from, offset) => {
      this.written += from.length;
      this.bytes.write(from, offset);
    },
    truncate: async (size) => this.bytes.truncate(size),
    sync: async () => undefined,
    close: async () => undefined,
  };

  async open(name: string, options?: OpenOptions): Promise<File> {
    if (name !== 'disk' || (!this.#isMade && !options?.exclusive)) return this.#metadata.open(name, options);
    this.#isMade = true;
    return this.target;
  }

  remove(name: string): Promise<void> {
    return this.#metadata.remove(name);
  }
}

const devices: InlineDevice[] = [];

afterEach(async () => {
  for (const device of devices.splice(0)) await device.close();
});

/** A device without background copy, and the number of turns of the event loop that it asked for. */
async function open(size: number, files: SparseFiles): Promise<{ device: InlineDevice; turns: { count: number } }> {
  const turns = { count: 0 };
  const clock = Object.assign(new SimulatedClock(), { turn: async () => void turns.count++ });
  const device = await openDeviceIn(
    { clock, randomBytes: (into) => into.fill(1) },
    { source: sevens(size), fileSystem: files, target: 'disk', hydrate: false },
  );
  devices.push(device);
  return { device, turns };
}

/** From now on each write of the target arrives, and its call fails. Returns what it was before. */
function failWrites({ target }: SparseFiles): File['write'] {
  const { write } = target;
  target.write = async (from, offset) => {
    await write(from, offset);
    throw new CodError('COD_TARGET_IO', 'it broke');
  };
  return write;
}

async function expectZeros(device: InlineDevice, offset: number, length: number): Promise<void> {
  const found = new Uint8Array(length).fill(1);
  await device.read(found, offset);
  expect(isZero(found)).toBe(true);
}

describe('zeroing the target of a killed device', () => {
  it('does not read what the file knows to be a hole, and writes zeros over the rest', async () => {
    let files = new SparseFiles();
    const first = (await open(TIB, files)).device;
    const offsets = [5, 16 * MIB - 3, TIB - 7];
    for (const offset of offsets) await first.write(new Uint8Array(7).fill(3), offset);
    files = new SparseFiles(files);
    // Bytes of the source that no record names.
    files.bytes.write(new Uint8Array(BLOCK).fill(7), 32 * MIB);
    const holes = { asked: 0 };
    Object.assign(files.target, {
      isHole: async (offset: number, length: number) => {
        holes.asked++;
        const bytes = new Uint8Array(length);
        files.bytes.read(bytes, offset);
        return isZero(bytes);
      },
    });
    const { device } = await open(TIB, files);
    const [read, written] = [files.read, files.written];
    await device.writeZeroes(0, 64 * MIB);
    expect(holes.asked).toBe(64 / 2);
    expect(files.read - read).toBe(4 * 2 * MIB);
    expect(files.written - written).toBe(4 * BLOCK);
    await expectZeros(device, 0, 64 * MIB);
    await expectZeros(device, 32 * MIB, BLOCK);
  });
});

describe('zeroing the target of a closed device', () => {
  it.each(['discard', 'writeZeroes'] as const)('by %s reads only near what was written before', async (kind) => {
    const files = new SparseFiles();
    const first = (await open(TIB, files)).device;
    const random = seededRandom(2);
    const offsets = Array.from({ length: 60 }, () => random.below(TIB / BLOCK) * BLOCK);
    // Blocks, parts of blocks, and blocks of the source.
    for (const [index, offset] of offsets.entries()) {
      if (index % 3 === 0) await first.hydrateRange(offset, BLOCK);
      else await first.write(new Uint8Array(index % 3 === 1 ? BLOCK : 100).fill(1), offset);
    }
    await first.close();
    for (let life = 0; life < 2; life++) {
      // The second life has not written anything.
      const { device } = await open(TIB, files);
      if (life === 0) {
        for (const [index, offset] of offsets.entries()) {
          const found = new Uint8Array(100);
          await device.read(found, offset);
          expect(found).toEqual(new Uint8Array(100).fill(index % 3 === 0 ? 7 : 1));
        }
      } else {
        const [read, written] = [files.read, files.written];
        await device[kind](0, TIB);
        expect(files.read - read).toBeLessThanOrEqual(offsets.length * 65_536);
        expect(files.written - written).toBeLessThanOrEqual(offsets.length * BLOCK);
        for (const offset of offsets) await expectZeros(device, Math.max(0, offset - 10), BLOCK);
      }
      await device.close();
    }
  });

  it('zeroes what a life has written before its crash, wherever that is', async () => {
    const files = new SparseFiles();
    await (await open(TIB, files)).device.close();
    await (await open(TIB, files)).device.hydrateRange(5 * MIB, BLOCK);
    const after = new SparseFiles(files);
    // Stored and not recorded.
    after.bytes.write(new Uint8Array(BLOCK).fill(7), 9 * MIB);
    const { device } = await open(TIB, after);
    await device.writeZeroes(0, 16 * MIB);
    await expectZeros(device, 0, 16 * MIB);
  });

  it('zeroes what the same life has stored and could not record', async () => {
    const files = new SparseFiles();
    await (await open(64 * MIB, files)).device.close();
    const { device } = await open(64 * MIB, files);
    const write = failWrites(files);
    await device.write(new Uint8Array(BLOCK).fill(9), 3 * MIB).catch(() => undefined);
    files.target.write = write;
    await device.discard(0, 64 * MIB);
    await expectZeros(device, 3 * MIB, BLOCK);
  });

  it.each([
    ['failed writes', async (device: InlineDevice) => device.write(new Uint8Array(BLOCK).fill(9), 3 * MIB)],
    ['stored blocks that could not be recorded', async (device: InlineDevice) => device.hydrateRange(3 * MIB, BLOCK)],
  ])('knows of %s', async (_kind, use) => {
    const files = new SparseFiles();
    const first = (await open(TIB, files)).device;
    const write = failWrites(files);
    await use(first).catch(() => undefined);
    files.target.write = write;
    await first.close();
    const { device } = await open(TIB, files);
    const { read } = files;
    await device.discard(0, 64 * MIB);
    expect(files.read).toBe(read);
    await expectZeros(device, 3 * MIB, BLOCK);
  });

  it('reads all of it if zeroing what was not recorded failed', async () => {
    const files = new SparseFiles();
    const first = (await open(64 * MIB, files)).device;
    const write = failWrites(files);
    await first.write(new Uint8Array(BLOCK).fill(9), 3 * MIB).catch(() => undefined);
    files.target.write = async () => {
      throw new CodError('COD_TARGET_IO', 'it is still broken');
    };
    await first.close();
    files.target.write = write;
    const { device } = await open(64 * MIB, files);
    await device.discard(0, 64 * MIB);
    await expectZeros(device, 3 * MIB, BLOCK);
  });
});

describe('zeroing a new target', () => {
  it.each(['discard', 'writeZeroes'] as const)('of 16 TiB by %s touches no byte of it', async (kind) => {
    const files = new SparseFiles();
    const { device } = await open(16 * TIB, files);
    await device[kind](0, 16 * TIB);
    expect([files.read, files.written]).toEqual([0, 0]);
    expect(device.status()).toMatchObject({ syncedBlocks: 2 ** 32, dirtyBlocks: 0 });
    expect(device.status().metadataBytes).toBeLessThan(2 * MIB);
    await expectZeros(device, 5 * TIB - 5, 10);
    // A later write must be recorded although its block is synced, until the fill is firm; and it must last.
    await device.write(new Uint8Array(10).fill(3), 7 * TIB + 1);
    await device.close();
    const again = (await open(16 * TIB, files)).device;
    expect(again.status().syncedBlocks).toBe(2 ** 32);
    const found = new Uint8Array(12);
    await again.read(found, 7 * TIB);
    expect([...found]).toEqual([0, ...new Array(10).fill(3), 0]);
  });

  it('reads only near what was written, and lets the event loop turn between pieces', async () => {
    const files = new SparseFiles();
    const { device, turns } = await open(TIB, files);
    const random = seededRandom(1);
    const offsets = Array.from({ length: 100 }, () => random.below(TIB / BLOCK) * BLOCK);
    // Blocks, and parts of blocks.
    for (const [index, offset] of offsets.entries())
      await device.write(new Uint8Array(index % 2 === 0 ? BLOCK : 100).fill(1), offset);
    const [before, turnsBefore] = [files.read, turns.count];
    const written = files.written;
    await device.discard(0, TIB);
    expect(files.read - before).toBeLessThanOrEqual(offsets.length * 65_536);
    expect(files.written - written).toBeLessThanOrEqual(offsets.length * BLOCK);
    expect(turns.count - turnsBefore).toBeGreaterThanOrEqual(offsets.length);
    expect(device.status()).toMatchObject({ syncedBlocks: TIB / BLOCK, dirtyBlocks: 0 });
    for (const offset of offsets) await expectZeros(device, Math.max(0, offset - 10), BLOCK);
  });

  it('makes all zero that was written before, at any place, in any order', async () => {
    const size = 64 * MIB + 700;
    for (let seed = 0; seed < 5; seed++) {
      const random = seededRandom(seed);
      const files = new SparseFiles();
      const { device } = await open(size, files);
      const model = new Uint8Array(size).fill(7);
      for (let step = 0; step < 40; step++) {
        const offset = random.below(size);
        const length = Math.min(size - offset, 1 + random.below(random.oneIn(3) ? 40 * MIB : 100_000));
        if (random.oneIn(3)) {
          await device.writeZeroes(offset, length);
          model.fill(0, offset, offset + length);
        } else if (random.oneIn(4)) {
          await device.hydrateRange(offset, Math.min(length, MIB));
        } else {
          const bytes = new Uint8Array(Math.min(length, 50_000)).fill(1 + random.below(250));
          await device.write(bytes, offset);
          model.set(bytes, offset);
        }
      }
      const found = new Uint8Array(size);
      await device.read(found, 0);
      expect(Buffer.compare(found, model), `seed ${seed}`).toBe(0);
    }
  });
});

describe('zeroing a new target while others store bytes', () => {
  /** The parts of a device, so that a test can stop between a store and its record. */
  async function parts(size: number) {
    const files = new SparseFiles();
    files.bytes.truncate(size);
    const clock: Clock = new SimulatedClock();
    const log = await openLog(
      { clock, randomBytes: (into) => into.fill(1) },
      { fileSystem: files, name: 'disk', size, storage: files.target },
    );
    const target = new Target(log, files.target, { isBlank: true, clock });
    const filler = new Filler(target);
    const nothing = (): void => undefined;
    const fetcher = new Fetcher({
      origin: new Origin({ clock, events: new EventStream(), source: sevens(size), sameSource: false }),
      filler,
      clock,
      onFetched: nothing,
      onStored: nothing,
    });
    return { files, log, target, filler, writer: new Writer(target, fetcher) };
  }

  it.each([MIB, 64 * MIB])('also zeroes what is stored and not recorded (%i bytes)', async (length) => {
    const { files, log, filler, writer } = await parts(64 * MIB);
    // As the background copy does: stored, and recorded later, or never if the source fails.
    await filler.store(new Uint8Array(3 * BLOCK).fill(7), 5 * BLOCK);
    await writer.discard(0, length);
    const found = new Uint8Array(3 * BLOCK).fill(1);
    files.bytes.read(found, 5 * BLOCK);
    expect(isZero(found)).toBe(true);
    expect(log.blocks.hasRange(0, length / BLOCK)).toBe(true);
    await log.close();
  });

  it.each([MIB, 64 * MIB])('also zeroes what is written while it waits for the lock (%i bytes)', async (length) => {
    const { files, log, target, writer } = await parts(64 * MIB);
    const lock = await target.lock(5 * BLOCK, BLOCK, 'write');
    const discarding = writer.discard(0, length);
    await target.write(new Uint8Array(BLOCK).fill(9), 5 * BLOCK);
    lock.release();
    await discarding;
    const found = new Uint8Array(BLOCK).fill(1);
    files.bytes.read(found, 5 * BLOCK);
    expect(isZero(found)).toBe(true);
    await log.close();
  });
});
