/** Abandoning a copy: what is removed, what is refused, and that no crash leaves a target that looks complete. */

import { createHash } from 'node:crypto';
import { beforeAll, describe, expect, it } from 'vitest';
import { type CodErrorCode, type FileSystem, isCodError, openDevice, removeCopy } from '../../src/index.ts';
import { removeCopyIn } from '../../src/log/removal.ts';
import { ALL_SLOTS, slotName } from '../../src/log/slots.ts';
import type { Environment } from '../../src/platform/clock.ts';
import { bytesSource } from '../../src/sources/bytes.ts';
import type { Source } from '../../src/sources/source.ts';
import {
  CrashingFileSystem,
  exploreCrashes,
  FileSystemRecorder,
  type Life,
  type Random,
  replayTrace,
  SimulatedClock,
  type Story,
  seededRandom,
} from '../../src/testing/index.ts';
import { Core } from '../../src/wasm/core.ts';
import { goldenState } from '../crash/images.ts';
import { expectBytes } from '../support/bytes.ts';

const BLOCK = 4096;
const SIZE = 20 * BLOCK + 700;
const IMAGE = seededRandom(1).fill(new Uint8Array(SIZE));
const METADATA = ALL_SLOTS.map(({ kind, slot }) => slotName('disk', kind, slot));

function environmentOf(clock: SimulatedClock, random: Random): Environment {
  return { clock, randomBytes: (into) => random.fill(into) };
}

function newEnvironment(): Environment {
  return environmentOf(new SimulatedClock({ settle: () => new Promise(process.nextTick) }), seededRandom(2));
}

function open(fileSystem: FileSystem, environment = newEnvironment(), source: Source = imageSource()) {
  return openDevice({ source, fileSystem, target: 'disk', hydrate: false, environment });
}

function imageSource(): Source {
  return bytesSource(IMAGE, { identity: 'the source' });
}

/** The size of a file; undefined if it does not exist. */
async function sizeOf(fileSystem: FileSystem, name: string): Promise<number | undefined> {
  try {
    const file = await fileSystem.open(name);
    const size = await file.size();
    await file.close();
    return size;
  } catch (error) {
    if (isCodError(error, 'COD_NOT_FOUND')) return undefined;
    throw error;
  }
}

async function put(fileSystem: FileSystem, name: string, bytes: Uint8Array): Promise<void> {
  const file = await fileSystem.open(name, { create: true });
  await file.truncate(0);
  await file.write(bytes, 0);
  await file.sync();
  await file.close();
}

async function contentOf(fileSystem: FileSystem, name: string): Promise<Uint8Array | undefined> {
  const size = await sizeOf(fileSystem, name);
  if (size === undefined) return undefined;
  const file = await fileSystem.open(name);
  const bytes = new Uint8Array(size);
  await file.read(bytes, 0);
  await file.close();
  return bytes;
}

/** Size and digest of each file of the copy that exists. */
async function contentsOf(fileSystem: FileSystem): Promise<Record<string, { size: number; digest: string }>> {
  const contents: Record<string, { size: number; digest: string }> = {};
  for (const name of ['disk', ...METADATA]) {
    const bytes = await contentOf(fileSystem, name);
    if (bytes === undefined) continue;
    contents[name] = { size: bytes.length, digest: createHash('sha256').update(bytes).digest('hex') };
  }
  return contents;
}

/** A range of the image, and what a device reads there. */
interface Window {
  readonly offset: number;
  readonly content: Uint8Array;
}

/** A copy before its removal. */
interface Before {
  readonly files: CrashingFileSystem;
  readonly source: () => Source;
  readonly windows: readonly Window[];
  /** Metadata that cannot be read. */
  readonly isDamaged?: boolean;
}

/** A copy of which blocks 2 to 5 were read, and parts of 4, 8 and 20 and all of 12 were written and flushed. */
async function copyIn(
  use: (device: Awaited<ReturnType<typeof open>>, files: CrashingFileSystem) => Promise<CrashingFileSystem | undefined>,
): Promise<Before> {
  const files = new CrashingFileSystem();
  const content = IMAGE.slice();
  const device = await open(files);
  await device.read(new Uint8Array(4 * BLOCK), 2 * BLOCK);
  // A read resolves before its blocks are recorded.
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
  await device.flush();
  const found = (await use(device, files)) ?? files.crash({ kind: 'process', random: seededRandom(3) });
  return { files: found, source: imageSource, windows: [{ offset: 0, content }] };
}

async function damaged(before: Before, damage: (files: CrashingFileSystem) => Promise<void>): Promise<Before> {
  await damage(before.files);
  return { ...before, isDamaged: true };
}

async function flip(files: FileSystem, name: string, offset: number): Promise<void> {
  const bytes = (await contentOf(files, name))!;
  bytes[offset]! ^= 0x10;
  await put(files, name, bytes);
}

const inUse = () => copyIn(async () => undefined);
const closed = () =>
  copyIn(async (device) => {
    await device.close();
    return undefined;
  });

const copies: Record<string, () => Promise<Before>> = {
  'a copy that was killed while it was in use': inUse,
  'a copy that was closed': closed,
  'a copy whose two logs count': () =>
    copyIn(async (device, files) => {
      files.failWhen(({ kind, name }) => kind === 'write' && name.includes('.bak'), {
        code: 'COD_NO_SPACE',
        stays: true,
      });
      await expect(device.checkpoint()).rejects.toMatchObject({ code: 'COD_NO_SPACE' });
      await device.write(IMAGE.subarray(0, BLOCK), 0);
      await device.flush();
      return undefined;
    }),
  'a copy that was killed before its newest checkpoint was synced': () =>
    copyIn(async (device, files) => {
      let syncs = 0;
      let found: CrashingFileSystem | undefined;
      // The first sync makes the body durable, and the second one the header.
      files.failWhen(({ kind, name }) => {
        if (kind === 'sync' && name.includes('.bak') && ++syncs === 2) found = files.duplicate();
        return false;
      });
      await device.checkpoint();
      await device.close();
      return found;
    }),
  'a complete copy': () =>
    copyIn(async (device) => {
      await device.read(new Uint8Array(SIZE), 0);
      while (device.status().syncedBlocks < 21) await new Promise(setImmediate);
      await device.close();
      return undefined;
    }),
  'a copy whose target is missing': async () => {
    const before = await closed();
    const files = new CrashingFileSystem();
    for (const name of METADATA) await put(files, name, (await contentOf(before.files, name))!);
    return { ...before, files, isDamaged: true };
  },
  'a copy in format 1': async () => {
    const { size, image, initial } = await goldenState('dirty-heavy');
    const files = new CrashingFileSystem();
    for (const name of ['disk', ...METADATA]) {
      const bytes = await contentOf(initial, name.replace('disk', 'disk.raw'));
      if (bytes !== undefined) await put(files, name, bytes);
    }
    const bytes = new Uint8Array(size);
    image.read(bytes, 0);
    return { files, source: () => bytesSource(bytes), windows: image.windows };
  },
  'a copy whose newest checkpoint is damaged': () => closed().then((before) => damaged(before, damageNewest)),
  'a copy whose checkpoints are both damaged': () =>
    inUse().then((before) =>
      damaged(before, async (files) => {
        await flip(files, 'disk.bak', 42);
        await flip(files, 'disk.bak.1', 42);
      }),
    ),
  'a copy whose log is missing': () =>
    inUse().then((before) =>
      damaged(before, async (files) => {
        await files.remove('disk.wil');
        await files.remove('disk.wil.1');
      }),
    ),
};

async function damageNewest(files: FileSystem): Promise<void> {
  const epochs = await Promise.all(
    ['disk.bak', 'disk.bak.1'].map(async (name) => {
      const bytes = (await contentOf(files, name))!;
      return { name, epoch: new DataView(bytes.buffer).getBigUint64(32, true) };
    }),
  );
  const [one, other] = epochs;
  await flip(files, one!.epoch > other!.epoch ? one!.name : other!.name, 42);
}

/** A removal that crashes at any operation, then an open or another removal, and so on. */
function removalStory({ source, windows, isDamaged = false }: Before, isFull: boolean): Story {
  /** A removal has begun: the copy may be as it was, empty, or gone. */
  let isBegun = false;
  /** The copy was empty or gone: what users wrote is never read again. */
  let isLost = false;

  const remove = async ({ fileSystem, clock, random }: Life): Promise<void> => {
    isBegun = true;
    if (isFull)
      fileSystem.failWhen(({ kind, name }) => kind === 'write' && name.includes('.bak'), {
        code: 'COD_NO_SPACE',
        stays: true,
      });
    try {
      await removeCopyIn(environmentOf(clock, random), { fileSystem, target: 'disk' });
      isLost = true;
    } catch (error) {
      if (!isCodError(error, 'COD_NOT_FOUND')) throw error;
    }
    fileSystem.clearFaults();
    expect((await sizeOf(fileSystem, 'disk')) ?? 0).toBe(0);
    for (const name of METADATA) expect((await sizeOf(fileSystem, name)) ?? 0, name).toBe(0);
  };

  /** The codes with which a copy may be refused now. */
  const refusals = async (fileSystem: FileSystem): Promise<CodErrorCode[]> => {
    const codes: CodErrorCode[] = [];
    if (isDamaged || (isFull && isBegun)) codes.push('COD_CORRUPT');
    // A power cut may bring back the name of the target, empty.
    if (isBegun && (await sizeOf(fileSystem, 'disk')) === 0) codes.push('COD_EXISTS');
    return codes;
  };

  const openAndRead = async ({ fileSystem, clock, random }: Life): Promise<void> => {
    let device: Awaited<ReturnType<typeof open>>;
    const codes = await refusals(fileSystem);
    try {
      device = await open(fileSystem, environmentOf(clock, random), source());
    } catch (error) {
      if (codes.some((code) => isCodError(error, code))) return;
      throw error;
    }
    let [isAsBefore, isSource] = [true, true];
    for (const { offset, content } of windows) {
      const [found, original] = [new Uint8Array(content.length), new Uint8Array(content.length)];
      await device.read(found, offset);
      await source().read(original, offset);
      isAsBefore &&= Buffer.compare(found, content) === 0;
      isSource &&= Buffer.compare(found, original) === 0;
    }
    if (!isAsBefore && !isBegun) throw new Error('the copy has changed before its removal');
    if (!isSource && (isLost || !isAsBefore)) throw new Error('the device reads neither as the copy nor as its source');
    isLost ||= !isAsBefore;
    await device.close();
  };

  return {
    work: remove,
    async recover(life) {
      const { fileSystem, random } = life;
      const target = await sizeOf(fileSystem, 'disk');
      const metadata: number[] = [];
      for (const name of METADATA) metadata.push((await sizeOf(fileSystem, name)) ?? 0);
      if (target && metadata.every((size) => size === 0)) throw new Error('a target with bytes has no metadata');
      await (random.oneIn(2) ? remove(life) : openAndRead(life));
    },
  };
}

describe.each(Object.entries(copies))('removing %s', (name, make) => {
  let before: Before;
  beforeAll(async () => {
    before = await make();
  });

  it.each([
    ['process', false, false],
    ['power', false, false],
    ['loss', true, false],
    ['mixed', true, true],
  ] as const)(
    'leaves the copy, an empty copy or nothing after a crash at any operation (%s, exclusive: %s, disk full: %s)',
    async (kind, exclusive, isFull) => {
      const figures = await exploreCrashes(() => removalStory(before, isFull), {
        initial: before.files,
        fileSystem: { exclusive, inline: true },
        kind,
        crashes: 4,
        seed: 7,
        settle: () => new Promise(process.nextTick),
      });
      expect(figures.crashes).toBeGreaterThan(30);
    },
  );

  it('removes exactly its files, and says what they held', async () => {
    const files = before.files.duplicate();
    await put(files, 'disk.raw', IMAGE);
    await put(files, 'disk.bak.old', IMAGE);
    const there = await contentsOf(files);
    const removed = await removeCopy({ fileSystem: files, target: 'disk', environment: newEnvironment() });
    expect(removed.files).toEqual(Object.keys(there));
    expect(removed.targetBytes).toBe(there['disk']?.size);
    const whole = name === 'a complete copy';
    const written = 3 * BLOCK + 1024 + 512 - 2 * BLOCK;
    if (name === 'a copy in format 1') expect(removed.contents!.modifiedBytes).toBe(removed.contents!.copiedBytes);
    else if (before.isDamaged && 'disk' in there) expect(removed.contents).toBeUndefined();
    else if (whole) expect(removed.contents).toEqual({ size: SIZE, copiedBytes: SIZE, modifiedBytes: 3 * BLOCK + 700 });
    else {
      const more = name === 'a copy whose two logs count' ? BLOCK : 0;
      expect(removed.contents).toEqual({
        size: SIZE,
        copiedBytes: 5 * BLOCK + 1024 + 512 + more,
        modifiedBytes: BLOCK + written + more,
      });
    }
    for (const file of Object.keys(there)) expect(await sizeOf(files, file), file).toBeUndefined();
    expectBytes((await contentOf(files, 'disk.raw'))!, IMAGE);
    expectBytes((await contentOf(files, 'disk.bak.old'))!, IMAGE);
    await expect(removeCopy({ fileSystem: files, target: 'disk' })).rejects.toMatchObject({ code: 'COD_NOT_FOUND' });
  });
});

describe('removeCopy refuses and changes nothing', () => {
  /** Runs `arrange`, and expects a refusal that leaves every file as it is. */
  async function expectRefusal(files: FileSystem, code: CodErrorCode, message: RegExp | string): Promise<void> {
    const there = await contentsOf(files);
    const removing = removeCopy({ fileSystem: files, target: 'disk', environment: newEnvironment() });
    await expect(removing).rejects.toMatchObject({ code });
    await expect(removing).rejects.toThrow(message);
    expect(await contentsOf(files)).toEqual(there);
  }

  it('a target without metadata', async () => {
    const files = new CrashingFileSystem();
    await put(files, 'disk', IMAGE);
    await expectRefusal(files, 'COD_NOT_FOUND', 'disk is not an unfinished copy: it has no metadata');
  });

  it('a complete image beside what a crash of `finish` leaves', async () => {
    const files = new CrashingFileSystem();
    await put(files, 'disk', IMAGE);
    await put(files, 'disk.bak', new Uint8Array());
    await put(files, 'disk.wil.1', new Uint8Array());
    await expectRefusal(files, 'COD_NOT_FOUND', 'disk is not an unfinished copy');
  });

  it('a name at which nothing is', async () => {
    await expectRefusal(new CrashingFileSystem(), 'COD_NOT_FOUND', 'there is no copy at disk');
  });

  const foreign: Record<string, Uint8Array> = {
    'a text': new TextEncoder().encode('my notes'),
    'an image that begins with zeros': new Uint8Array(16 * BLOCK).fill(7, 1024),
    'a file of many zeros': new Uint8Array(2 ** 20),
    'a file that begins almost like ours': new TextEncoder().encode('COD but not ours'.padEnd(600, '.')),
    'a file that begins like the other kind': new TextEncoder().encode('COD XXX\0'.padEnd(600, '.')),
  };
  const placed = METADATA.flatMap((name) => Object.keys(foreign).map((kind) => [kind, name] as const));

  it.each(placed)('%s at %s beside a target', async (kind, name) => {
    const files = new CrashingFileSystem();
    await put(files, 'disk', IMAGE);
    await put(files, name, foreign[kind]!);
    await expectRefusal(files, 'COD_EXISTS', `${name}: not metadata of a copy`);
  });

  it.each(placed)('%s at %s without a target', async (kind, name) => {
    const files = new CrashingFileSystem();
    await put(files, name, foreign[kind]!);
    await expectRefusal(files, 'COD_EXISTS', `${name}: not metadata of a copy`);
  });

  it.each(placed)('%s at %s in a damaged copy', async (kind, name) => {
    const { files } = await inUse();
    for (const other of ['disk.bak', 'disk.bak.1']) await flip(files, other, 42);
    await put(files, name, foreign[kind]!);
    await expectRefusal(files, 'COD_EXISTS', `${name}: not metadata of a copy`);
  });

  it.each(['', 'damaged '])('a %scopy of a newer version', async (damage) => {
    const { files } = await closed();
    if (damage !== '') await flip(files, 'disk.bak', 42);
    const bytes = (await contentOf(files, 'disk.wil'))!;
    const view = new DataView(bytes.buffer);
    view.setBigUint64(8, 3n, true);
    view.setUint32(500, Core.create().crc32c(bytes.subarray(0, 500)), true);
    await put(files, 'disk.wil', bytes);
    await expectRefusal(files, 'COD_VERSION', 'use a newer package');
  });

  it('a copy in use', async () => {
    const { files } = await closed();
    const device = await open(files);
    await expectRefusal(files, 'COD_LOCKED', 'already open');
    await device.close();
    expect(await removeCopy({ fileSystem: files, target: 'disk' })).toMatchObject({ contents: { size: SIZE } });
  });

  it('a copy whose removal is aborted or not confirmed', async () => {
    const { files } = await closed();
    const there = await contentsOf(files);
    const options = { fileSystem: files, target: 'disk' };
    const reason = new Error('no longer wanted');
    await expect(removeCopy({ ...options, signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    const late = new AbortController();
    const whileAsked = removeCopyIn(newEnvironment(), {
      ...options,
      signal: late.signal,
      confirm: () => late.abort(reason),
    });
    await expect(whileAsked).rejects.toBe(reason);
    await expect(removeCopyIn(newEnvironment(), { ...options, confirm: () => Promise.reject(reason) })).rejects.toBe(
      reason,
    );
    expect(await contentsOf(files)).toEqual(there);
    await (await open(files)).close();
  });

  it('a target that is no name', async () => {
    const fileSystem = new CrashingFileSystem();
    await expect(removeCopy({ fileSystem, target: '' })).rejects.toThrow(TypeError);
  });
});

describe('a removal', () => {
  it('syncs a name beside the target between the removal of the target and that of the metadata', async () => {
    const { files } = await closed();
    const recorder = new FileSystemRecorder(files);
    await removeCopy({ fileSystem: recorder.fileSystem, target: 'disk', environment: newEnvironment() });
    const steps: string[] = [];
    const names = new Map<number, string>();
    for await (const step of replayTrace(recorder.trace(), new CrashingFileSystem())) {
      if (step.op === 'open' && 'file' in step) names.set(step.file, step.name);
      const name = 'name' in step ? step.name : 'file' in step ? names.get(step.file) : undefined;
      if (['open', 'truncate', 'sync', 'remove'].includes(step.op)) steps.push(`${step.op} ${name}`);
    }
    const at = steps.indexOf('remove disk');
    expect(steps.slice(at - 2, at + 1)).toEqual(['truncate disk', 'sync disk', 'remove disk']);
    // A file that is opened anew syncs its name, and so its directory, on POSIX.
    expect(steps.slice(at + 1, at + 3)).toEqual(['open disk.bak', 'sync disk.bak']);
    for (const name of METADATA) {
      const end = steps.indexOf(`remove ${name}`);
      expect(end).toBeGreaterThan(at + 2);
      expect(steps.slice(end - 2, end)).toEqual([`truncate ${name}`, `sync ${name}`]);
    }
  });

  it('that failed at any operation can be repeated', async () => {
    const { files } = await inUse();
    for (let number = 1; ; number++) {
      const failing = files.duplicate();
      failing.failAt(number);
      const options = { fileSystem: failing, target: 'disk', environment: newEnvironment() };
      const first = await removeCopy(options).then(
        () => 'done',
        (error: unknown) => (error as { code?: string }).code,
      );
      const isOver = failing.operationCount < number;
      failing.clearFaults();
      if (first !== 'done') {
        expect(first).toMatch(/^COD_(TARGET_IO|POISONED)$/);
        await removeCopy(options);
      }
      for (const name of ['disk', ...METADATA]) expect(await sizeOf(failing, name), name).toBeUndefined();
      if (isOver) break;
    }
  });

  // The checkpoint that goes last is in either slot.
  it.each([1, 2])('that was killed, and then a power cut during a new copy, leave a copy (%i)', async (checkpoints) => {
    const { files } = await copyIn(async (device) => {
      for (let count = 0; count < checkpoints; count++) {
        await device.write(new Uint8Array(10), 0);
        await device.checkpoint();
      }
      return undefined;
    });
    const newCopy = (on: CrashingFileSystem) => open(on, environmentOf(new SimulatedClock(), seededRandom(3)));
    /** Runs a task that is killed at an operation. Resolves to false if it ends before. */
    const killed = async (on: CrashingFileSystem, step: number, task: () => Promise<unknown>): Promise<boolean> => {
      on.crashAt(on.operationCount + step);
      return Promise.race([task().then(() => false), on.crashed.then(() => true)]);
    };
    const whole = files.duplicate();
    await removeCopyIn(newEnvironment(), { fileSystem: whole, target: 'disk' });
    for (let step = whole.operationCount - 8; step <= whole.operationCount; step++) {
      const removing = files.duplicate({ random: seededRandom(step) });
      await killed(removing, step, () => removeCopyIn(newEnvironment(), { fileSystem: removing, target: 'disk' }));
      for (let next = 1, isOver = false; !isOver; next++) {
        const found = removing.crash({ kind: 'process', random: seededRandom(step + next) });
        isOver = !(await killed(found, next, () => newCopy(found)));
        for (let cut = 1; cut <= 4; cut++) {
          const after = found.crash({ kind: 'power', random: seededRandom(cut) });
          try {
            await (await newCopy(after)).read(new Uint8Array(SIZE), 0);
          } catch (error) {
            // The name of the removed target may be back, but no byte of it.
            expect(error).toMatchObject({ code: 'COD_EXISTS', details: { target: 'disk' } });
            expect(await sizeOf(after, 'disk')).toBe(0);
          }
        }
      }
    }
  });

  it('on a full disk makes room first', async () => {
    const { files } = await closed();
    files.limitSpace(0);
    await removeCopy({ fileSystem: files, target: 'disk', environment: newEnvironment() });
    for (const name of ['disk', ...METADATA]) expect(await sizeOf(files, name), name).toBeUndefined();
  });

  it('takes the metadata from beside another name', async () => {
    const { files } = await closed();
    for (const name of METADATA) await put(files, name.replace('disk', 'link'), (await contentOf(files, name))!);
    for (const name of METADATA) await files.remove(name);
    const removed = await removeCopyIn(newEnvironment(), { fileSystem: files, target: 'disk', metadata: 'link' });
    expect(removed.files).toEqual(['disk', 'link.bak', 'link.bak.1', 'link.wil', 'link.wil.1']);
    expect(await sizeOf(files, 'disk')).toBeUndefined();
  });
});
