/** Export to format 1: what is in the file, what is refused, and that a crash leaves one format or the other. */

import { describe, expect, it } from 'vitest';
import { type FileSystem, inspectMetadata, isCodError, openDevice } from '../../src/index.ts';
import { ALL_SLOTS, slotName } from '../../src/log/slots.ts';
import { exportFormat1 } from '../../src/log.ts';
import type { Environment } from '../../src/platform/clock.ts';
import { bytesSource } from '../../src/sources/bytes.ts';
import type { Source } from '../../src/sources/source.ts';
import {
  CrashingFileSystem,
  exploreCrashes,
  type Life,
  type Random,
  SimulatedClock,
  type Story,
  seededRandom,
} from '../../src/testing/index.ts';
import { goldenState, goldenStates } from '../crash/images.ts';
import { expectBytes } from '../support/bytes.ts';
import { type Format1State, readFormat1 } from './format1-reader.ts';
import { MemoryFiles } from './memory-files.ts';
import { format1State, statesAtRest, statesInBetween } from './states.ts';

const BLOCK = 4096;
const SIZE = 20 * BLOCK + 700;
const IMAGE = seededRandom(1).fill(new Uint8Array(SIZE));

function environmentOf(clock: SimulatedClock, random: Random): Environment {
  return { clock, randomBytes: (into) => random.fill(into) };
}

function newEnvironment(): Environment {
  return environmentOf(new SimulatedClock({ settle: () => new Promise(process.nextTick) }), seededRandom(2));
}

function exportIn(fileSystem: FileSystem, name = 'disk', environment = newEnvironment()) {
  return exportFormat1({ fileSystem, name, environment });
}

async function bytesOf(fileSystem: FileSystem, name: string): Promise<Uint8Array | undefined> {
  try {
    const file = await fileSystem.open(name, { readOnly: true });
    const bytes = new Uint8Array(await file.size());
    await file.read(bytes, 0);
    await file.close();
    return bytes;
  } catch (error) {
    if (isCodError(error, 'COD_NOT_FOUND')) return undefined;
    throw error;
  }
}

/** Reads the only metadata file that an export leaves. */
async function exported(fileSystem: FileSystem, name = 'disk'): Promise<Format1State> {
  for (const { kind, slot } of ALL_SLOTS.slice(1))
    expect(await bytesOf(fileSystem, slotName(name, kind, slot)), `${kind} ${slot}`).toBeUndefined();
  return readFormat1((await bytesOf(fileSystem, `${name}.bak`))!);
}

/** Compares states of 10^5 runs, which `toEqual` does in seconds. */
function expectState(found: Format1State, { synced, dirty }: Format1State): void {
  const isSame = (one: unknown, other: unknown): boolean => JSON.stringify(one) === JSON.stringify(other);
  if (!isSame(found.synced, synced)) expect(found.synced).toEqual(synced);
  if (!isSame(found.dirty, dirty)) expect(found.dirty).toEqual(dirty);
}

/** A source from which some windows are read; the others must not be. */
function sourceOf(size: number, read: (into: Uint8Array, offset: number) => void, identity?: string): Source {
  return {
    size,
    ...(identity === undefined ? {} : { identity }),
    read: async (into, offset) => read(into, offset),
    close: async () => undefined,
  };
}

const NO_COPY = { hydrate: false } as const;

describe.each(goldenStates)('the state %s of format 1, continued in format 2 and exported,', (name) => {
  it('is read back as the same state, by a reader of its own', async () => {
    const { size, image, initial, expected } = await goldenState(name);
    const source = sourceOf(size, image.read);
    const open = () => openDevice({ source, fileSystem: initial, target: 'disk.raw', hydrate: false });
    await (await open()).close();
    const result = await exportIn(initial, 'disk.raw');
    expect(result).toMatchObject({ isConverted: true, size, identity: undefined });
    expectState(await exported(initial, 'disk.raw'), expected);

    // And once more, after a write of a whole block and of a part.
    const device = await open();
    for (const { offset, content } of image.windows) {
      const found = new Uint8Array(content.length);
      await device.read(found, offset);
      expectBytes(found, content);
    }
    await device.write(new Uint8Array(Math.min(BLOCK, size)).fill(1), 0);
    await device.write(new Uint8Array(3).fill(1), Math.floor((size - 1) / BLOCK) * BLOCK);
    await device.close();
    const { synced, dirty } = await inspectMetadata(initial, 'disk.raw');
    expect(synced[0]?.[0]).toBe(0);
    await exportIn(initial, 'disk.raw');
    expectState(await exported(initial, 'disk.raw'), { synced, dirty });

    // And after the background copy; of a large image only blocks of which the content is known.
    const isSmall = size < 2 ** 24;
    const copying = await openDevice({ source, fileSystem: initial, target: 'disk.raw', ...(isSmall ? {} : NO_COPY) });
    if (isSmall) await copying.hydrated;
    for (const { offset, content } of image.windows) await copying.hydrateRange(offset, content.length);
    await copying.close();
    const copied = await inspectMetadata(initial, 'disk.raw');
    await exportIn(initial, 'disk.raw');
    expectState(await exported(initial, 'disk.raw'), copied);
    const last = await open();
    for (const { offset, content } of image.windows) {
      const wanted = content.slice();
      if (offset === 0) wanted.fill(1);
      if (offset === Math.floor((size - 1) / BLOCK) * BLOCK) wanted.fill(1, 0, 3);
      const found = new Uint8Array(content.length);
      await last.read(found, offset);
      expectBytes(found, wanted);
    }
    await last.close();
  });
});

/** A copy that was closed after some checkpoints: the newest one is in either slot. */
async function closedCopy(checkpoints: number): Promise<{ files: CrashingFileSystem; content: Uint8Array }> {
  const files = new CrashingFileSystem();
  const content = IMAGE.slice();
  const device = await open(files);
  await device.read(new Uint8Array(4 * BLOCK), 2 * BLOCK);
  while (device.status().syncedBlocks < 4) await new Promise(setImmediate);
  const parts = [
    [4 * BLOCK + 512, 512],
    [8 * BLOCK + 1024, 1024],
    [12 * BLOCK, BLOCK],
    [20 * BLOCK, 512],
  ] as const;
  for (const [offset, length] of parts) {
    content.fill(0xaa, offset, offset + length);
    await device.write(new Uint8Array(length).fill(0xaa), offset);
  }
  for (let count = 0; count < checkpoints; count++) {
    content.fill(count, 15 * BLOCK + count, 15 * BLOCK + count + 1);
    await device.write(new Uint8Array([count]), 15 * BLOCK + count);
    await device.checkpoint();
  }
  await device.close();
  return { files, content };
}

function open(fileSystem: FileSystem, environment = newEnvironment()) {
  const source = sourceOf(SIZE, (into, offset) => into.set(IMAGE.subarray(offset, offset + into.length)), 'the source');
  return openDevice({ source, fileSystem, target: 'disk', hydrate: false, environment });
}

describe.each([1, 2])('a copy that was closed after %i checkpoints', (checkpoints) => {
  it('loses its identity and its map of modified blocks, and says so', async () => {
    const { files } = await closedCopy(checkpoints);
    const { modifiedBlocks, syncedBlocks } = await inspectMetadata(files, 'disk');
    expect(modifiedBlocks).toBeGreaterThan(3);
    expect(await exportIn(files)).toEqual({
      isConverted: true,
      size: SIZE,
      totalBlocks: 21,
      syncedBlocks,
      identity: 'the source',
      modifiedBlocks,
    });
    const before = await bytesOf(files, 'disk.bak');
    expect(await exportIn(files)).toMatchObject({ isConverted: false, syncedBlocks, identity: undefined });
    expect(await bytesOf(files, 'disk.bak')).toEqual(before);
  });

  it.each(['process', 'power', 'loss', 'mixed'] as const)(
    'opens in one format or the other, with the same bytes, after a crash at any operation of the export (%s)',
    async (kind) => {
      const { files, content } = await closedCopy(checkpoints);
      const expected = await inspectMetadata(files, 'disk');
      const state = { synced: expected.synced, dirty: expected.dirty };
      let isWritten = false;

      const exportAgain = async ({ fileSystem, clock, random }: Life): Promise<void> => {
        await exportIn(fileSystem, 'disk', environmentOf(clock, random));
        expect(await exported(fileSystem)).toEqual(state);
      };
      const story = (): Story => ({
        work: exportAgain,
        async recover(life) {
          const { fileSystem, clock, random } = life;
          expect(await inspectMetadata(fileSystem, 'disk')).toMatchObject(state);
          if (random.oneIn(2)) return exportAgain(life);
          const device = await open(fileSystem, environmentOf(clock, random));
          const found = new Uint8Array(SIZE);
          // Only what the target holds: a read would store more.
          for (const [first, last] of state.synced) {
            const part = found.subarray(first * BLOCK, Math.min((last + 1) * BLOCK, SIZE));
            await device.read(part, first * BLOCK);
            expectBytes(part, content.subarray(first * BLOCK, first * BLOCK + part.length));
          }
          isWritten = true;
          await device.close();
        },
      });
      const figures = await exploreCrashes(story, {
        initial: files,
        fileSystem: { exclusive: kind === 'loss', inline: true },
        kind,
        crashes: 4,
        seed: 7,
        settle: () => new Promise(process.nextTick),
      });
      expect(figures.crashes).toBeGreaterThan(30);
      expect(isWritten).toBe(true);
    },
  );
});

describe('refuses and changes nothing', () => {
  async function expectRefusal(files: MemoryFiles, code: string, says: string | RegExp): Promise<void> {
    const before = files.images();
    const refused = exportIn(files);
    await expect(refused).rejects.toMatchObject({ code });
    await expect(refused).rejects.toThrow(says);
    expect(files.images()).toEqual(before);
  }

  async function copyWith(options: { blockSize?: number }, use?: (files: MemoryFiles) => void): Promise<MemoryFiles> {
    const files = new MemoryFiles();
    const source = bytesSource(IMAGE);
    const device = await openDevice({ source, fileSystem: files, target: 'disk', hydrate: false, ...options });
    await device.write(new Uint8Array(100), 10);
    use?.(files);
    await device.close();
    return files;
  }

  it('a copy that was killed, whose log has records', async () => {
    let killed = new MemoryFiles();
    await copyWith({}, (files) => {
      killed = new MemoryFiles(files.images());
    });
    await expectRefusal(killed, 'COD_UNSUPPORTED', /not closed cleanly, disk\.wil\.1 has 1 records: open and close it/);
    await (
      await openDevice({ source: bytesSource(IMAGE), fileSystem: killed, target: 'disk', hydrate: false })
    ).close();
    expect(await exportIn(killed)).toMatchObject({ isConverted: true });
  });

  it('a copy whose log has a torn tail', async () => {
    const living = new MemoryFiles();
    const device = await openDevice({ source: bytesSource(IMAGE), fileSystem: living, target: 'disk', hydrate: false });
    await device.write(new Uint8Array(100), 10);
    await device.checkpoint();
    const files = new MemoryFiles(living.images());
    await device.close();
    const log = await files.open('disk.wil');
    const found = await inspectMetadata(files, 'disk');
    expect(found.files.every(({ tornBytes }) => tornBytes === 0)).toBe(true);
    await log.write(new Uint8Array(16).fill(1), 512 + 40);
    await expectRefusal(files, 'COD_UNSUPPORTED', 'not closed cleanly');
  });

  it('blocks of another size', async () => {
    await expectRefusal(await copyWith({ blockSize: 8192 }), 'COD_UNSUPPORTED', 'blocks of 8192 bytes');
  });

  it('a copy in use', async () => {
    const files = new MemoryFiles();
    const device = await openDevice({ source: bytesSource(IMAGE), fileSystem: files, target: 'disk', hydrate: false });
    await expectRefusal(files, 'COD_LOCKED', 'already open');
    await device.close();
  });

  it('a file without metadata, and an invalid name', async () => {
    const files = new MemoryFiles(new Map([['disk', { bytes: IMAGE, size: SIZE }]]));
    await expectRefusal(files, 'COD_NOT_FOUND', 'no metadata');
    await expect(exportFormat1({ fileSystem: files, name: '' })).rejects.toThrow(TypeError);
  });

  it('damaged metadata', async () => {
    const files = await copyWith({});
    await (await files.open('disk.bak')).write(new Uint8Array([1]), 100);
    await expectRefusal(files, 'COD_CORRUPT', 'disk.bak');
  });

  it('after an abort', async () => {
    const files = await copyWith({});
    const before = files.images();
    const reason = new Error('no longer wanted');
    const signal = AbortSignal.abort(reason);
    await expect(exportFormat1({ fileSystem: files, name: 'disk', signal })).rejects.toBe(reason);
    expect(files.images()).toEqual(before);
  });
});

it('exports each state of a device, at rest or interrupted, as it is, or refuses it with a sentence', async () => {
  const states = [...(await statesAtRest()), ...(await statesInBetween()).flatMap((group) => group.states)];
  let [converted, refused] = [0, 0];
  for (const { name, images } of states) {
    const files = new MemoryFiles(images);
    const before = await inspectMetadata(files, 'disk').catch((error: unknown) => {
      // A new copy without its first checkpoint, or a finished copy.
      if (isCodError(error, 'COD_NOT_FOUND')) return undefined;
      throw error;
    });
    try {
      const { isConverted } = await exportIn(files);
      expect(before, name).toBeDefined();
      if (!isConverted) continue;
      expect(await exported(files), name).toEqual({ synced: before!.synced, dirty: before!.dirty });
      converted++;
    } catch (error) {
      if (!isCodError(error)) throw error;
      expect(error.message, name).toMatch(/was not closed cleanly, .+: open and close it once|has no metadata/);
      expect(error.code, name).toBe(before === undefined ? 'COD_NOT_FOUND' : 'COD_UNSUPPORTED');
      expect(files.calls, name).toEqual([]);
      refused++;
    }
  }
  expect(converted).toBeGreaterThan(5);
  expect(refused).toBeGreaterThan(20);
});

it('leaves files of format 1 as they are', async () => {
  const files = new MemoryFiles(format1State('disk.bak.1').images);
  const before = files.images();
  expect(await exportIn(files)).toMatchObject({ isConverted: false });
  expect(files.images()).toEqual(before);
});
