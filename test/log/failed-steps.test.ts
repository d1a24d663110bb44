/** A step that fails changes nothing, or the log is poisoned (docs/RECOVERY.md, "A step that fails"). */

import { RoaringBitmap32 } from 'roaring-wasm/browser';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { BlockMap } from '../../src/core/block-map.ts';
import { geometry } from '../../src/core/geometry.ts';
import { Firmness } from '../../src/log/firmness.ts';
import { type OpenLog, openLog } from '../../src/log/intent-log.ts';
import { SimulatedClock } from '../../src/testing/index.ts';
import { type Call, MemoryFiles, Torn } from './memory-files.ts';

const BLOCK = 4096;
const SIZE = 10 * BLOCK;
const HEADER = 512;
const INTERVAL_MS = 1000;

afterEach(() => vi.restoreAllMocks());

/** A log over a storage in memory, whose sync is a call as those of the files. */
class World {
  readonly files: MemoryFiles;
  readonly clock = new SimulatedClock({ settle: () => new Promise(setImmediate) });
  readonly bytes: Uint8Array;
  log!: OpenLog;
  /** Called before each sync of the storage takes effect. */
  beforeSync: (() => Promise<void> | void) | undefined;

  constructor(files = new MemoryFiles(), bytes = new Uint8Array(SIZE)) {
    this.files = files;
    this.bytes = bytes;
  }

  async open(): Promise<this> {
    this.log = await openLog(
      { clock: this.clock, randomBytes: (into) => into.fill(1) },
      {
        fileSystem: this.files,
        name: 'log',
        size: SIZE,
        checkpointIntervalMs: INTERVAL_MS,
        storage: {
          read: async (into, offset) => into.set(this.bytes.subarray(offset, offset + into.length)),
          sync: async () => this.beforeSync?.(),
        },
      },
    );
    this.files.calls.length = 0;
    return this;
  }

  async write(offset: number, value: number, length = BLOCK): Promise<void> {
    const bytes = new Uint8Array(length).fill(value);
    const transaction = this.log.begin();
    await transaction.intend(offset, bytes);
    this.bytes.set(bytes, offset);
    await this.log.commit(transaction);
  }

  /** The calls to the log's files since the last call of this. */
  taken(): Call[] {
    return this.files.calls.splice(0);
  }
}

/** A promise and the functions that settle it. */
function gate(): { closed: Promise<void>; open: () => void; fail: (error: Error) => void } {
  let open!: () => void;
  let fail!: (error: Error) => void;
  const closed = new Promise<void>((resolve, reject) => {
    open = resolve;
    fail = reject;
  });
  return { closed, open, fail };
}

const turn = (): Promise<void> => new Promise(setImmediate);

/** The name of the log in use, whose frames are the only short writes. */
function isAppend({ kind, name, offset }: Call): boolean {
  return kind === 'write' && name.startsWith('log.wil') && offset >= HEADER;
}

describe('an append that fails after a while', () => {
  it('leaves no cells behind that would have to be announced forever', async () => {
    const world = await new World().open();
    const { files, log } = world;
    files.before = async (call) => {
      await turn();
      if (isAppend(call)) throw new Torn(7);
    };
    await expect(world.write(0, 1)).rejects.toMatchObject({ code: 'COD_NO_SPACE' });
    files.before = undefined;
    await world.write(0, 2);
    await log.flush();
    world.taken();
    // Neither a record nor an announcement: block 0 is synced, and its records are firm.
    await world.write(0, 3);
    expect(world.taken()).toEqual([]);
    await log.close();
  });
});

describe('a transaction with more records than an append takes', () => {
  const LONG = 2 ** 27;

  /** A log over a storage of zeros. */
  async function open(files: MemoryFiles): Promise<OpenLog> {
    const options = { fileSystem: files, name: 'log', size: LONG, checkpointIntervalMs: 2 ** 40 };
    const storage = { read: async () => undefined, sync: async () => undefined };
    return openLog(
      { clock: new SimulatedClock(), randomBytes: (into) => into.fill(1) },
      { ...options, storage, blockSize: 4 * BLOCK },
    );
  }

  async function write(log: OpenLog, length: number): Promise<void> {
    const transaction = log.begin();
    await transaction.intend(0, new Uint8Array(length));
    await log.commit(transaction);
  }

  it('is announced in several appends where it overwrites itself', async () => {
    const log = await open(new MemoryFiles());
    await write(log, LONG);
    await write(log, LONG);
    expect(log.blocks.count).toBe(log.size / log.blockSize);
    await log.close();
  });
});

describe('an append in flight', () => {
  it('when a sync fails is zeroed and rejects: the sync may have dropped the frames before it', async () => {
    const world = await new World().open();
    const { files, log } = world;
    await world.write(0, 1);
    const before = files.images().get('log.wil.1')!.bytes.length;
    const held = gate();
    let isHeld = false;
    files.before = (call) => {
      if (!isAppend(call) || isHeld) return undefined;
      isHeld = true;
      return held.closed;
    };
    const writing = world.write(BLOCK, 1);
    writing.catch(() => undefined);
    while (!isHeld) await turn();
    world.beforeSync = () => {
      throw new Error('lost');
    };
    await expect(log.flush()).rejects.toMatchObject({ code: 'COD_POISONED' });
    held.open();
    await expect(writing).rejects.toMatchObject({ code: 'COD_POISONED' });
    expect(files.images().get('log.wil.1')!.bytes.length).toBe(before);
    expect(log.blocks.count).toBe(1);
    await log.close();
  });
});

describe('an intent whose announcement fails', () => {
  it('adds nothing to its transaction', async () => {
    for (const kind of ['intend', 'fill'] as const) {
      const world = await new World().open();
      const { log, files } = world;
      await world.write(0, 1, 100);
      files.before = (call) => {
        if (isAppend(call)) throw new Torn(7);
      };
      const transaction = log.begin();
      await expect(transaction[kind](50, new Uint8Array(200).fill(2))).rejects.toMatchObject({ code: 'COD_NO_SPACE' });
      files.before = undefined;
      await log.commit(transaction);
      expect(log.dirty.parts(0)).toEqual([[0, 100]]);
      await log.close();
    }
  });
});

describe('a flush', () => {
  it('rejects if a sync that overlapped with it has failed, whichever ends first', async () => {
    for (const failsFirst of [true, false]) {
      const world = await new World().open();
      const { log, files } = world;
      await world.write(0, 1);
      const [first, second] = [gate(), gate()];
      const gates = [first, second];
      world.beforeSync = () => gates.shift()?.closed;
      const checkpoint = log.checkpoint();
      checkpoint.catch(() => undefined);
      while (gates.length > 1) await turn();
      const flush = log.flush();
      flush.catch(() => undefined);
      while (gates.length > 0) await turn();
      if (failsFirst) first.fail(new Error('lost'));
      await turn();
      second.open();
      await turn();
      await turn();
      first.fail(new Error('lost'));
      files.calls.length = 0;
      await expect(checkpoint).rejects.toMatchObject({ code: 'COD_POISONED' });
      await expect(flush).rejects.toMatchObject({ code: 'COD_POISONED' });
      // Neither a barrier nor a second sync.
      expect(world.taken()).toEqual([]);
      await log.close();
    }
  });
});

describe('a timer that is due while the disk is full', () => {
  it('tries again after another interval', async () => {
    const world = await new World().open();
    const { clock, files, log } = world;
    await world.write(0, 1);
    files.before = ({ kind }) => {
      if (kind === 'write' || kind === 'truncate') throw new Error('no room');
    };
    await clock.advance(INTERVAL_MS);
    files.before = undefined;
    files.calls.length = 0;
    await clock.advance(INTERVAL_MS);
    expect(world.taken().some(({ kind }) => kind === 'sync')).toBe(true);
    await log.close();
  });
});

describe('lack of memory', () => {
  it('while records are noted whose append has ended poisons the log', async () => {
    const world = await new World().open();
    const end = vi.spyOn(Firmness.prototype, 'end').mockImplementation(() => {
      throw new RangeError('Array buffer allocation failed');
    });
    await expect(world.write(0, 1)).rejects.toMatchObject({ code: 'COD_POISONED' });
    end.mockRestore();
    await expect(world.log.flush()).rejects.toMatchObject({ code: 'COD_POISONED' });
    await world.log.close();
  });

  it('while records are noted whose append is in flight poisons the log', async () => {
    const world = await new World().open();
    const begin = vi.spyOn(Firmness.prototype, 'begin').mockImplementation(() => {
      throw new RangeError('Array buffer allocation failed');
    });
    await expect(world.write(0, 1)).rejects.toMatchObject({ code: 'COD_POISONED' });
    begin.mockRestore();
    await expect(world.log.flush()).rejects.toMatchObject({ code: 'COD_POISONED' });
    await world.log.close();
  });

  it('while blocks are counted changes no block', async () => {
    const map = await BlockMap.open(geometry({ size: 2 ** 30, blockSize: BLOCK }));
    for (let block = 0; block < 100; block += 3) map.add(block, block + 2);
    const addMany = vi.spyOn(RoaringBitmap32.prototype, 'addMany').mockImplementation(() => {
      throw new Error('Allocation failed');
    });
    try {
      expect([...map.runs()].length).toBe(34);
    } catch {
      // The caller gets the error.
    }
    addMany.mockRestore();
    for (let block = 0; block < 100; block++) expect(map.has(block)).toBe(block % 3 < 2);
    map.dispose();
  });
});
