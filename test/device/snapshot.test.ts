/** Snapshots: the image of one moment, whatever users write meanwhile, and whatever crashes or fails. */

import { describe, expect, it } from 'vitest';
import { openDeviceIn } from '../../src/device/open.ts';
import type { InlineDevice } from '../../src/device/types.ts';
import { CodError, type FileSystem, isCodError, removeCopy } from '../../src/index.ts';
import { memfsFileSystem } from '../../src/memfs.ts';
import type { Environment } from '../../src/platform/clock.ts';
import { systemEnvironment } from '../../src/platform/environment.ts';
import { bytesSource } from '../../src/sources/bytes.ts';
import {
  CrashingFileSystem,
  exploreCrashes,
  type Life,
  type Random,
  SECTOR_BYTES,
  SimulatedClock,
  type Story,
  seededRandom,
} from '../../src/testing/index.ts';
import { expectBytes } from '../support/bytes.ts';
import { effort } from '../support/effort.ts';

const BLOCK = 4096;
const SIZE = 40 * BLOCK + 1536;
/** Each seed is another order of writes, and another moment of the snapshot. */
const SEEDS = effort('COD_SNAPSHOT_SEEDS', { short: 4, long: 30 });
/** The source's sectors have numbers, too. */
const FIRST_OF_SOURCE = 2 ** 31;
const IMAGE = new Uint8Array(SIZE);
for (let sector = 0; sector < SIZE / SECTOR_BYTES; sector++)
  IMAGE.set(contentOf(FIRST_OF_SOURCE + sector, 1), sector * SECTOR_BYTES);
const IDENTITY = 'the source';
const NAMES = ['snap', 'snap.bak', 'snap.bak.1', 'snap.wil', 'snap.wil.1', 'snap.lock'];

function settle(): Promise<void> {
  return new Promise(process.nextTick);
}

function environmentOf(clock: SimulatedClock, random: Random): Environment {
  return { clock, randomBytes: (into) => random.fill(into) };
}

function newEnvironment(): Environment {
  return environmentOf(new SimulatedClock({ settle }), seededRandom(2));
}

interface OpenHow {
  readonly target?: string;
  readonly environment?: Environment;
  readonly hydrate?: boolean;
  readonly blockSize?: number;
}

function open(
  fileSystem: FileSystem,
  { target = 'disk', environment = newEnvironment(), hydrate = false, blockSize = BLOCK }: OpenHow = {},
): Promise<InlineDevice> {
  const source = bytesSource(IMAGE, { identity: IDENTITY });
  return openDeviceIn(environment, { source, fileSystem, target, hydrate: hydrate ? {} : false, blockSize });
}

/** The same files, on a file system that clones: here a clone is as many operations as a copy. */
function cloning(files: FileSystem, onClone?: () => Promise<void>): FileSystem {
  return {
    open: (name, how) => files.open(name, how),
    remove: (name) => files.remove(name),
    clone: async (from, to) => {
      const source = await files.open(from, { readOnly: true });
      const bytes = new Uint8Array(await source.size());
      await source.read(bytes, 0);
      await source.close();
      await onClone?.();
      const copy = await files.open(to, { create: true, exclusive: true });
      try {
        await copy.write(bytes, 0);
        await copy.close();
      } catch (error) {
        await copy.close();
        await files.remove(to);
        throw error;
      }
    },
  };
}

async function namesIn(files: FileSystem, names: readonly string[] = NAMES): Promise<string[]> {
  const found: string[] = [];
  for (const name of names) {
    try {
      await (await files.open(name, { readOnly: true })).close();
      found.push(name);
    } catch (error) {
      if (!isCodError(error, 'COD_NOT_FOUND')) throw error;
    }
  }
  return found;
}

async function readAll(device: InlineDevice): Promise<Uint8Array> {
  const bytes = new Uint8Array(SIZE);
  await device.read(bytes, 0);
  return bytes;
}

/** A write of whole sectors, all of which hold its number. Times count the beginnings and ends of calls. */
interface Stamp {
  readonly first: number;
  readonly end: number;
  readonly begun: number;
  ended: number;
}

/** What users wrote, and when. Judges whether an image is that of one moment. */
class Stamps {
  readonly #writes: Stamp[] = [];
  /** The numbers of the writes of each sector, in order. */
  readonly #ofSector: number[][] = Array.from({ length: SIZE / SECTOR_BYTES }, () => []);
  #time = 0;

  now(): number {
    return ++this.#time;
  }

  async write(device: InlineDevice, random: Random): Promise<void> {
    const sectors = SIZE / SECTOR_BYTES;
    const first = random.below(sectors);
    const end = Math.min(sectors, first + 1 + random.below(random.oneIn(2) ? 3 : 30));
    const number = this.#writes.length + 1;
    const stamp: Stamp = { first, end, begun: this.now(), ended: Number.POSITIVE_INFINITY };
    this.#writes.push(stamp);
    for (let sector = first; sector < end; sector++) this.#ofSector[sector]!.push(number);
    await device.write(contentOf(number, end - first), first * SECTOR_BYTES);
    stamp.ended = this.now();
  }

  /** Why `image` is not the image of a moment between `from` and `to`. */
  violation(image: Uint8Array, from: number, to: number): string | undefined {
    let [lastBegun, firstEnded] = [0, Number.POSITIVE_INFINITY];
    for (const [sector, numbers] of this.#ofSector.entries()) {
      const bytes = image.subarray(sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES);
      const number = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
      const place = numbers.indexOf(number);
      if (place < 0 && number !== FIRST_OF_SOURCE + sector)
        return `sector ${sector} has ${number}, which was not written there`;
      if (Buffer.compare(bytes, contentOf(number, 1)) !== 0) return `sector ${sector} is torn`;
      if (place >= 0) lastBegun = Math.max(lastBegun, this.#writes[number - 1]!.begun);
      for (const later of numbers.slice(place + 1)) firstEnded = Math.min(firstEnded, this.#writes[later - 1]!.ended);
    }
    if (firstEnded < from) return `a write that ended at ${firstEnded}, before the call at ${from}, is missing`;
    if (lastBegun > to) return `a write that began at ${lastBegun}, after the call ended at ${to}, is there`;
    if (lastBegun > firstEnded) return `a write of ${lastBegun} is there, and one that ended at ${firstEnded} is not`;
    return undefined;
  }

  /** The blocks that were written. */
  blocks(): Set<number> {
    const sectors = this.#writes.flatMap(({ first, end }) => [first, end - 1, ...range(first, end)]);
    return new Set(sectors.map((sector) => Math.floor((sector * SECTOR_BYTES) / BLOCK)));
  }
}

function range(start: number, end: number): number[] {
  return Array.from({ length: end - start }, (_, index) => start + index);
}

function contentOf(number: number, sectors: number): Uint8Array {
  return new Uint8Array(new Uint32Array((sectors * SECTOR_BYTES) / 4).fill(number).buffer);
}

/** Compares a snapshot with what was written, byte by byte and block by block. */
async function checkSnapshot(snapshot: InlineDevice, stamps: Stamps, from: number, to: number): Promise<void> {
  const image = await readAll(snapshot);
  const wrong = stamps.violation(image, from, to);
  if (wrong !== undefined) throw new Error(wrong);
  const written = stamps.blocks();
  for (let block = 0; block * BLOCK < SIZE; block++) {
    const [one, other] = [image, IMAGE].map((bytes) => bytes.subarray(block * BLOCK, (block + 1) * BLOCK));
    const isChanged = Buffer.compare(one!, other!) !== 0;
    if (isChanged && !snapshot.modified.has(block)) throw new Error(`block ${block} is not modified`);
    if (snapshot.modified.has(block) && !written.has(block)) throw new Error(`block ${block} is modified`);
  }
}

/** Several users write while snapshots are taken, until a crash. */
function snapshotStory(
  { clones, hydrate, users: count = 3 }: { clones: boolean; hydrate: boolean; users?: number },
  figures: { taken: number },
): Story {
  const stamps = new Stamps();
  let call: { readonly from: number; to: number | undefined } | undefined;

  return {
    async work({ fileSystem, clock, random }) {
      const environment = environmentOf(clock, random.fork());
      const files = clones ? cloning(fileSystem) : fileSystem;
      const device = await open(files, { environment, hydrate });
      let isOver = false;
      const user = async (mine: Random): Promise<void> => {
        while (!isOver) {
          await stamps.write(device, mine);
          if (mine.oneIn(8)) await device.flush();
          await clock.sleep(mine.below(3));
        }
      };
      const users = Promise.all(range(0, count).map(() => user(random.fork())));
      // Their calls reject in a process that has crashed.
      users.catch(() => undefined);
      await clock.sleep(random.below(10 * count));
      const current = (call = { from: stamps.now(), to: undefined as number | undefined });
      await device.snapshot('snap');
      current.to = stamps.now();
      isOver = true;
      await users;
      await device.close();
    },
    async recover(life) {
      await checkRest(life);
    },
  };

  /** The snapshot is complete, or not there, or refused and removable. */
  async function checkRest({ fileSystem, clock, random }: Life): Promise<void> {
    const environment = environmentOf(clock, random.fork());
    const found = await namesIn(fileSystem);
    const isTaken = call?.to !== undefined;
    if (!isTaken && !found.some((name) => name.startsWith('snap.bak'))) {
      expect(found).toEqual([]);
      return;
    }
    let snapshot: InlineDevice;
    try {
      const files = fileSystem.duplicate();
      snapshot = await open(files, { target: 'snap', environment });
      // A claim that is no checkpoint yet, as a new copy leaves it, is no copy.
      if (!isTaken && !found.includes('snap')) return await snapshot.close();
    } catch (error) {
      if (isTaken || !isCodError(error, 'COD_INCOMPLETE')) throw error;
      await removeCopy({ fileSystem, target: 'snap', environment });
      expect(await namesIn(fileSystem)).toEqual([]);
      return;
    }
    figures.taken++;
    await checkSnapshot(snapshot, stamps, call?.from ?? 0, call?.to ?? stamps.now());
    await snapshot.close();
  }
}

describe.each([
  { clones: false, hydrate: true },
  { clones: false, hydrate: false },
  { clones: true, hydrate: true },
  { clones: true, hydrate: false },
])('a snapshot while users write (cloned: $clones, background copy: $hydrate)', (how) => {
  it('is the image of one moment', async () => {
    for (let seed = 1; seed <= SEEDS; seed++) {
      const random = seededRandom(seed);
      const clock = new SimulatedClock({ settle });
      const files = new CrashingFileSystem({ clock, random: random.fork(), inline: random.oneIn(2) });
      const figures = { taken: 0 };
      const story = snapshotStory(how, figures);
      const life = { number: 0, fileSystem: files, clock, random, crash: undefined, isLast: false };
      await clock.run(story.work(life).then(() => story.recover(life)));
      expect(figures.taken, `seed ${seed}`).toBe(1);
    }
  });

  it.each(['process', 'power'] as const)(
    'is complete, refused or absent after a crash at any operation (%s)',
    async (kind) => {
      const figures = { taken: 0 };
      const { crashes } = await exploreCrashes(() => snapshotStory({ ...how, users: 1 }, figures), {
        kind,
        crashes: 1,
        seed: 5,
        fileSystem: { inline: true },
        settle,
      });
      expect(crashes).toBeGreaterThan(100);
      expect(figures.taken).toBeGreaterThan(3);
    },
  );
});

/** A device in which blocks 2 and 3 were read, and parts of 5 and all of 8 were written. */
async function busyDevice(files: FileSystem, how: OpenHow = {}): Promise<InlineDevice> {
  const device = await open(files, how);
  await device.read(new Uint8Array(2 * BLOCK), 2 * BLOCK);
  while (device.status().syncedBlocks < (2 * BLOCK) / device.blockSize) await new Promise(setImmediate);
  await device.write(new Uint8Array(512).fill(5), 5 * BLOCK + 1024);
  await device.write(new Uint8Array(BLOCK).fill(8), 8 * BLOCK);
  return device;
}

function busyImage(): Uint8Array {
  const image = IMAGE.slice();
  image.fill(5, 5 * BLOCK + 1024, 5 * BLOCK + 1536);
  return image.fill(8, 8 * BLOCK, 9 * BLOCK);
}

/** Expects that a device still works, and that nothing of a snapshot is there. */
async function expectHealthy(device: InlineDevice, files: FileSystem): Promise<void> {
  expect(await namesIn(files)).toEqual([]);
  await device.write(new Uint8Array(BLOCK).fill(9), 9 * BLOCK);
  await device.flush();
  await device.snapshot('snap');
  expect(await namesIn(files)).toEqual(['snap', 'snap.bak.1']);
  await device.close();
}

describe.each([{ clones: false }, { clones: true }])('a snapshot (cloned: $clones)', ({ clones }) => {
  const filesFor = (files: FileSystem): FileSystem => (clones ? cloning(files) : files);

  it('holds what the target holds, and is resumed with the same source', async () => {
    const files = filesFor(memfsFileSystem());
    const device = await busyDevice(files);
    await device.snapshot('snap');
    expect(await namesIn(files)).toEqual(['snap', 'snap.bak.1']);
    await device.write(new Uint8Array(BLOCK).fill(1), 8 * BLOCK);
    await device.close();
    const snapshot = await open(files, { target: 'snap' });
    expect(snapshot.status()).toMatchObject({ syncedBlocks: 3, dirtyBlocks: 1, size: SIZE });
    expect([...snapshot.modified.runs()]).toEqual([
      [5, 6],
      [8, 9],
    ]);
    expectBytes(await readAll(snapshot), busyImage());
    await snapshot.close();
    const resumed = await open(files, { target: 'snap', hydrate: true, environment: systemEnvironment });
    await resumed.hydrated;
    await resumed.finish();
    const file = await files.open('snap');
    const bytes = new Uint8Array(SIZE);
    await file.read(bytes, 0);
    expectBytes(bytes, busyImage());
  });

  it('of large blocks and of a complete copy has all of it', async () => {
    const files = filesFor(memfsFileSystem());
    const device = await busyDevice(files, { blockSize: 2 * BLOCK, environment: systemEnvironment });
    await device.hydrateRange(0, SIZE);
    await device.hydrated;
    await device.snapshot('snap');
    await device.close();
    const snapshot = await open(files, { target: 'snap' });
    expect(snapshot.status()).toMatchObject({ syncedBlocks: 21, dirtyBlocks: 0, blockSize: 2 * BLOCK });
    expectBytes(await readAll(snapshot), busyImage());
    await snapshot.close();
  });

  it('that fails at any of its operations leaves nothing, and the device continues', async () => {
    for (let number = 1; ; number++) {
      const files = new CrashingFileSystem();
      const device = await busyDevice(filesFor(files));
      await device.flush();
      let operations = 0;
      let failed: string | undefined;
      files.failWhen(({ name, kind }) => {
        if (!name.startsWith('snap') || ++operations !== number) return false;
        failed = kind;
        return true;
      });
      const outcome = await device.snapshot('snap').then(
        () => 'done',
        (error: unknown) => (isCodError(error) ? error.code : String(error)),
      );
      files.clearFaults();
      if (failed === undefined) {
        expect(outcome).toBe('done');
        expect(number).toBeGreaterThan(15);
        await device.close();
        break;
      }
      // A name that stays is void once the snapshot is complete.
      expect(outcome, `${failed} at ${number}`).toBe(failed === 'remove' ? 'done' : 'COD_TARGET_IO');
      if (outcome === 'done') await device.close();
      else await expectHealthy(device, files);
    }
  });

  it('on a disk that is full leaves nothing, and the device continues', async () => {
    for (let [pages, isDone] = [0, false]; !isDone; pages++) {
      const files = new CrashingFileSystem();
      const device = await busyDevice(filesFor(files));
      await device.flush();
      files.limitSpace(pages * 4096);
      const outcome = await device.snapshot('snap').then(
        () => 'done',
        (error: CodError) => error.code,
      );
      isDone = outcome === 'done';
      if (!isDone || pages < 3) expect(outcome, `${pages} pages`).toBe('COD_NO_SPACE');
      files.clearFaults();
      if (isDone) await device.close();
      else await expectHealthy(device, files);
    }
  });

  it('of a device whose target cannot be synced fails', async () => {
    const files = new CrashingFileSystem();
    const device = await busyDevice(filesFor(files));
    await device.flush();
    // A write during the snapshot is not flushed before its last sync.
    let syncs = 0;
    files.failWhen(({ kind, name }) => kind === 'sync' && name === 'disk' && ++syncs === 1);
    const taking = device.snapshot('snap');
    await device.write(new Uint8Array(BLOCK).fill(1), 20 * BLOCK);
    await expect(taking).rejects.toMatchObject({ code: 'COD_POISONED' });
    expect(await namesIn(files)).toEqual([]);
    await device.close().catch(() => undefined);
  });

  it('changes no file that has one of its names', async () => {
    for (const name of NAMES.slice(0, 5)) {
      const files = filesFor(memfsFileSystem());
      const device = await busyDevice(files);
      const foreign = await files.open(name, { create: true });
      await foreign.write(new TextEncoder().encode('my notes'.padEnd(2000, '.')), 0);
      await expect(device.snapshot('snap')).rejects.toMatchObject({ code: 'COD_EXISTS' });
      await expect(device.snapshot('snap')).rejects.toThrow(`${name}: `);
      expect(await namesIn(files)).toEqual([name]);
      expect(await foreign.size()).toBe(2000);
      await device.close();
    }
  });

  it('does not replace another copy, nor another snapshot, nor an unfinished one', async () => {
    const files = new CrashingFileSystem();
    const device = await busyDevice(filesFor(files));
    await device.snapshot('snap');
    await expect(device.snapshot('snap')).rejects.toMatchObject({ code: 'COD_EXISTS' });
    await device.snapshot('snap2');
    let left: CrashingFileSystem | undefined;
    files.failWhen(({ name, kind }) => {
      if (name === 'snap3' && kind === 'write') left ??= files.duplicate();
      return false;
    });
    await device.snapshot('snap3');
    await device.close();
    const again = await open(left!);
    await expect(again.snapshot('snap3')).rejects.toThrow('snap3.bak: an unfinished snapshot: remove it');
    await expect(open(left!, { target: 'snap3' })).rejects.toMatchObject({ code: 'COD_INCOMPLETE' });
    await removeCopy({ fileSystem: left!, target: 'snap3', environment: newEnvironment() });
    await again.snapshot('snap3');
    await again.close();
  });

  it('is aborted when the device is closed, and leaves nothing', async () => {
    for (let number = 1; ; number++) {
      const files = new CrashingFileSystem();
      const device = await busyDevice(filesFor(files));
      await device.flush();
      let operations = 0;
      let closing: Promise<void> | undefined;
      files.failWhen(({ name }) => {
        if (name.startsWith('snap') && ++operations === number) closing = device.close();
        return false;
      });
      const outcome = await device.snapshot('snap').then(
        () => 'done',
        (error: CodError) => error.code,
      );
      await closing;
      if (outcome === 'COD_CLOSED') expect(await namesIn(files)).toEqual([]);
      else expect(await namesIn(files)).toEqual(['snap', 'snap.bak.1']);
      if (closing !== undefined) continue;
      expect(number).toBeGreaterThan(10);
      await device.close();
      break;
    }
  });
});

describe('a snapshot', () => {
  it('has a name of its own in the same directory', async () => {
    const volume = memfsFileSystem();
    const device = await busyDevice(volume);
    for (const to of ['', 7 as unknown as string]) await expect(device.snapshot(to)).rejects.toThrow(TypeError);
    for (const to of ['disk', 'disk.bak.1', 'disk.wil', 'disk.lock', 'disk.lock.spare', 'other/snap', '/snap'])
      await expect(device.snapshot(to), to).rejects.toThrow(RangeError);
    await device.snapshot('disk.raw');
    await device.close();
    await expect(device.snapshot('snap')).rejects.toMatchObject({ code: 'COD_CLOSED' });
    const reader = await openDeviceIn(newEnvironment(), {
      source: bytesSource(IMAGE, { identity: IDENTITY }),
      fileSystem: volume,
      target: 'disk',
      readOnly: true,
    });
    await expect(reader.snapshot('snap')).rejects.toMatchObject({ code: 'COD_READ_ONLY' });
    await reader.close();
  });

  it('lets reads through while changes wait', async () => {
    const files = memfsFileSystem();
    let openGate!: () => void;
    let isClosed!: () => void;
    const closed = new Promise<void>((resolve) => (isClosed = resolve));
    const opened = new Promise<void>((resolve) => (openGate = resolve));
    const device = await busyDevice(
      cloning(files as CrashingFileSystem, async () => {
        isClosed();
        await opened;
      }),
    );
    const taking = device.snapshot('snap');
    await closed;
    const order: string[] = [];
    const write = device.write(new Uint8Array(BLOCK).fill(1), 0).then(() => order.push('write'));
    const zero = device.writeZeroes(8 * BLOCK, BLOCK).then(() => order.push('zero'));
    const read = new Uint8Array(BLOCK);
    await device.read(read, 2 * BLOCK);
    order.push('read');
    openGate();
    await Promise.all([write, zero, taking]);
    expect(order[0]).toBe('read');
    await device.close();
    const snapshot = await open(files, { target: 'snap' });
    expectBytes(await readAll(snapshot), busyImage());
    await snapshot.close();
  });

  it('copies bytes where the file system turns out not to clone', async () => {
    let calls = 0;
    const files = cloning(new CrashingFileSystem(), async () => {
      calls++;
      throw new CodError('COD_UNSUPPORTED', 'no reflinks');
    });
    const device = await busyDevice(files);
    await device.snapshot('snap');
    await device.snapshot('snap2');
    expect(calls).toBe(1);
    await device.close();
    const snapshot = await open(files, { target: 'snap' });
    expectBytes(await readAll(snapshot), busyImage());
    await snapshot.close();
  });

  it('takes again what is written meanwhile, in four rounds, and leaves holes as they are', async () => {
    const [mib, data] = [2 ** 20, 24];
    const size = (data + 8) * mib;
    const files = memfsFileSystem();
    const copied: { offset: number; length: number }[] = [];
    const writes: Promise<void>[] = [];
    let rounds = 0;
    let device!: InlineDevice;
    const noting: FileSystem = {
      remove: (name) => files.remove(name),
      open: async (name, how) => {
        const file = await files.open(name, how);
        if (name !== 'snap') return file;
        return {
          size: () => file.size(),
          read: (into, offset) => file.read(into, offset),
          write: async (from, offset) => {
            copied.push({ offset, length: from.length });
            if (offset === 0) rounds++;
            // A user writes again what is being copied: in the last round, after the snapshot.
            writes.push(device.write(new Uint8Array(from.length).fill(rounds), offset));
            await file.write(from, offset);
          },
          truncate: (bytes) => file.truncate(bytes),
          sync: () => file.sync(),
          close: () => file.close(),
        };
      },
    };
    const source = bytesSource(new Uint8Array(size), { identity: IDENTITY });
    device = await openDeviceIn(newEnvironment(), { source, fileSystem: noting, target: 'disk', hydrate: false });
    await device.write(new Uint8Array(data * mib).fill(0xaa), 0);
    await device.writeZeroes(data * mib, size - data * mib);
    await device.snapshot('snap');
    await Promise.all(writes);
    expect(rounds).toBe(5);
    expect(copied).toHaveLength(5 * data);
    expect(Math.max(...copied.map(({ offset, length }) => offset + length))).toBe(data * mib);
    await device.close();
    const bytes = new Uint8Array(size);
    await (await files.open('snap')).read(bytes, 0);
    expectBytes(bytes, new Uint8Array(size).fill(4, 0, data * mib));
  });
});
