/** Promise 7: what an owner may do after another one has taken its copy over, and what the new one does first. */

import { describe, expect, it } from 'vitest';
import { type Device, openDevice, type Source } from '../../src/index.ts';
import { removeCopyIn } from '../../src/log/removal.ts';
import { bytesSource } from '../../src/sources/bytes.ts';
import {
  CrashingFileSystem,
  exploreCrashes,
  SharedStorage,
  SimulatedClock,
  type StorageOwner,
  seededRandom,
} from '../../src/testing/index.ts';
import { ControlledSource } from '../support/controlled-source.ts';

const BLOCK = 4096;
const BLOCKS = 16;
const SOURCE = new Uint8Array(BLOCKS * BLOCK).fill(1);
const ENVIRONMENT = { clock: new SimulatedClock(), randomBytes: (into: Uint8Array) => into.fill(7) };
const METADATA = ['disk.bak', 'disk.bak.1', 'disk.wil', 'disk.wil.1'];

function open(
  fileSystem: StorageOwner,
  clock = new SimulatedClock(),
  source: Source = bytesSource(SOURCE, { identity: 'x' }),
): Promise<Device> {
  return openDevice({
    source,
    fileSystem,
    target: 'disk',
    hydrate: false,
    environment: { clock, randomBytes: (into) => into.fill(7) },
  });
}

const block = (value: number): Uint8Array => new Uint8Array(BLOCK).fill(value);

/** The first byte of a block of the target itself. */
async function firstByte(files: CrashingFileSystem, index: number): Promise<number | undefined> {
  const target = await files.open('disk');
  const found = new Uint8Array(1);
  await target.read(found, index * BLOCK);
  await target.close();
  return found[0];
}

async function contentOf(device: Device, index: number): Promise<number> {
  const found = new Uint8Array(BLOCK);
  await device.read(found, index * BLOCK);
  expect(new Set(found).size).toBe(1);
  return found[0]!;
}

/** A copy of which block 0 is written and flushed, and block 1 is written. */
async function begun(): Promise<{
  files: CrashingFileSystem;
  shared: SharedStorage;
  owner: StorageOwner;
  device: Device;
}> {
  const files = new CrashingFileSystem();
  const shared = new SharedStorage(files);
  const owner = shared.takeOver();
  const device = await open(owner);
  await device.write(block(10), 0);
  await device.flush();
  await device.write(block(11), BLOCK);
  return { files, shared, owner, device };
}

/** Reads everything, so that the copy can be finished. */
async function complete(device: Device): Promise<void> {
  await device.hydrateRange(0, SOURCE.length);
  await device.hydrated;
}

const LOST = { code: 'COD_POISONED', message: expect.stringContaining('was taken over by owner 2') };

describe('an owner that was replaced for long changes nothing of the target', () => {
  it('by a write', async () => {
    const { files, shared, owner, device } = await begun();
    shared.takeOver();
    owner.isRecent = false;
    await expect(device.write(block(99), 0)).rejects.toMatchObject(LOST);
    expect(await firstByte(files, 0)).toBe(10);
    await device.close().catch(() => undefined);
  });

  it.each<[string, (device: Device) => Promise<unknown>]>([
    ['a read that waited for the source', (device) => device.read(new Uint8Array(BLOCK), 5 * BLOCK)],
    ['a hydration that waited for the source', (device) => device.hydrateRange(4 * BLOCK, 4 * BLOCK)],
  ])('by %s', async (_, call) => {
    const files = new CrashingFileSystem();
    const shared = new SharedStorage(files);
    const owner = shared.takeOver();
    const source = new ControlledSource(SOURCE);
    const device = await open(owner, undefined, source);
    const called = call(device).catch(() => undefined);
    const answer = await source.next();
    const target = await files.open('disk');
    shared.takeOver();
    owner.isRecent = false;
    await target.write(block(77), 5 * BLOCK);
    answer.release();
    await called;
    await device.close().catch(() => undefined);
    expect(await firstByte(files, 5)).toBe(77);
  });
});

it('an owner that was replaced leaves no snapshot', async () => {
  const files = new CrashingFileSystem();
  const shared = new SharedStorage(files);
  const owner = shared.takeOver();
  const snapshotLease = { check: async () => true, release: async () => undefined };
  const lock: StorageOwner['lock'] = async (name, options) =>
    name.startsWith('snapshot') ? snapshotLease : owner.lock!(name, options);
  const device = await open({ ...owner, lock });
  await device.write(block(10), 0);
  shared.takeOver();
  await expect(device.snapshot('snapshot')).rejects.toMatchObject(LOST);
  for (const name of ['snapshot', 'snapshot.bak', 'snapshot.wil'])
    await expect(files.open(name), name).rejects.toMatchObject({ code: 'COD_NOT_FOUND' });
  await device.close().catch(() => undefined);
});

describe('an owner that was replaced acknowledges no', () => {
  const calls: [string, (device: Device) => Promise<void>][] = [
    ['flush', (device) => device.flush()],
    ['write with FUA', (device) => device.write(block(12), 0, { fua: true })],
    ['checkpoint', (device) => device.checkpoint()],
    ['close', (device) => device.close()],
    ['finish', (device) => device.finish()],
  ];

  it.each(calls)('%s, if it was replaced before', async (name, call) => {
    const { shared, owner, device } = await begun();
    if (name === 'finish') await complete(device);
    shared.takeOver();
    await expect(call(device)).rejects.toMatchObject(LOST);
    if (name !== 'finish')
      await expect(device.flush()).rejects.toMatchObject({ code: expect.stringMatching(/POISONED|CLOSED/) });
    await device.close().catch(() => undefined);
    expect(owner.isReleased).toBe(true);
  });

  it.each(calls)('%s, if it was replaced during the last sync: the check comes after that', async (name, call) => {
    const { files, owner, device } = await begun();
    if (name === 'finish') await complete(device);
    let checkedAt = 0;
    let syncedAt = 0;
    owner.onCheck = () => {
      checkedAt = files.operationCount;
    };
    files.failWhen(({ kind, number }) => {
      if (kind === 'sync') syncedAt = number;
      return false;
    });
    await call(device);
    expect(syncedAt).toBeGreaterThan(0);
    expect(checkedAt).toBeGreaterThanOrEqual(syncedAt);
    await device.close().catch(() => undefined);
  });

  it('read of a target that its successor has emptied', async () => {
    const { files, shared, device } = await begun();
    const target = await files.open('disk');
    shared.takeOver();
    await target.truncate(0);
    await expect(device.read(new Uint8Array(BLOCK), 0)).rejects.toMatchObject(LOST);
    await device.close().catch(() => undefined);
  });

  it('close before its last operation: the lock is held until then', async () => {
    const { files, owner, device } = await begun();
    let operations = 0;
    files.failWhen(() => {
      operations++;
      expect(owner.isReleased).toBe(false);
      return false;
    });
    await device.close();
    expect(operations).toBeGreaterThan(0);
    expect(owner.isReleased).toBe(true);
  });

  it('close, although it was poisoned before', async () => {
    const { shared, device } = await begun();
    shared.takeOver();
    await expect(device.flush()).rejects.toMatchObject(LOST);
    await expect(device.close()).rejects.toMatchObject(LOST);
  });

  it('finish that is paused before it removes names, and removes none', async () => {
    const { files, shared, owner, device } = await begun();
    await complete(device);
    await device.flush();
    let checks = 0;
    owner.onCheck = () => {
      if (++checks === 2) shared.takeOver();
    };
    await expect(device.finish()).rejects.toMatchObject(LOST);
    for (const name of METADATA) await (await files.open(name)).close();
  });
});

describe('other calls of an owner that was replaced', () => {
  const calls: [string, (device: Device) => Promise<unknown>][] = [
    ['write', (device) => device.write(block(13), 2 * BLOCK)],
    ['write to a block that was written before', (device) => device.write(block(13), 0)],
    ['read of a synced block', (device) => contentOf(device, 0)],
    ['read of another block', (device) => contentOf(device, 9)],
    ['discard', (device) => device.discard(0, BLOCK)],
    ['zeroing', (device) => device.writeZeroes(0, 512)],
    ['question for extents', (device) => device.extents(0, BLOCK, 1)],
    ['request to copy', (device) => device.hydrateRange(0, SOURCE.length)],
  ];

  it.each(calls)('reject 10 s later: %s', async (_, call) => {
    const { shared, owner, device } = await begun();
    shared.takeOver();
    owner.isRecent = false;
    await expect(call(device)).rejects.toMatchObject(LOST);
    expect(device.status().state).toBe('poisoned');
    await device.close().catch(() => undefined);
  });

  it.each(calls)('succeed if the check says that it was not: %s', async (_, call) => {
    const { owner, device } = await begun();
    owner.isRecent = false;
    await call(device);
    expect(owner.isRecent).toBe(true);
    await device.close();
  });
});

it('a check that fails rejects the call, and a later one can succeed', async () => {
  const { owner, device } = await begun();
  owner.onCheck = () => {
    owner.onCheck = () => undefined;
    throw new Error('no answer');
  };
  await expect(device.flush()).rejects.toThrow('no answer');
  await device.flush();
  await device.close();
});

/** Lets `next` happen right before the change of a name with this number. Returns whether there was one. */
function pauseAt(owner: StorageOwner, number: number, next: () => Promise<void>): () => boolean {
  let changes = 0;
  owner.onName = async () => {
    if (++changes === number) await next();
  };
  return () => changes >= number;
}

describe('an owner that is replaced right before it', () => {
  const STEPS = [1, 2, 3, 4];

  /** Another owner writes block 2, and leaves. */
  async function succeed(shared: SharedStorage): Promise<void> {
    const device = await open(shared.takeOver());
    await device.write(block(20), 2 * BLOCK);
    await device.close();
  }

  async function expectKept(shared: SharedStorage): Promise<void> {
    for (const name of METADATA) await (await shared.files.open(name)).close();
    const last = await open(shared.takeOver());
    for (const [index, value] of [10, 11, 20].entries()) expect(await contentOf(last, index)).toBe(value);
    await last.close();
  }

  it.each(STEPS)('removes a name in a take-over leaves the name of its successor (%i)', async (step) => {
    const { shared } = await begun();
    const second = shared.takeOver();
    const wasPaused = pauseAt(second, step + (step > 1 ? 1 : 0), () => succeed(shared));
    await expect(open(second)).rejects.toMatchObject({ code: 'COD_LOCKED' });
    expect(wasPaused()).toBe(true);
    await expectKept(shared);
  });

  it.each(STEPS)('removes a name in a finish leaves the name of its successor (%i)', async (step) => {
    const { shared, owner, device } = await begun();
    await complete(device);
    const wasPaused = pauseAt(owner, step, () => succeed(shared));
    await expect(device.finish()).rejects.toMatchObject(LOST);
    expect(wasPaused()).toBe(true);
    await expectKept(shared);
  });

  it.each([1, 2, 3, 4, 5])('removes a name of a copy leaves the name of its successor (%i)', async (step) => {
    const { shared, device } = await begun();
    await device.close();
    const owner = shared.takeOver();
    // The names of an owner before go first, then the target: it is empty then, and so is the copy.
    const wasPaused = pauseAt(owner, step, () => succeed(shared));
    const removal = removeCopyIn(ENVIRONMENT, { fileSystem: owner, target: 'disk' });
    await expect(removal).rejects.toMatchObject({ code: 'COD_LOCKED' });
    expect(wasPaused()).toBe(true);
    const last = await open(shared.takeOver());
    expect(await contentOf(last, 2)).toBe(20);
    await last.close();
  });

  it('opens a file by its name in a removal empties no file of its successor', async () => {
    // The slots that count differ.
    for (const [before, later] of [0, 1].flatMap((before) => [0, 1].map((later) => [before, later] as const))) {
      for (let at = 1, isLast = false; !isLast; at++) {
        const { files, shared, device } = await begun();
        for (let count = 0; count < before; count++) await device.checkpoint();
        await device.write(block(12), 5 * BLOCK);
        await device.close();
        const owner = shared.takeOver();
        let opens = 0;
        let next: Device | undefined;
        const late = {
          ...owner,
          open: async (name: string, options?: object) => {
            if (METADATA.includes(name) && ++opens === at) {
              next = await open(shared.takeOver());
              await next.write(block(20), 2 * BLOCK);
              for (let count = 0; count < later; count++) await next.checkpoint();
              await next.write(block(21), 3 * BLOCK);
              await next.flush();
            }
            return owner.open(name, options);
          },
        };
        const removal = removeCopyIn(ENVIRONMENT, { fileSystem: late, target: 'disk' });
        const outcome = await removal.catch((error: unknown) => error);
        isLast = next === undefined;
        if (isLast) continue;
        expect(outcome).toMatchObject({ code: 'COD_LOCKED' });
        const after = new SharedStorage(files.crash({ kind: 'process', random: seededRandom(at) }));
        const last = await open(after.takeOver());
        for (const [index, value] of [20, 21].entries()) expect(await contentOf(last, 2 + index)).toBe(value);
        await last.close();
      }
    }
  });

  it.each(STEPS)('makes a name says nothing in it (%i)', async (step) => {
    const files = new CrashingFileSystem();
    const shared = new SharedStorage(files);
    const first = shared.takeOver();
    pauseAt(first, step, async () => {
      const device = await open(shared.takeOver());
      await complete(device);
      await device.finish();
    });
    await expect(open(first)).rejects.toMatchObject({ code: expect.stringMatching(/LOCKED|EXISTS/) });
    for (const name of METADATA) {
      const file = await files.open(name).catch(() => undefined);
      expect((await file?.size()) ?? 0, name).toBe(0);
    }
    // The finished copy is an image, as it was.
    const found = new Uint8Array(SOURCE.length);
    await (await files.open('disk')).read(found, 0);
    expect(found).toEqual(SOURCE);
    await expect(open(shared.takeOver())).rejects.toMatchObject({ code: 'COD_EXISTS' });
  });
});

describe('a take-over of an owner that may be alive', () => {
  it('reads what that owner changes meanwhile as it was at one moment', async () => {
    for (let start = 1, isLast = false; !isLast; start++) {
      const { files, shared, device } = await begun();
      let operations = 0;
      let checkpoint: Promise<unknown> | undefined;
      const next = shared.takeOver();
      // The old owner wakes up, and ends what it has begun.
      files.failWhen(() => {
        if (++operations === start) checkpoint = device.checkpoint().catch((error: unknown) => error);
        return false;
      });
      const opened = await open(next);
      isLast = checkpoint === undefined;
      if (!isLast) expect(await checkpoint).toMatchObject(LOST);
      for (const [index, value] of [10, 11].entries()) expect(await contentOf(opened, index)).toBe(value);
      await opened.close();
    }
  });

  it('finds the names that an earlier owner holds aside while it reads', async () => {
    for (let at = 1, isLast = false; !isLast; at++) {
      const { files, device } = await begun();
      files.crashAt(files.operationCount + at);
      const checkpoint = device.checkpoint().then(() => (isLast = true));
      await Promise.race([files.crashed, checkpoint]);
      const after = files.crash({ kind: 'process', random: seededRandom(at) });
      for (const name of METADATA) {
        const owner = new SharedStorage(after.duplicate()).takeOver();
        owner.hidden = name;
        const next = await open(owner);
        for (const [index, value] of [10, 11].entries()) expect(await contentOf(next, index)).toBe(value);
        await next.close();
      }
    }
  });

  it('may happen while that owner is opening, and be cut short', async () => {
    const random = seededRandom(3);
    for (let round = 0; round < 50; round++) {
      const { files } = await begun();
      const before = files.duplicate();
      const shared = new SharedStorage(before);
      const first = shared.takeOver();
      const second = { owner: first, at: 1 + random.below(80), crashAt: 1 + random.below(80) };
      let operations = 0;
      before.failWhen(({ number }) => {
        if (++operations === second.at) {
          before.crashAt(number + second.crashAt);
          void open(shared.takeOver()).catch(() => undefined);
        }
        return false;
      });
      await Promise.race([
        open(first).then(
          () => undefined,
          () => undefined,
        ),
        before.crashed,
      ]);
      await Promise.race([before.crashed, new Promise((resolve) => setImmediate(resolve))]);
      const after = new SharedStorage(before.crash({ kind: 'process', random }));
      after.takeOver();
      const last = await open(after.takeOver());
      for (const [index, value] of [10, 11].entries()) expect(await contentOf(last, index)).toBe(value);
      await last.close();
    }
  });

  it('makes new metadata files, so what the owner before writes late is not read', async () => {
    const { files, shared, owner, device } = await begun();
    const before = await Promise.all(METADATA.map((name) => files.open(name)));
    const next = await open(shared.takeOver());
    expect(await contentOf(next, 0)).toBe(10);
    expect(await contentOf(next, 1)).toBe(11);
    await next.write(block(20), 2 * BLOCK);
    await next.flush();
    for (const file of before) await file.write(new Uint8Array(20_000).fill(0xee), 0);
    owner.isRecent = true;
    for (let index = 5; index < 9; index++) await device.write(block(30), index * BLOCK);
    await expect(device.checkpoint()).rejects.toMatchObject(LOST);
    await next.write(block(21), 3 * BLOCK);
    const after = new SharedStorage(files.crash({ kind: 'process', random: seededRandom(1) }));
    const last = await open(after.takeOver());
    for (const [index, value] of [10, 11, 20, 21].entries()) expect(await contentOf(last, index)).toBe(value);
    await last.close();
  });

  it('makes new metadata files for a copy that the owner before was making, too', async () => {
    for (let at = 1, isLast = false; !isLast; at++) {
      const files = new CrashingFileSystem();
      const shared = new SharedStorage(files);
      const first = shared.takeOver();
      let writes = 0;
      let next: Device | undefined;
      const late = {
        ...first,
        open: async (name: string, options?: object) => {
          const file = await first.open(name, options);
          if (name !== 'disk.bak') return file;
          const write = async (from: Uint8Array, offset: number): Promise<void> => {
            if (++writes === at) {
              next = await open(shared.takeOver());
              await next.write(block(20), 0);
              await next.flush();
            }
            await file.write(from, offset);
          };
          return { ...file, write };
        },
      };
      const opened = await open(late).catch((error: unknown) => error);
      if (next === undefined) isLast = true;
      else expect(opened).toMatchObject({ code: expect.stringMatching(/LOCKED|POISONED/) });
      const after = new SharedStorage(files.crash({ kind: 'process', random: seededRandom(at) }));
      const last = await open(after.takeOver());
      expect(await contentOf(last, 0)).toBe(isLast ? 1 : 20);
      await last.close();
    }
  });

  it('has new files under all names when it says so', async () => {
    const { files, shared } = await begun();
    const old = await Promise.all(METADATA.map((name) => files.open(name)));
    const owner = shared.takeOver();
    const next = await open(owner);
    for (const file of old) await file.truncate(0);
    for (const name of METADATA) expect(await (await files.open(name)).size(), name).toBeGreaterThan(0);
    await next.close();
  });

  it('writes to no file of a successor that has made it before the metadata was read', async () => {
    const { files } = await begun();
    const again = new SharedStorage(files.duplicate());
    const first = again.takeOver();
    let next: Promise<Device> | undefined;
    const paused = {
      ...first,
      open: async (name: string, options?: object) => {
        next ??= open(again.takeOver());
        await next;
        return again.files.open(name, options);
      },
    };
    await expect(open(paused)).rejects.toMatchObject({ code: 'COD_LOCKED' });
    const device = await next!;
    await device.write(block(20), 0);
    await device.close();
    const last = await open(new SharedStorage(again.files).takeOver());
    expect(await contentOf(last, 0)).toBe(20);
    await last.close();
  });

  it('removes no name of a third owner that has taken over meanwhile', async () => {
    const { files, shared } = await begun();
    const second = shared.takeOver();
    let checks = 0;
    let third: Promise<Device> | undefined;
    second.onCheck = () => {
      if (++checks === 3) third = open(shared.takeOver());
    };
    await open(second).catch((error: unknown) => expect(error).toMatchObject({ code: 'COD_LOCKED' }));
    await (await third!).close();
    for (const name of METADATA) await (await files.open(name)).close();
  });

  it('may crash at any operation, again and again', async () => {
    const { crashes } = await exploreCrashes(
      () => {
        let flushed = 0;
        let written = 0;
        return {
          work: async ({ fileSystem, clock }) => {
            const device = await open(new SharedStorage(fileSystem).takeOver(), clock as SimulatedClock);
            for (let value = 1; value <= 6; value++) {
              written = value;
              await device.write(block(value + 10), (value % 2) * BLOCK);
              await device.flush();
              flushed = value;
              if (value === 3) await device.checkpoint();
            }
            await device.close();
          },
          recover: async ({ fileSystem, clock }) => {
            const shared = new SharedStorage(fileSystem);
            shared.takeOver();
            const device = await open(shared.takeOver(), clock as SimulatedClock);
            for (const parity of [0, 1]) {
              const found = new Uint8Array(BLOCK);
              await device.read(found, parity * BLOCK);
              // A write in flight may be cut short.
              const least = flushed - ((flushed + parity) % 2);
              expect(Math.min(...found)).toBeGreaterThanOrEqual(least > 0 ? 10 + least : 1);
              expect(Math.max(...found)).toBeLessThanOrEqual(10 + written);
            }
            await device.close();
          },
        };
      },
      { seed: 5, crashes: 3, settle: () => new Promise(process.nextTick) },
    );
    expect(crashes).toBeGreaterThan(100);
  });
});
