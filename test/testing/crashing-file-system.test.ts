import { describe, expect, test } from 'vitest';
import { CodError } from '../../src/errors.ts';
import type { File, FileSystem } from '../../src/fs/file-system.ts';
import type { InlineFile } from '../../src/fs/inline-file.ts';
import {
  type Crash,
  CrashingFileSystem,
  type CrashingFileSystemOptions,
  fileSystemSuite,
  type Random,
  SECTOR_BYTES,
  SimulatedClock,
  seededRandom,
} from '../../src/testing/index.ts';

const SEEDS = 300;

describe.each<[string, CrashingFileSystemOptions]>([
  ['', {}],
  [', with exclusive handles', { exclusive: true }],
  [', with calls that complete now or later', { inline: true }],
])('the conformance suite%s', (_, options) => {
  for (const { name, run } of fileSystemSuite(() => new CrashingFileSystem(options), {
    sharedHandles: !options.exclusive,
    locks: false,
  }))
    test(name, run);
});

/** Bytes of one value. */
function filled(length: number, value: number): Uint8Array {
  return new Uint8Array(length).fill(value);
}

async function created(fileSystem: FileSystem, name: string, content: Uint8Array = new Uint8Array()): Promise<File> {
  const file = await fileSystem.open(name, { create: true });
  await file.write(content, 0);
  return file;
}

/** The contents of `name`; undefined if the file is missing. */
async function contentOf(fileSystem: FileSystem, name: string): Promise<Uint8Array | undefined> {
  const file = await fileSystem.open(name).catch(() => undefined);
  if (file === undefined) return undefined;
  const content = new Uint8Array(await file.size());
  await file.read(content, 0);
  await file.close();
  return content;
}

/** The contents of `name` after crashes of one kind, one for each of many seeds. */
async function contentsAfter(
  fileSystem: CrashingFileSystem,
  kind: Crash['kind'],
  name: string,
  seeds: number = SEEDS,
): Promise<(Uint8Array | undefined)[]> {
  const contents = [];
  for (let seed = 0; seed < seeds; seed++)
    contents.push(await contentOf(fileSystem.crash({ kind, random: seededRandom(seed) }), name));
  return contents;
}

/** Comparing strings is far faster than comparing arrays. */
function hex(content: Uint8Array | undefined): string {
  return Buffer.from(content ?? []).toString('hex');
}

/** The first byte of each sector. */
function sectorsOf(content: Uint8Array | undefined): string {
  return Array.from(content ?? [])
    .filter((_, index) => index % SECTOR_BYTES === 0)
    .join(' ');
}

function distinct(contents: (Uint8Array | undefined)[]): Set<string> {
  return new Set(contents.map((content) => (content === undefined ? 'missing' : sectorsOf(content))));
}

describe('a process crash', () => {
  test('keeps every write that had resolved, synced or not', async () => {
    const fileSystem = new CrashingFileSystem();
    const file = await created(fileSystem, 'a', filled(2000, 1));
    await file.write(filled(10, 2), 2000);
    await file.truncate(2005);
    for (const content of await contentsAfter(fileSystem, 'process', 'a'))
      expect(hex(content)).toBe(hex(Uint8Array.of(...filled(2000, 1), ...filled(5, 2))));
  });

  test('keeps the removal of a name, and the boot ID', async () => {
    const fileSystem = new CrashingFileSystem({ bootId: 'first' });
    await (await created(fileSystem, 'a')).sync();
    await fileSystem.remove('a');
    expect(distinct(await contentsAfter(fileSystem, 'process', 'a'))).toEqual(new Set(['missing']));
    expect(fileSystem.crash({ kind: 'process', random: seededRandom(1) }).bootId).toBe('first');
  });

  test('cuts a write in flight at any byte, and leaves the later bytes unchanged', async () => {
    const fileSystem = new CrashingFileSystem();
    const file = await created(fileSystem, 'a', filled(20, 1));
    fileSystem.crashAt(fileSystem.operationCount + 1);
    void file.write(filled(10, 2), 5);
    await fileSystem.crashed;
    const lengths = new Set<number>();
    for (const content of await contentsAfter(fileSystem, 'process', 'a')) {
      const length = content!.filter((byte) => byte === 2).length;
      expect(content).toEqual(Uint8Array.of(...filled(5, 1), ...filled(length, 2), ...filled(15 - length, 1)));
      lengths.add(length);
    }
    expect(lengths.size).toBe(11);
  });

  test.each(['synchronous', 'asynchronous'])(
    'cuts a submitted write that is %s, never acknowledges it, and ignores later writes',
    async (kind) => {
      // Chance decides whether a call is synchronous, so the test takes the first seed with the required kind.
      const story = async (seed: number) => {
        const fileSystem = new CrashingFileSystem({ inline: true, random: seededRandom(seed) });
        const file: InlineFile = await created(fileSystem, 'a', filled(20, 1));
        await file.submitWrite!(filled(3, 3), 17);
        fileSystem.crashAt(fileSystem.operationCount + 1);
        let outcome = 'returned';
        try {
          const writing = file.submitWrite!(filled(10, 2), 5);
          if (writing !== undefined) outcome = 'asynchronous';
          void writing?.then(() => (outcome = 'resolved'));
        } catch (error) {
          expect(error).toBeInstanceOf(CodError);
          outcome = 'synchronous';
        }
        return { fileSystem, file, outcome: () => outcome };
      };
      let seed = 0;
      while ((await story(seed)).outcome() !== kind) expect(++seed).toBeLessThan(100);
      const { fileSystem, file, outcome } = await story(seed);
      expect(fileSystem.isCrashed).toBe(true);
      for (let round = 0; round < 20; round++) {
        const late = { settled: false };
        try {
          void file.submitWrite!(filled(10, 4), 0)?.finally(() => (late.settled = true));
        } catch (error) {
          expect(error).toBeInstanceOf(CodError);
        }
        for (let turn = 0; turn < 10; turn++) await undefined;
        expect(late.settled).toBe(false);
      }
      expect(outcome()).toBe(kind);
      const lengths = new Set<number>();
      for (const content of await contentsAfter(fileSystem, 'process', 'a')) {
        const length = content!.filter((byte) => byte === 2).length;
        expect(content).toEqual(
          Uint8Array.of(...filled(5, 1), ...filled(length, 2), ...filled(12 - length, 1), ...filled(3, 3)),
        );
        lengths.add(length);
      }
      expect(lengths.size).toBe(11);
    },
  );

  test('cuts at multiples of tearBytes if configured', async () => {
    const fileSystem = new CrashingFileSystem({ tearBytes: SECTOR_BYTES });
    const file = await created(fileSystem, 'a');
    fileSystem.crashAt(fileSystem.operationCount + 1);
    void file.write(filled(1100, 2), 100);
    await fileSystem.crashed;
    const sizes = (await contentsAfter(fileSystem, 'process', 'a')).map((content) => content!.length);
    expect(new Set(sizes)).toEqual(new Set([0, 512, 1024, 1200]));
  });

  test('cuts at multiples that may depend on the name', async () => {
    const fileSystem = new CrashingFileSystem({ tearBytes: (name) => (name === 'a' ? 4 : 1) });
    const sizes = async (name: string): Promise<Set<number>> => {
      const contents = await contentsAfter(fileSystem, 'process', name);
      return new Set(contents.map((content) => content!.length));
    };
    const files = [await created(fileSystem, 'a'), await created(fileSystem, 'b')];
    fileSystem.crashAt(fileSystem.operationCount + files.length);
    for (const file of files) void file.write(filled(9, 2), 0);
    await fileSystem.crashed;
    expect([...(await sizes('a'))].sort()).toEqual([0, 4, 8, 9]);
    expect((await sizes('b')).size).toBe(10);
  });

  test('keeps unsynced data unsynced for a later power cut', async () => {
    const fileSystem = new CrashingFileSystem();
    const file = await created(fileSystem, 'a', filled(512, 1));
    await file.sync();
    await file.write(filled(512, 2), 0);
    const restarted = fileSystem.crash({ kind: 'process', random: seededRandom(1) });
    expect(sectorsOf(await contentOf(restarted, 'a'))).toBe('2');
    expect(distinct(await contentsAfter(restarted, 'power', 'a'))).toEqual(new Set(['1', '2']));
  });
});

describe('a power cut', () => {
  test('keeps everything that was synced: data, size and name', async () => {
    const fileSystem = new CrashingFileSystem();
    const file = await created(fileSystem, 'a', filled(3000, 1));
    await file.truncate(2500);
    await file.sync();
    for (const content of await contentsAfter(fileSystem, 'power', 'a'))
      expect(hex(content)).toBe(hex(filled(2500, 1)));
  });

  test('keeps or loses each unsynced sector independently, and tears none', async () => {
    const fileSystem = new CrashingFileSystem();
    const file = await created(fileSystem, 'a', filled(3 * SECTOR_BYTES, 1));
    await file.sync();
    await file.write(filled(3 * SECTOR_BYTES - 200, 2), 100);
    const contents = await contentsAfter(fileSystem, 'power', 'a');
    const last = new Set(
      contents.map((content) =>
        content!
          .map((byte, index) => (index % SECTOR_BYTES === 256 ? byte : 0))
          .filter((byte) => byte > 0)
          .join(' '),
      ),
    );
    expect(last.size).toBe(8);
    for (const content of contents) {
      expect(content!.subarray(0, 100)).toEqual(filled(100, 1));
      for (let sector = 0; sector < 3; sector++) {
        const written = content!.subarray(
          Math.max(100, sector * SECTOR_BYTES),
          Math.min(3 * SECTOR_BYTES - 100, (sector + 1) * SECTOR_BYTES),
        );
        expect(new Set(written).size).toBe(1);
      }
    }
  });

  test('gives a sector any of its versions since the last sync, and no older one', async () => {
    const fileSystem = new CrashingFileSystem();
    const file = await created(fileSystem, 'a', filled(SECTOR_BYTES, 1));
    for (const version of [2, 3, 4, 5]) {
      await file.write(filled(SECTOR_BYTES, version), 0);
      if (version === 3) await file.sync();
    }
    expect(distinct(await contentsAfter(fileSystem, 'power', 'a'))).toEqual(new Set(['3', '4', '5']));
  });

  test('keeps a growing file at any of its sizes, and lost data in it reads as zeros', async () => {
    const fileSystem = new CrashingFileSystem();
    const file = await created(fileSystem, 'a');
    await file.sync();
    await file.write(filled(SECTOR_BYTES, 1), 0);
    await file.write(filled(SECTOR_BYTES, 2), SECTOR_BYTES);
    expect(distinct(await contentsAfter(fileSystem, 'power', 'a'))).toEqual(
      new Set(['', '0', '1', '0 0', '1 0', '0 2', '1 2']),
    );
  });

  test('undoes an unsynced truncation as a whole, with later writes beyond its size', async () => {
    const fileSystem = new CrashingFileSystem();
    const file = await created(fileSystem, 'a', filled(2 * SECTOR_BYTES, 1));
    await file.sync();
    await file.truncate(0);
    await file.truncate(2 * SECTOR_BYTES);
    await file.write(filled(SECTOR_BYTES, 2), SECTOR_BYTES);
    expect(distinct(await contentsAfter(fileSystem, 'power', 'a'))).toEqual(new Set(['1 1', '', '0 0', '0 2']));
  });

  test('keeps or loses an unsynced name, with its file’s synced and unsynced data', async () => {
    const fileSystem = new CrashingFileSystem({ syncsNames: false });
    await (await created(fileSystem, 'a', filled(SECTOR_BYTES, 1))).sync();
    expect(distinct(await contentsAfter(fileSystem, 'power', 'a'))).toEqual(new Set(['missing', '1']));
  });

  test('may undo an unsynced removal', async () => {
    const fileSystem = new CrashingFileSystem();
    await (await created(fileSystem, 'a', filled(SECTOR_BYTES, 1))).sync();
    await fileSystem.remove('a');
    expect(distinct(await contentsAfter(fileSystem, 'power', 'a'))).toEqual(new Set(['missing', '1']));
  });

  test('may show the removed file instead of a new file of its name, until the new file is synced', async () => {
    for (const synced of [false, true]) {
      const fileSystem = new CrashingFileSystem();
      await (await created(fileSystem, 'a', filled(SECTOR_BYTES, 1))).sync();
      await fileSystem.remove('a');
      const file = await created(fileSystem, 'a', filled(SECTOR_BYTES, 2));
      if (synced) await file.sync();
      expect(distinct(await contentsAfter(fileSystem, 'power', 'a'))).toEqual(
        new Set(synced ? ['2'] : ['missing', '1', '', '0', '2']),
      );
    }
  });

  test('may keep any sector of a write in flight', async () => {
    const fileSystem = new CrashingFileSystem();
    const file = await created(fileSystem, 'a', filled(2 * SECTOR_BYTES, 1));
    await file.sync();
    void file.write(filled(2 * SECTOR_BYTES, 2), 0);
    expect(distinct(await contentsAfter(fileSystem, 'power', 'a'))).toEqual(new Set(['1 1', '1 2', '2 1', '2 2']));
  });

  test('makes a new boot ID, if boots have IDs', () => {
    const random = seededRandom(1);
    const fileSystem = new CrashingFileSystem({ bootId: 'first' });
    const second = fileSystem.crash({ kind: 'power', random });
    expect(second.bootId).toMatch(/^boot-/);
    expect(second.crash({ kind: 'power', random }).bootId).not.toBe(second.bootId);
    expect(new CrashingFileSystem().crash({ kind: 'power', random }).bootId).toBeUndefined();
  });
});

describe('a lost volume', () => {
  test('keeps what a power cut keeps', async () => {
    const fileSystem = new CrashingFileSystem();
    const file = await created(fileSystem, 'a', filled(2 * SECTOR_BYTES, 1));
    await file.sync();
    await file.write(filled(2 * SECTOR_BYTES, 2), 0);
    await file.truncate(SECTOR_BYTES);
    await created(fileSystem, 'b');
    void file.write(filled(SECTOR_BYTES, 3), 0);
    for (const name of ['a', 'b']) {
      const lost = (await contentsAfter(fileSystem, 'loss', name)).map(hex);
      expect(new Set(lost).size).toBeGreaterThan(name === 'a' ? 4 : 0);
      expect(lost).toEqual((await contentsAfter(fileSystem, 'power', name)).map(hex));
    }
  });

  test('keeps the boot ID, because the machine keeps running', () => {
    const fileSystem = new CrashingFileSystem({ bootId: 'first' });
    expect(fileSystem.crash({ kind: 'loss', random: seededRandom(1) }).bootId).toBe('first');
  });
});

test('after any operations that end with a sync, every crash keeps the contents', async () => {
  for (let seed = 0; seed < SEEDS; seed++) {
    const random = seededRandom(seed);
    const fileSystem = new CrashingFileSystem({ random: random.fork() });
    const file = await created(fileSystem, 'a');
    for (let step = random.below(20); step >= 0; step--) {
      if (random.oneIn(3)) await file.truncate(random.below(5000));
      else await file.write(filled(random.below(2000), step + 1), random.below(3000));
      if (random.oneIn(5)) await file.sync();
    }
    const seen = hex(await contentOf(fileSystem, 'a'));
    expect(hex(await contentOf(fileSystem.crash({ kind: 'process', random }), 'a')), `seed ${seed}`).toBe(seen);

    const restarted = fileSystem.crash({ kind: 'process', random });
    await (await restarted.open('a')).sync();
    for (const kind of ['process', 'power', 'loss'] as const) {
      expect(hex(await contentOf(restarted.crash({ kind, random }), 'a')), `seed ${seed}`).toBe(seen);
    }
  }
});

describe('a sync', () => {
  test('covers only writes that had returned before its call', async () => {
    const fileSystem = new CrashingFileSystem();
    const file = await created(fileSystem, 'a', filled(2 * SECTOR_BYTES, 1));
    const sync = file.sync();
    await file.write(filled(SECTOR_BYTES, 2), 0);
    await sync;
    expect(distinct(await contentsAfter(fileSystem, 'power', 'a'))).toEqual(new Set(['1 1', '2 1']));
  });

  test('that fails loses unsynced sectors, and the next sync succeeds nevertheless', async () => {
    const seen = new Set<string>();
    for (let seed = 0; seed < SEEDS; seed++) {
      const fileSystem = new CrashingFileSystem({ random: seededRandom(seed) });
      const file = await created(fileSystem, 'a', filled(2 * SECTOR_BYTES, 1));
      await file.sync();
      await file.write(filled(3 * SECTOR_BYTES, 2), 0);
      fileSystem.failWhen(({ kind }) => kind === 'sync');
      await expect(file.sync()).rejects.toMatchObject({ code: 'COD_TARGET_IO' });
      await file.sync();
      const live = sectorsOf(await contentOf(fileSystem, 'a'));
      expect(distinct(await contentsAfter(fileSystem, 'power', 'a', 3))).toEqual(new Set([live]));
      seen.add(live);
    }
    expect(seen).toEqual(new Set(['1 1 0', '1 1 2', '1 2 0', '1 2 2', '2 1 0', '2 1 2', '2 2 0', '2 2 2']));
  });
});

describe('faults', () => {
  test('a temporary error fails one operation, and a permanent error fails all until it is cleared', async () => {
    const fileSystem = new CrashingFileSystem();
    const file = await created(fileSystem, 'a', filled(10, 1));
    fileSystem.failAt(fileSystem.operationCount + 2);
    await file.size();
    await expect(file.size()).rejects.toMatchObject({
      code: 'COD_TARGET_IO',
      details: { kind: 'size', name: 'a', number: 4 },
    });
    await file.size();
    fileSystem.failAt(fileSystem.operationCount + 2, { stays: true, code: 'COD_NO_SPACE' });
    await file.size();
    for (let count = 0; count < 3; count++)
      await expect(fileSystem.open('a')).rejects.toMatchObject({ code: 'COD_NO_SPACE' });
    fileSystem.clearFaults();
    await file.size();
  });

  test('a write that fails may have written its beginning', async () => {
    const lengths = new Set<number>();
    for (let seed = 0; seed < SEEDS; seed++) {
      const fileSystem = new CrashingFileSystem({ random: seededRandom(seed) });
      const file = await created(fileSystem, 'a');
      fileSystem.failWhen(({ kind, name }) => kind === 'write' && name === 'a');
      await expect(file.write(filled(4, 1), 0)).rejects.toMatchObject({ code: 'COD_TARGET_IO' });
      lengths.add(await file.size());
    }
    expect(lengths).toEqual(new Set([0, 1, 2, 3, 4]));
  });

  test('a full disk accepts overwrites, and refuses new pages until there is room again', async () => {
    const fileSystem = new CrashingFileSystem();
    const file = await created(fileSystem, 'a', filled(4096, 1));
    fileSystem.limitSpace(8192);
    await file.write(filled(4096, 2), 0);
    await expect(file.write(filled(3 * 4096, 3), 4096)).rejects.toMatchObject({
      code: 'COD_NO_SPACE',
      details: { written: 8192 },
    });
    expect(await file.size()).toBe(3 * 4096);
    await file.truncate(8192);
    await file.write(filled(4096, 4), 8192);
    await expect(created(fileSystem, 'b', filled(1, 1))).rejects.toMatchObject({ code: 'COD_NO_SPACE' });
    await file.close();
    await fileSystem.remove('a');
    await created(fileSystem, 'b', filled(1, 1));
  });

  test('detects a buffer that changes during its write', async () => {
    const file = await created(new CrashingFileSystem(), 'a');
    const buffer = filled(10, 1);
    const write = file.write(buffer, 0);
    buffer[9] = 2;
    await expect(write).rejects.toThrow('buffer was changed');
  });
});

test('after a crash no call settles, including later calls', async () => {
  const fileSystem = new CrashingFileSystem();
  const file = await created(fileSystem, 'a');
  let settled = 0;
  const calls = [file.size(), file.sync(), file.close()];
  fileSystem.crash({ kind: 'process', random: seededRandom(0) });
  for (const call of [...calls, fileSystem.open('a'), fileSystem.remove('a')]) void call.finally(() => settled++);
  await fileSystem.crashed;
  for (let round = 0; round < 100; round++) await undefined;
  expect(settled).toBe(0);
});

test('with exclusive handles an open file can be neither opened nor removed', async () => {
  const fileSystem = new CrashingFileSystem({ exclusive: true });
  const file = await created(fileSystem, 'a');
  await expect(fileSystem.open('a')).rejects.toMatchObject({ code: 'COD_LOCKED' });
  await expect(fileSystem.remove('a')).rejects.toMatchObject({ code: 'COD_LOCKED' });
  await file.close();
  await fileSystem.remove('a');
});

test('the same seed gives the same order of operations', async () => {
  const stories = [];
  for (let repetition = 0; repetition < 2; repetition++) {
    const clock = new SimulatedClock();
    const fileSystem = new CrashingFileSystem({ random: seededRandom(7), clock, latencyMs: 5 });
    const story: string[] = [];
    const work = async (): Promise<void> => {
      const file = await created(fileSystem, 'a');
      await Promise.all(
        Array.from({ length: 10 }, (_, index) =>
          file.write(filled(100, index), 100 * index).then(() => story.push(`${index} at ${clock.now()}`)),
        ),
      );
    };
    await clock.run(work());
    const after = fileSystem.crash({ kind: 'power', random: seededRandom(8) });
    stories.push([...story, ...((await clock.run(contentOf(after, 'a'))) ?? [])]);
  }
  expect(stories[0]).toEqual(stories[1]);
});

/** A number in two slots; the newer slot counts. A slot is a sector that repeats the number, which reveals a tear. */
class TwoSlotCounter {
  readonly #file: File;
  readonly #syncs: boolean;
  #value: number;

  private constructor(file: File, value: number, syncs: boolean) {
    this.#file = file;
    this.#value = value;
    this.#syncs = syncs;
  }

  static async open(fileSystem: FileSystem, syncs: boolean): Promise<TwoSlotCounter> {
    const file = await fileSystem.open('counter', { create: true });
    const values = [0];
    for (const offset of [0, SECTOR_BYTES]) {
      const slot = new Uint32Array(SECTOR_BYTES / 4);
      if ((await file.size()) >= offset + SECTOR_BYTES) await file.read(new Uint8Array(slot.buffer), offset);
      if (slot.every((word) => word === slot[0])) values.push(slot[0]!);
    }
    return new TwoSlotCounter(file, Math.max(...values), syncs);
  }

  get value(): number {
    return this.#value;
  }

  async increment(): Promise<void> {
    const next = this.#value + 1;
    await this.#file.write(
      new Uint8Array(new Uint32Array(SECTOR_BYTES / 4).fill(next).buffer),
      (next % 2) * SECTOR_BYTES,
    );
    if (this.#syncs) await this.#file.sync();
    this.#value = next;
  }
}

/** Crashes a counter at every operation, and once more during its next open. Describes a lost number, if any. */
async function lossOf(syncs: boolean, kind: Crash['kind'], random: Random): Promise<string | undefined> {
  for (let crashAt = 1; ; crashAt++) {
    const fileSystem = new CrashingFileSystem({ random: random.fork() });
    let acknowledged = 0;
    const work = async (): Promise<true> => {
      const counter = await TwoSlotCounter.open(fileSystem, syncs);
      for (; acknowledged < 5; acknowledged++) await counter.increment();
      return true;
    };
    fileSystem.crashAt(crashAt);
    const survived = await Promise.race([work(), fileSystem.crashed]);
    const found = (await TwoSlotCounter.open(fileSystem.crash({ kind, random }), syncs)).value;
    if (found < acknowledged || found > acknowledged + 1)
      return `crash at operation ${crashAt}: ${acknowledged} was acknowledged, ${found} found`;
    if (survived) return undefined;
  }
}

describe('a counter in two slots', () => {
  test('that syncs loses nothing in a crash at any operation', async () => {
    for (let seed = 0; seed < 50; seed++) {
      for (const kind of ['process', 'power', 'loss'] as const)
        expect(await lossOf(true, kind, seededRandom(seed)), `seed ${seed}`).toBeUndefined();
    }
  });

  test('without syncs loses nothing in a process crash, but does in a power cut', async () => {
    for (let seed = 0; seed < 50; seed++)
      expect(await lossOf(false, 'process', seededRandom(seed)), `seed ${seed}`).toBeUndefined();
    const losses = await Promise.all(
      Array.from({ length: 5 }, (_, seed) => lossOf(false, 'power', seededRandom(seed))),
    );
    expect(losses.some((loss) => loss !== undefined)).toBe(true);
  });
});

describe('putting files back', () => {
  test('restores the content of an earlier moment, synced or not, and removes what did not exist', async () => {
    const fileSystem = new CrashingFileSystem();
    const a = await created(fileSystem, 'a', filled(700, 1));
    const earlier = fileSystem.duplicate();
    await a.write(filled(900, 2), 0);
    await created(fileSystem, 'b', filled(1, 3));
    await created(fileSystem, 'c', filled(1, 4));
    fileSystem.putBack(earlier, ['a', 'b']);
    expect(await contentOf(fileSystem, 'a')).toEqual(filled(700, 1));
    expect(await contentOf(fileSystem, 'b')).toBeUndefined();
    expect(await contentOf(fileSystem, 'c')).toEqual(filled(1, 4));
    const after = fileSystem.crash({ kind: 'power', random: seededRandom(1) });
    expect(await contentOf(after, 'a')).toEqual(filled(700, 1));
  });

  test('changes neither the earlier moment nor an open file', async () => {
    const fileSystem = new CrashingFileSystem();
    const a = await created(fileSystem, 'a', filled(10, 1));
    const earlier = fileSystem.duplicate();
    fileSystem.putBack(earlier, ['a']);
    await a.write(filled(10, 2), 0);
    expect(await contentOf(fileSystem, 'a')).toEqual(filled(10, 1));
    const again = await fileSystem.open('a');
    await again.write(filled(10, 3), 0);
    expect(await contentOf(earlier, 'a')).toEqual(filled(10, 1));
  });
});
