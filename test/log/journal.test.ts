/** The journal's calls to its files: the order that crash safety requires, and the cost. */

import { describe, expect, it } from 'vitest';
import { inTurns } from '../../src/async/turns.ts';
import { CopyState } from '../../src/core/copy-state.ts';
import { geometry } from '../../src/core/geometry.ts';
import { Replay } from '../../src/core/replay.ts';
import { openDeviceIn } from '../../src/device/open.ts';
import { isCodError } from '../../src/errors.ts';
import type { Device, FileSystem, OpenDeviceOptions, Source } from '../../src/index.ts';
import { inspectMetadata } from '../../src/log/inspect.ts';
import type { Environment } from '../../src/platform/clock.ts';
import { bytesSource } from '../../src/sources/bytes.ts';
import { CrashingFileSystem, SimulatedClock, seededRandom } from '../../src/testing/index.ts';
import { Core } from '../../src/wasm/core.ts';
import { ByteHistory } from '../support/byte-history.ts';
import { expectBytes } from '../support/bytes.ts';
import { effort } from '../support/effort.ts';
import { type Call, MemoryFiles } from './memory-files.ts';

const BLOCK = 4096;
const HEADER = 512;
const FRAME = 24;
const RECORD = 16;
/** With each seed other parts of the unsynced data survive. */
const SEEDS = effort('COD_JOURNAL_SEEDS', { short: 2, long: 24 });

function pattern(size: number, seed = 1): Uint8Array {
  return seededRandom(seed).fill(new Uint8Array(size));
}

function newClock(): SimulatedClock {
  return new SimulatedClock({ settle: () => new Promise(setImmediate) });
}

/** A device whose time stands still unless a clock is given. */
function open(
  fileSystem: FileSystem,
  source: Source,
  options: Partial<OpenDeviceOptions & { clock: Environment['clock'] }> = {},
): Promise<Device> {
  const { clock = newClock(), ...rest } = options;
  return openDeviceIn(
    { clock, randomBytes: (into) => into.fill(1) },
    { source, fileSystem, target: 'disk', hydrate: false, checkpointIntervalMs: 1000, ...rest },
  );
}

async function begin(
  blocks: number,
  options: Parameters<typeof open>[2] = {},
): Promise<{ files: MemoryFiles; device: Device }> {
  const files = new MemoryFiles();
  const device = await open(files, bytesSource(pattern(blocks * BLOCK)), options);
  files.calls.length = 0;
  return { files, device };
}

function described({ kind, name, offset, length }: Call): string {
  return kind === 'write'
    ? `write ${name} ${offset} + ${length}`
    : kind === 'truncate'
      ? `truncate ${name} ${offset}`
      : `${kind} ${name}`;
}

async function readAll(device: Device): Promise<Uint8Array> {
  const bytes = new Uint8Array(device.size);
  await device.read(bytes, 0);
  return bytes;
}

/** The blocks that the records of a log complete, firm or not. */
async function loggedBlocks(files: MemoryFiles, log: string, size: number): Promise<(readonly [number, number])[]> {
  const core = Core.create();
  const shape = geometry({ size, blockSize: BLOCK });
  const state = await CopyState.open(core, shape);
  const replay = new Replay(core, shape);
  const { bytes } = files.images().get(log)!;
  const sectors = new Uint8Array(Math.ceil(bytes.length / HEADER) * HEADER);
  sectors.set(bytes);
  replay.format2(sectors.subarray(HEADER), 2 ** 32 - 1);
  await inTurns(state.merging(replay), {});
  const runs = Array.from(state.syncedRuns(), ([start, end]) => [start, end - 1] as const);
  replay.dispose();
  state.dispose();
  return runs;
}

/** A promise and the function that settles it. */
function gate(): { closed: Promise<void>; open: () => void } {
  let open!: () => void;
  const closed = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { closed, open };
}

function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

describe('a write', () => {
  it('writes data, then intent, then updates the maps and acknowledges', async () => {
    const { files, device } = await begin(10);
    const reached: string[] = [];
    let held = gate();
    files.before = (call) => {
      reached.push(described(call));
      return held.closed;
    };
    let acknowledged = false;
    const writing = device.write(new Uint8Array(BLOCK), 2 * BLOCK).then(() => (acknowledged = true));
    const first = HEADER + FRAME + RECORD;
    for (const expected of [`write disk ${2 * BLOCK} + ${BLOCK}`, `write disk.wil.1 ${first} + ${FRAME + RECORD}`]) {
      await settled();
      expect(reached.splice(0)).toEqual([expected]);
      expect([acknowledged, device.status().syncedBlocks]).toEqual([false, 0]);
      const next = gate();
      held.open();
      held = next;
    }
    await writing;
    expect([acknowledged, device.status().syncedBlocks, reached.length]).toEqual([true, 1, 0]);
  });

  it('shares its append with all writes of its turn', async () => {
    const { files, device } = await begin(40);
    await Promise.all(Array.from({ length: 16 }, (_, index) => device.write(new Uint8Array(10), 2 * index * BLOCK)));
    const appends = files.calls.filter(({ name }) => name !== 'disk');
    expect(appends.map(({ kind, name, length }) => [kind, name, length])).toEqual([
      ['write', 'disk.wil.1', FRAME + 16 * RECORD],
    ]);
    expect(files.calls.at(-1)).toBe(appends[0]);
  });

  it('costs one record for each two cells, and one for each cell that it covers in part', async () => {
    const { files, device } = await begin(300);
    const before = device.status().metadataBytes;
    await device.write(new Uint8Array(2 ** 20), 100);
    // Parts of cells 0 and 256, and the cells from 1 to 255.
    const records = 2 + 128;
    const read = (await inspectMetadata(files, 'disk')).files;
    expect(read.find(({ name }) => name === 'disk.wil.1')?.records).toBe(records);
    const bytes = device.status().metadataBytes - before;
    expect(bytes).toBeGreaterThan(records * RECORD);
    expect(bytes).toBeLessThan(1.1 * records * RECORD);
    expect(files.calls.filter(({ name }) => name !== 'disk').length).toBe(1);
  });

  it('over bytes that are not firm announces its sum first, in an append of its own', async () => {
    const { files, device } = await begin(4);
    await device.write(new Uint8Array(BLOCK).fill(1), BLOCK);
    files.calls.length = 0;
    await device.write(new Uint8Array(100).fill(2), BLOCK + 7);
    const at = HEADER + 2 * (FRAME + RECORD);
    expect(files.calls.map(described)).toEqual([
      `write disk.wil.1 ${at} + ${FRAME + RECORD}`,
      `write disk ${BLOCK + 7} + 100`,
    ]);
    // The block is dirty: this write needs a record beside the announcement.
    await device.write(new Uint8Array(100).fill(3), 0);
    files.calls.length = 0;
    await device.write(new Uint8Array(100).fill(4), 50);
    expect(files.calls.map(({ kind, name, length }) => `${kind} ${name} ${length}`)).toEqual([
      `write disk.wil.1 ${FRAME + RECORD}`,
      'write disk 100',
      `write disk.wil.1 ${FRAME + RECORD}`,
    ]);
  });

  it('over a block that only an unfirm fill made whole needs a record, and none after a flush', async () => {
    const { files, device } = await begin(4);
    await device.read(new Uint8Array(1), 3 * BLOCK);
    await settled();
    files.calls.length = 0;
    await device.write(new Uint8Array(100).fill(1), 3 * BLOCK);
    // First that the block is no longer the source's, and then what was written.
    expect(files.calls.map(({ name }) => name)).toEqual(['disk.wil.1', 'disk', 'disk.wil.1']);
    await device.flush();
    files.calls.length = 0;
    await device.write(new Uint8Array(100).fill(2), 3 * BLOCK);
    expect(files.calls.map(({ name }) => name)).toEqual(['disk']);
  });

  it('that fails on the target is not logged as written, and one that fails in the log is not recovered', async () => {
    const { files, device } = await begin(4);
    for (const failing of ['disk', 'disk.wil.1']) {
      files.calls.length = 0;
      files.before = ({ name }) => {
        if (name === failing) throw new Error(`no room in ${failing}`);
      };
      await expect(device.write(new Uint8Array(BLOCK), 0)).rejects.toThrow('no room');
      // A part of it may be on the target, in a block that may be copied later.
      const announced = [`write disk.wil.1 ${HEADER + FRAME + RECORD} + ${FRAME + RECORD}`];
      expect(files.calls.filter(({ name }) => name !== 'disk').map(described)).toEqual(
        failing === 'disk' ? announced : [],
      );
      expect(device.status().syncedBlocks).toBe(0);
    }
    files.before = undefined;
    expectBytes(await readAll(device), pattern(4 * BLOCK));
  });
});

describe('a fetched block', () => {
  it('is logged, for a reader and for the background copy', async () => {
    const { files, device } = await begin(10);
    await device.read(new Uint8Array(1), 3 * BLOCK);
    await settled();
    expect(files.calls.map(({ kind, name }) => `${kind} ${name}`)).toEqual(['write disk', 'write disk.wil.1']);
    expect(await loggedBlocks(files, 'disk.wil.1', 10 * BLOCK)).toEqual([[3, 3]]);
  });

  it('counts at the next start once a flush has made it firm', async () => {
    const { files, device } = await begin(10);
    await device.read(new Uint8Array(1), 3 * BLOCK);
    await settled();
    expect((await inspectMetadata(files, 'disk')).synced).toEqual([]);
    await device.flush();
    expect((await inspectMetadata(files, 'disk')).synced).toEqual([[3, 3]]);
  });

  it('of the background copy is in the log before it is in a checkpoint', async () => {
    const files = new MemoryFiles();
    const seen: unknown[] = [];
    files.before = async ({ kind, name }) => {
      // The first step of the checkpoint that makes the complete copy durable. The log before it is the first log.
      if (kind === 'truncate' && name === 'disk.wil') seen.push(await loggedBlocks(files, 'disk.wil.1', 700 * BLOCK));
    };
    const device = await open(files, bytesSource(pattern(700 * BLOCK)), { hydrate: {} });
    await device.hydrated;
    expect(seen).toEqual([[[0, 699]]]);
  });
});

describe('a flush', () => {
  it('syncs the target, appends a barrier, syncs the log, in this order', async () => {
    const { files, device } = await begin(4);
    await device.write(new Uint8Array(BLOCK), 0);
    files.calls.length = 0;
    await device.flush();
    expect(files.calls.map(described)).toEqual([
      'sync disk',
      `write disk.wil.1 ${HEADER + 2 * (FRAME + RECORD)} + ${FRAME + RECORD}`,
      'sync disk.wil.1',
    ]);
  });

  it('without changes has no effect, and concurrent flushes are one', async () => {
    const { files, device } = await begin(4);
    await device.flush();
    expect(files.calls).toEqual([]);
    await device.write(new Uint8Array(BLOCK), 0);
    await Promise.all([device.flush(), device.flush(), device.flush()]);
    const once = files.calls.length;
    expect(files.calls.filter(({ kind }) => kind === 'sync').length).toBe(2);
    await device.flush();
    expect(files.calls.length).toBe(once);
    await device.checkpoint();
    const afterCheckpoint = files.calls.length;
    await device.flush();
    await device.checkpoint();
    expect(files.calls.length).toBe(afterCheckpoint);
  });

  it('syncs only the target if only synced blocks were written', async () => {
    const { files, device } = await begin(4);
    await device.write(new Uint8Array(BLOCK), BLOCK);
    await device.checkpoint();
    files.calls.length = 0;
    await device.write(new Uint8Array(100).fill(1), BLOCK + 7);
    expect(files.calls.map(described)).toEqual([`write disk ${BLOCK + 7} + 100`]);
    await Promise.all([device.flush(), device.flush()]);
    expect(files.calls.slice(1).map(described)).toEqual(['sync disk']);
    await device.flush();
    expect(files.calls.length).toBe(2);
    await device.write(new Uint8Array(10), BLOCK);
    await device.checkpoint();
    expect(files.calls.slice(2).map(described)).toEqual([`write disk ${BLOCK} + 10`, 'sync disk']);
    // A block that is not whole needs its record, and so does a range that includes such a block.
    await device.write(new Uint8Array(20), 2 * BLOCK - 10);
    expect(files.calls.slice(4).map(({ name }) => name)).toEqual(['disk', 'disk.wil']);
  });

  it('happens after an interval if only synced blocks were written', async () => {
    const clock = newClock();
    const { files, device } = await begin(4, { clock });
    await device.write(new Uint8Array(BLOCK), BLOCK);
    await clock.advance(5000);
    files.calls.length = 0;
    await device.write(new Uint8Array(100).fill(1), BLOCK + 7);
    await clock.advance(5000);
    expect(files.calls.map(described)).toEqual([`write disk ${BLOCK + 7} + 100`, 'sync disk']);
    await clock.advance(60_000);
    expect(files.calls.length).toBe(2);
  });

  it('covers the frames before it, and no frame appended during the sync of the target', async () => {
    const { files, device } = await begin(4);
    await device.write(new Uint8Array(BLOCK).fill(1), 0);
    const held = gate();
    files.before = ({ kind, name }) => (kind === 'sync' && name === 'disk' ? held.closed : undefined);
    const flushing = device.flush();
    await device.write(new Uint8Array(BLOCK).fill(1), 2 * BLOCK);
    held.open();
    await flushing;
    // With the target as the sync left it, the second write is not proved.
    const afterLoss = new MemoryFiles(new Map(files.images()).set('disk', files.syncedImage('disk')!));
    expect((await inspectMetadata(afterLoss, 'disk')).synced).toEqual([[0, 0]]);
    expect((await inspectMetadata(files, 'disk')).synced).toEqual([
      [0, 0],
      [2, 2],
    ]);
  });

  it('syncs the log beside the target if frames in earlier sectors are not durable', async () => {
    const { files, device } = await begin(40);
    for (let block = 0; block < 12; block++) await device.write(new Uint8Array(BLOCK), block * BLOCK);
    files.calls.length = 0;
    await device.flush();
    const calls = files.calls.map(({ kind, name }) => `${kind} ${name}`);
    expect([...calls.slice(0, 2).sort(), ...calls.slice(2)]).toEqual([
      'sync disk',
      'sync disk.wil.1',
      'write disk.wil.1',
      'sync disk.wil.1',
    ]);
  });
});

describe('a checkpoint', () => {
  it('syncs target, log and body before its header, and finally marks the log', async () => {
    const { files, device } = await begin(4);
    await device.write(new Uint8Array(BLOCK), 0);
    files.calls.length = 0;
    await device.checkpoint();
    const calls = files.calls.map(described);
    const entry = 40;
    const slice = calls.find((call) => call.startsWith(`write disk.bak ${HEADER + entry} + `));
    // These three calls run concurrently, in any order.
    calls.splice(8, 3, ...calls.slice(8, 11).sort());
    expect(calls).toEqual([
      `write disk.wil ${HEADER - 1} + 1`,
      `truncate disk.wil ${2 ** 20}`,
      `write disk.wil 0 + ${HEADER}`,
      // Before the old log continues in this one.
      'sync disk.wil',
      `write disk.wil.1 ${HEADER + 2 * (FRAME + RECORD)} + ${FRAME + RECORD}`,
      `write disk.bak ${HEADER - 1} + 1`,
      slice,
      `write disk.bak ${HEADER} + ${entry}`,
      'sync disk',
      'sync disk.bak',
      'sync disk.wil',
      `write disk.bak 0 + ${HEADER}`,
      'sync disk.bak',
      // The rest of the sector is zeroed.
      `write disk.wil ${HEADER} + 512`,
      'sync disk.wil',
    ]);
  });

  it('is taken half an interval to one interval after a change, and never without one', async () => {
    const clock = newClock();
    const { files, device } = await begin(4, { clock });
    await clock.advance(10_000);
    expect(files.calls).toEqual([]);
    await device.write(new Uint8Array(BLOCK), BLOCK);
    await clock.advance(499);
    expect(files.calls.length).toBe(2);
    await clock.advance(501);
    // The log adds nothing: the checkpoint alone is recovered.
    const images = files.images();
    const { synced, files: read } = await inspectMetadata(new MemoryFiles(images), 'disk');
    expect(synced).toEqual([[1, 1]]);
    expect(read.find(({ name }) => name === 'disk.wil')?.records).toBe(0);
    const after = files.calls.length;
    await clock.advance(10_000);
    expect(files.calls.length).toBe(after);
  });

  it('too large for a small change is replaced by a flush after an interval', async () => {
    const clock = newClock();
    const { files, device } = await begin(5000, { clock });
    await Promise.all(Array.from({ length: 5000 }, (_, block) => device.write(new Uint8Array(8), block * BLOCK)));
    await device.checkpoint();
    files.calls.length = 0;
    await device.write(new Uint8Array(8), 100);
    await clock.advance(1000);
    expect(files.calls.map(({ kind, name }) => `${kind} ${name}`)).toEqual([
      'write disk',
      'write disk.wil',
      'sync disk',
      'write disk.wil',
      'sync disk.wil',
    ]);
    await clock.advance(10_000);
    expect(files.calls.length).toBe(5);
  });

  it.each([1, 16])('costs at most as much as the log, over many writes in turns of %i', async (turn) => {
    const blocks = 16_384;
    const { files, device } = await begin(blocks);
    const random = seededRandom(3);
    const from = pattern(BLOCK);
    const writes = turn === 1 ? 30_000 : 40_000;
    for (let count = 0; count < writes; count += turn) {
      await Promise.all(
        Array.from({ length: turn }, () => {
          // Half of the blocks never become whole: each write to them needs a record.
          if (random.oneIn(4)) return device.write(from, random.below(blocks / 2) * BLOCK);
          return device.write(
            from.subarray(0, 8),
            (blocks / 2 + random.below(blocks / 2)) * BLOCK + 16 * random.below(8),
          );
        }),
      );
    }
    const bytesOf = (kind: string): number =>
      files.calls.reduce((sum, { name, length }) => sum + (name.startsWith(kind) ? length : 0), 0);
    expect(
      files.calls.filter(({ name, offset }) => name.startsWith('disk.wil') && offset === HEADER - 1).length,
    ).toBeGreaterThan(1);
    expect(bytesOf('disk.bak')).toBeLessThan(bytesOf('disk.wil'));
  });
});

it('takes any number of checkpoints', async () => {
  const { files, device } = await begin(4);
  for (let count = 0; count < 5000; count++) {
    await device.write(new Uint8Array(8), (count * 8) % (4 * BLOCK));
    await device.checkpoint();
    files.calls.length = 0;
  }
});

describe('a full log', () => {
  it('delays writes only until the running checkpoint is complete', async () => {
    const blocks = 64;
    const { files, device } = await begin(blocks);
    const model = pattern(blocks * BLOCK);
    const held = gate();
    files.before = ({ kind, name }) => (kind === 'sync' && name === 'disk.bak' ? held.closed : undefined);
    const write = async (count: number): Promise<void> => {
      // No block becomes whole, because a write to a whole block needs no record. All but the first writes of a cell
      // are announced in a frame of their own: no barrier comes while the checkpoint is held.
      const from = new Uint8Array(500).fill(count % 251);
      const offset = (count % (blocks * 8)) * 512;
      await device.write(from, offset);
      model.set(from, offset);
    };
    let count = 0;
    let waiting: Promise<void> | undefined;
    while (waiting === undefined) {
      const writing = write(count++);
      if (await Promise.race([writing.then(() => false), settled().then(() => true)])) waiting = writing;
    }
    // The first log is half full, and the second is full except for its reserve for marks.
    const perLog = (2 ** 20 - HEADER) / (512 / 12);
    const frames = 2 * count;
    expect(frames).toBeGreaterThan(1.4 * perLog);
    expect(frames).toBeLessThan(1.6 * perLog);
    held.open();
    await waiting;
    for (let more = 0; more < 1000; more++) await write(count++);
    expectBytes(await readAll(device), model);
    const again = await open(new MemoryFiles(files.images()), bytesSource(pattern(blocks * BLOCK)));
    expectBytes(await readAll(again), model);
    await again.close();
  });
});

describe('a checkpoint that has no room', () => {
  const size = 8 * BLOCK;

  interface Outcome {
    /** Whether the failing call belonged to the checkpoint. */
    failed: boolean;
    history: ByteHistory;
    fileSystem: CrashingFileSystem;
    device: Device;
  }

  /** A device whose checkpoint fails at its call number `at`, and some later writes. */
  async function failingAt(at: number, stays: boolean, seed: number): Promise<Outcome> {
    const random = seededRandom(seed);
    const history = new ByteHistory(pattern(size));
    const fileSystem = new CrashingFileSystem({ random: random.fork() });
    const device = await open(fileSystem, bytesSource(pattern(size)));
    const write = async (): Promise<void> => {
      const bytes = random.fill(new Uint8Array(1 + random.below(2 * BLOCK)));
      const offset = random.below(size - bytes.length);
      const writing = history.begin(offset, bytes);
      await device.write(bytes, offset);
      history.acknowledge(writing);
    };
    const tryTo = async (work: () => Promise<void>): Promise<boolean> => {
      try {
        await work();
        return true;
      } catch (error) {
        if (isCodError(error, 'COD_NO_SPACE')) return false;
        throw error;
      }
    };
    await write();
    await device.checkpoint();
    await write();
    const flushed = history.beginFlush();
    await device.flush();
    flushed();
    await write();
    const first = fileSystem.operationCount + at;
    fileSystem.failWhen(
      ({ kind, number, name }) =>
        (stays ? number >= first : number === first) && name !== 'disk' && (kind === 'write' || kind === 'truncate'),
      { code: 'COD_NO_SPACE', stays },
    );
    const failed = !(await tryTo(() => device.checkpoint()));
    for (let more = 0; more < 3; more++) await tryTo(write);
    const durable = history.beginFlush();
    if (await tryTo(() => device.flush())) durable();
    return { failed, history, fileSystem, device };
  }

  it.each([false, true])(
    'lets writes continue, and keeps every promise after any crash (no room later: %s)',
    async (stays) => {
      for (const kind of ['process', 'power'] as const) {
        let failures = 0;
        for (let at = 1; at < 20; at++) {
          const { failed, history, fileSystem } = await failingAt(at, stays, at);
          failures += failed ? 1 : 0;
          const after = fileSystem.crash({ kind, random: seededRandom(at) });
          const device = await open(after, bytesSource(pattern(size)));
          const wrong = history.violation(await readAll(device), kind === 'process' ? 'acknowledged' : 'durable');
          expect(wrong, `call ${at} of the checkpoint, ${kind} crash`).toBeUndefined();
          await device.close();
        }
        expect(failures).toBeGreaterThan(5);
      }
    },
  );

  it.each([false, true])(
    'is replaced by the next flush when there is room again (no room for long: %s)',
    async (stays) => {
      for (let at = 1; at < 20; at++) {
        const { history, fileSystem, device } = await failingAt(at, stays, at);
        fileSystem.clearFaults();
        const bytes = pattern(700, at);
        const writing = history.begin(5, bytes);
        await device.write(bytes, 5);
        history.acknowledge(writing);
        const durable = history.beginFlush();
        await device.flush();
        durable();
        const after = fileSystem.crash({ kind: 'power', random: seededRandom(at) });
        const again = await open(after, bytesSource(pattern(size)));
        expect(history.violation(await readAll(again), 'durable'), `call ${at} of the checkpoint`).toBeUndefined();
        await again.close();
      }
    },
  );
});

describe('data that may be lost', () => {
  const size = 4 * BLOCK;
  const source = pattern(size, 9);

  it('breaks no promise after a failed sync: the next start believes what the target reads', async () => {
    for (let seed = 0; seed < 60; seed++) {
      const random = seededRandom(seed);
      const history = new ByteHistory(source);
      const fileSystem = new CrashingFileSystem({ random: random.fork() });
      const device = await open(fileSystem, bytesSource(source));
      const write = async (offset: number): Promise<void> => {
        const bytes = random.fill(new Uint8Array(BLOCK));
        const writing = history.begin(offset, bytes);
        await device.write(bytes, offset);
        history.acknowledge(writing);
      };
      await write(0);
      const durable = history.beginFlush();
      await device.flush();
      durable();
      await write(BLOCK);
      await write(2 * BLOCK);
      const nth = random.below(2);
      let syncs = 0;
      fileSystem.failWhen(({ kind }) => kind === 'sync' && syncs++ === nth);
      await expect(device.flush()).rejects.toMatchObject({ code: 'COD_POISONED' });
      await expect(device.read(new Uint8Array(1), 0)).rejects.toMatchObject({ code: 'COD_POISONED' });
      const after = fileSystem.crash({ kind: 'process', random });
      const again = await open(after, bytesSource(source));
      expect(history.violation(await readAll(again), 'durable'), `seed ${seed}`).toBeUndefined();
      await again.close();
    }
  });

  it('is not damage when a process dies after a failed sync', async () => {
    // With an older log in each of the two slots, and a crash at each operation after the failed sync.
    for (const checkpointsBefore of [0, 1]) {
      for (let later = 1; later < 12; later++) {
        const fileSystem = new CrashingFileSystem();
        const device = await open(fileSystem, bytesSource(source));
        for (let count = 0; count < checkpointsBefore; count++) {
          await device.write(pattern(BLOCK, count), 0);
          await device.checkpoint();
        }
        await device.write(pattern(BLOCK, 7), BLOCK);
        fileSystem.failWhen(({ kind }) => {
          if (kind !== 'sync') return false;
          fileSystem.crashAt(fileSystem.operationCount + later);
          return true;
        });
        const work = device
          .checkpoint()
          .catch((error: unknown) => expect(error).toMatchObject({ code: 'COD_POISONED' }));
        await Promise.race([work, fileSystem.crashed]);
        const again = await open(
          fileSystem.crash({ kind: 'process', random: seededRandom(later) }),
          bytesSource(source),
        );
        expect((await readAll(again)).length).toBe(size);
        await again.close();
      }
    }
  });

  it('leaves no log that continues in a lost log when the process dies right after a failed sync', async () => {
    // Each sync of a checkpoint, and for each seed another choice of lost data.
    for (let nth = 0; nth < 6; nth++) {
      for (let seed = 0; seed < 20; seed++) {
        const random = seededRandom(seed);
        const fileSystem = new CrashingFileSystem({ random: random.fork() });
        const device = await open(fileSystem, bytesSource(source));
        await device.write(pattern(BLOCK), BLOCK);
        let syncs = 0;
        fileSystem.failWhen(({ kind }) => {
          if (kind !== 'sync' || syncs++ !== nth) return false;
          fileSystem.crashAt(fileSystem.operationCount + 1);
          return true;
        });
        const work = device
          .checkpoint()
          .catch((error: unknown) => expect(error).toMatchObject({ code: 'COD_POISONED' }));
        await Promise.race([work, fileSystem.crashed]);
        const again = await open(fileSystem.crash({ kind: 'process', random }), bytesSource(source));
        expect((await readAll(again)).length, `sync ${nth}, seed ${seed}`).toBe(size);
        await again.close();
      }
    }
  });

  it('leaves no target without metadata after a process crash and a power cut during the first opens', {
    timeout: 600_000,
  }, async () => {
    const dead = async (fileSystem: CrashingFileSystem, at: number): Promise<boolean> => {
      fileSystem.crashAt(fileSystem.operationCount + at);
      let ended = false;
      const work = open(fileSystem, bytesSource(source)).then(() => (ended = true));
      await Promise.race([work, fileSystem.crashed]);
      return !ended;
    };
    for (let first = 5; first < 14; first++) {
      for (let second = 1; second < 16; second++) {
        for (let seed = 0; seed < SEEDS; seed++) {
          const begun = new CrashingFileSystem();
          if (!(await dead(begun, first))) continue;
          const next = begun.crash({ kind: 'process', random: seededRandom(seed) });
          if (!(await dead(next, second))) continue;
          const device = await open(next.crash({ kind: 'power', random: seededRandom(seed) }), bytesSource(source));
          expectBytes(await readAll(device), source);
          await device.close();
        }
      }
    }
  });

  it('includes a killed process’s checkpoint in the page cache: the next open does not build on it', async () => {
    /** Runs until a checkpoint's header is written but not synced. */
    const killed = async (at?: number): Promise<{ fileSystem: CrashingFileSystem; lastSync: number }> => {
      const fileSystem = new CrashingFileSystem({ random: seededRandom(1) });
      let lastSync = 0;
      fileSystem.failWhen(
        ({ kind, name, number }) => {
          if (kind === 'sync' && name.includes('.bak')) lastSync = number;
          return false;
        },
        { stays: true },
      );
      if (at !== undefined) fileSystem.crashAt(at);
      const work = async (): Promise<void> => {
        const device = await open(fileSystem, bytesSource(source));
        await device.write(pattern(BLOCK), 0);
        await device.checkpoint();
      };
      await Promise.race([work(), fileSystem.crashed]);
      return { fileSystem, lastSync };
    };
    const { lastSync } = await killed();
    for (let at = 1; at < 45; at++) {
      for (let seed = 0; seed < 4; seed++) {
        const random = seededRandom(1000 * at + seed);
        const { fileSystem } = await killed(lastSync);
        const second = fileSystem.crash({ kind: 'process', random });
        second.crashAt(at);
        await Promise.race([open(second, bytesSource(source)), second.crashed]);
        const third = second.crash({ kind: 'power', random });
        const device = await open(third, bytesSource(source));
        await device.close();
      }
    }
  });
});
