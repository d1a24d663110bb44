/** `copyondemand/log`: the promises and errors of each call. */

import { describe, expect, it } from 'vitest';
import { BlockMap } from '../../src/core/block-map.ts';
import { CopyState } from '../../src/core/copy-state.ts';
import { DirtyMap } from '../../src/core/dirty-map.ts';
import { geometry } from '../../src/core/geometry.ts';
import { CodError } from '../../src/errors.ts';
import {
  type Environment,
  type IntentLog,
  type LogStorage,
  type OpenIntentLogOptions,
  openIntentLog,
  recoverIntentLog,
  type Transaction,
} from '../../src/log.ts';
import { SimulatedClock } from '../../src/testing/index.ts';
import { Core } from '../../src/wasm/core.ts';
import { type Images, MemoryFiles, Torn } from './memory-files.ts';

const BLOCK = 4096;
const SIZE = 10 * BLOCK + 100;
const HEADER = 512;
/** The frame `BASED` of a new log. */
const FIRST_FRAME = 24 + 16;

/** A storage in memory whose sync can fail on demand. */
class TestStorage implements LogStorage {
  syncs = 0;
  failure: Error | undefined;
  #bytes: Uint8Array;
  /** The bytes of the last sync. */
  #synced: Uint8Array;

  constructor(bytes: Uint8Array = new Uint8Array(SIZE)) {
    this.#bytes = bytes;
    this.#synced = bytes.slice();
  }

  async read(into: Uint8Array, offset: number): Promise<void> {
    into.fill(0);
    into.set(this.#bytes.subarray(offset, offset + into.length));
  }

  async write(from: Uint8Array, offset: number): Promise<void> {
    this.put(from, offset);
  }

  put(from: Uint8Array, offset: number): void {
    const end = offset + from.length;
    if (end > this.#bytes.length) {
      const bytes = new Uint8Array(2 * end);
      bytes.set(this.#bytes);
      this.#bytes = bytes;
    }
    this.#bytes.set(from, offset);
  }

  async sync(): Promise<void> {
    this.syncs++;
    if (this.failure !== undefined) throw this.failure;
    this.#synced = this.#bytes.slice();
  }

  /** A storage with every byte, or with those of the last sync. */
  copy({ syncedOnly = false }: { syncedOnly?: boolean } = {}): TestStorage {
    return new TestStorage((syncedOnly ? this.#synced : this.#bytes).slice());
  }
}

/** The files of a log and the storage that it describes. */
class TestFiles extends MemoryFiles {
  readonly storage: TestStorage;

  constructor(images?: Images, storage: TestStorage = new TestStorage()) {
    super(images);
    this.storage = storage;
  }
}

function newFiles(): TestFiles {
  return new TestFiles();
}

/** What a killed process leaves. */
function afterCrash(files: TestFiles): TestFiles {
  return new TestFiles(files.images(), files.storage.copy());
}

/** The storage lost everything after its last sync. The log's files did not: that is the worst case. */
function afterPowerCut(files: TestFiles): TestFiles {
  return new TestFiles(files.images(), files.storage.copy({ syncedOnly: true }));
}

function optionsOf(fileSystem: TestFiles, more: Partial<OpenIntentLogOptions> = {}): OpenIntentLogOptions {
  // Time stands still, so that no checkpoint is due.
  const environment: Environment = { clock: new SimulatedClock(), randomBytes: (into) => into.fill(7) };
  return { fileSystem, name: 'store', size: SIZE, storage: fileSystem.storage, environment, ...more };
}

const storageOf = new WeakMap<IntentLog, TestStorage>();

async function open(fileSystem: TestFiles, more: Partial<OpenIntentLogOptions> = {}): Promise<IntentLog> {
  const log = await openIntentLog(optionsOf(fileSystem, more));
  storageOf.set(log, fileSystem.storage);
  return log;
}

let lastByte = 0;

/** Writes non-zero bytes to the storage of a log, given as offset and length. The caller commits the transaction. */
async function writeOnly(log: IntentLog, ...extents: (readonly [number, number])[]): Promise<Transaction> {
  const transaction = log.begin();
  for (const [offset, length] of extents) {
    const bytes = new Uint8Array(length).fill((lastByte = (lastByte % 255) + 1));
    await transaction.intend(offset, bytes);
    storageOf.get(log)!.put(bytes, offset);
  }
  return transaction;
}

/** Writes to the storage of a log and commits the writes together. */
async function write(log: IntentLog, ...extents: (readonly [offset: number, length: number])[]): Promise<void> {
  await log.commit(await writeOnly(log, ...extents));
}

/** The synced blocks of a log. */
function synced({ blocks, size, blockSize }: Pick<IntentLog, 'blocks' | 'size' | 'blockSize'>): number[] {
  return Array.from({ length: Math.ceil(size / blockSize) }, (_, block) => block).filter((block) => blocks.has(block));
}

/** A file of format 1 as datto/copyondemand writes it. */
function format1(kind: 'BAK' | 'WIL', ...words: number[]): Uint8Array {
  const view = new DataView(new ArrayBuffer(16 + 8 * words.length));
  for (const [index, letter] of [...`COD ${kind}`].entries()) view.setUint8(index, letter.charCodeAt(0));
  for (const [index, word] of [1, ...words].entries()) view.setBigUint64(8 + 8 * index, BigInt(word), true);
  return new Uint8Array(view.buffer);
}

describe('a transaction', () => {
  it('records nothing until it is committed', async () => {
    const files = newFiles();
    const log = await open(files);
    files.calls.length = 0;
    const transaction = log.begin();
    await transaction.intend(0, new Uint8Array(2 * BLOCK));
    await transaction.intend(5 * BLOCK, new Uint8Array(10));
    expect([files.calls, synced(log), log.dirty.blockCount]).toEqual([[], [], 0]);
    await log.checkpoint();
    await log.close();
    const reopened = await open(files);
    expect([synced(reopened), reopened.dirty.blockCount]).toEqual([[], 0]);
    await reopened.close();
  });

  it('of several writes is committed by one append', async () => {
    const files = newFiles();
    const log = await open(files);
    files.calls.length = 0;
    await write(log, [0, BLOCK], [3 * BLOCK + 5, 10], [7 * BLOCK, 2 * BLOCK]);
    expect(files.calls).toEqual([
      { kind: 'write', name: 'store.wil.1', offset: HEADER + FIRST_FRAME, length: 24 + 3 * 16 },
    ]);
    expect(synced(log)).toEqual([0, 7, 8]);
    expect(log.dirty.parts(3)).toEqual([[5, 15]]);
    await log.close();
  });

  it('shares its append with other transactions committed in the same turn', async () => {
    const files = newFiles();
    const log = await open(files);
    files.calls.length = 0;
    const transactions = [
      await writeOnly(log, [0, BLOCK]),
      await writeOnly(log, [BLOCK, BLOCK]),
      await writeOnly(log, [2 * BLOCK, 1]),
    ];
    expect(files.calls).toEqual([]);
    await Promise.all(transactions.map((transaction) => log.commit(transaction)));
    expect(files.calls.length).toBe(1);
    expect([synced(log), log.dirty.parts(2)]).toEqual([[0, 1], [[0, 1]]]);
    await log.close();
  });

  it('that writes only to blocks that are synced and firm needs no append', async () => {
    const files = newFiles();
    const log = await open(files);
    await write(log, [0, 2 * BLOCK]);
    await log.flush();
    files.calls.length = 0;
    await write(log, [10, 20], [BLOCK, 5]);
    await log.commit(log.begin());
    expect(files.calls).toEqual([]);
    await log.close();
  });

  it('that overwrites what is not firm is announced by `intend`, in one append for all of its cells', async () => {
    const files = newFiles();
    const log = await open(files);
    await write(log, [0, 3 * BLOCK]);
    files.calls.length = 0;
    const transaction = await writeOnly(log, [10, 20], [BLOCK, 2 * BLOCK]);
    expect(files.calls.map(({ kind, name, length }) => [kind, name, length])).toEqual([
      ['write', 'store.wil.1', 24 + 16],
      ['write', 'store.wil.1', 24 + 2 * 16],
    ]);
    await log.commit(transaction);
    expect(files.calls.length).toBe(2);
    const reopened = await open(afterCrash(files));
    expect(synced(reopened)).toEqual([0, 1, 2]);
    await reopened.close();
    await log.close();
  });

  it('that overwrites what fills an append may not be made before its own append has ended', async () => {
    // 3000 records of two blocks fill an append, and are acknowledged before the next one.
    const size = 6000 * BLOCK;
    const files = newFiles();
    const log = await open(files, { size });
    const first = log.begin();
    await first.intend(0, new Uint8Array(size).fill(1));
    let release!: () => void;
    const released = new Promise<void>((resolve) => (release = resolve));
    let appends = 0;
    files.before = async ({ kind, name, length }) => {
      if (kind === 'write' && name.startsWith('store.wil') && length < 1000 && appends++ === 0) await released;
    };
    const committed = log.commit(first);
    let mayWrite = false;
    const intending = log
      .begin()
      .intend(0, new Uint8Array(BLOCK).fill(2))
      .then(() => (mayWrite = true));
    await committed;
    for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve));
    // A process that dies now, with these bytes in the storage, would lose the first write.
    expect(mayWrite).toBe(false);
    release();
    await intending;
    await log.close();
  });

  it.each([
    [-1, 10],
    [0.5, 10],
    [SIZE - 9, 10],
    [SIZE + 1, 0],
    [Number.NaN, 1],
    [2 ** 60, 1],
  ])('refuses a write outside the storage: at %d, of %d bytes', async (offset, length) => {
    const log = await open(newFiles());
    const transaction = log.begin();
    await expect(transaction.intend(offset, new Uint8Array(length))).rejects.toThrow(RangeError);
    await log.commit(transaction);
    expect([synced(log), log.dirty.blockCount]).toEqual([[], 0]);
    await log.close();
  });

  it('accepts the last byte of the storage, and may be empty', async () => {
    const log = await open(newFiles());
    await write(log, [SIZE, 0], [10 * BLOCK, 100]);
    expect(synced(log)).toEqual([10]);
    await log.close();
  });

  it('is committed once: a second commit or a later intent is a TypeError', async () => {
    const log = await open(newFiles());
    const transaction = log.begin();
    await log.commit(transaction);
    await expect(log.commit(transaction)).rejects.toThrow(TypeError);
    await expect(transaction.intend(0, new Uint8Array(1))).rejects.toThrow(TypeError);
    await log.close();
  });

  it('of another type or another log is a TypeError', async () => {
    const log = await open(newFiles());
    const larger = await open(newFiles(), { size: 2 * SIZE });
    const foreign = larger.begin();
    await foreign.intend(SIZE, new Uint8Array(10));
    const imitated: Transaction = { intend: async () => undefined, fill: async () => undefined };
    for (const transaction of [foreign, imitated, undefined as never])
      await expect(log.commit(transaction)).rejects.toThrow(TypeError);
    await larger.commit(foreign);
    await log.close();
    await larger.close();
  });

  it('records nothing if its append fails, and the next transaction works', async () => {
    const files = newFiles();
    const log = await open(files);
    files.before = ({ kind }) => {
      if (kind === 'write') throw new Torn(7);
    };
    await expect(write(log, [0, BLOCK])).rejects.toMatchObject({ code: 'COD_NO_SPACE' });
    expect(synced(log)).toEqual([]);
    files.before = undefined;
    await write(log, [BLOCK, BLOCK]);
    expect(synced(log)).toEqual([1]);
    const reopened = await open(afterCrash(files));
    expect(synced(reopened)).toEqual([1]);
    await reopened.close();
    await log.close();
  });

  it('rejects an intent whose cells cannot be read, once for all of them, and still works', async () => {
    const files = newFiles();
    const { storage } = files;
    const log = await open(files);
    const read = storage.read.bind(storage);
    for (const failing of [[0], [BLOCK], [0, BLOCK]]) {
      storage.read = async (into, offset) => {
        // The read of the second cell fails first.
        if (offset === 0) await new Promise(setImmediate);
        if (failing.includes(offset)) throw new CodError('COD_TARGET_IO', `injected at ${offset}`);
        return read(into, offset);
      };
      const transaction = log.begin();
      await expect(transaction.intend(100, new Uint8Array(BLOCK))).rejects.toMatchObject({ code: 'COD_TARGET_IO' });
      await log.commit(transaction);
      expect(log.dirty.blockCount).toBe(0);
    }
    storage.read = read;
    await write(log, [100, BLOCK]);
    expect(log.dirty.blockCount).toBe(2);
    await new Promise(setImmediate);
    await log.close();
  });

  it('that would overfill the map of parts is COD_NO_SPACE, and the log still works', async () => {
    const size = 2 ** 26;
    const files = newFiles();
    const log = await open(files, { size, blockSize: size });
    const parts = Array.from({ length: 10_000 }, (_, index) => [2 * index, 1] as const);
    await write(log, ...parts);
    const many = Array.from({ length: 30_000 }, (_, index) => [100_000 + 2 * index, 1] as const);
    await expect(write(log, ...many)).rejects.toMatchObject({ code: 'COD_NO_SPACE' });
    expect(log.dirty.parts(0).length).toBe(10_000);
    await write(log, [500_000, 10]);
    await write(log, [0, size]);
    expect([log.blocks.count, log.dirty.blockCount]).toEqual([1, 0]);
    await log.close();
  });

  it('is refused if seven eighths of the map of parts are used, unless it adds no part', async () => {
    const shape = geometry({ size: 100 * BLOCK, blockSize: BLOCK });
    const map = new DirtyMap(Core.create(), shape, { maxParts: 8, maxBlocks: 8 });
    const state = new CopyState(shape, await BlockMap.open(shape), map, await BlockMap.open(shape));
    for (let block = 0; block < 7; block++) {
      expect(state.hasRoomFor(block * BLOCK, 10, 0)).toBe(true);
      state.apply(block * BLOCK, 10);
    }
    expect(state.hasRoomFor(50 * BLOCK, 10, 0)).toBe(false);
    expect(state.hasRoomFor(50 * BLOCK, BLOCK + 1, 0)).toBe(false);
    expect(state.hasRoomFor(50 * BLOCK, 2 * BLOCK, 0)).toBe(true);
    state.apply(0, BLOCK);
    expect(state.hasRoomFor(5, 10, 0)).toBe(true);
    state.dispose();
  });
});

describe('a log that is closed', () => {
  it('rejects every call after the call of close with COD_CLOSED', async () => {
    const log = await open(newFiles());
    await write(log, [0, BLOCK]);
    const [early, late] = [log.begin(), log.begin()];
    const closing = log.close();
    const refused = { code: 'COD_CLOSED' };
    await expect(log.commit(early)).rejects.toMatchObject(refused);
    await closing;
    await expect(log.commit(late)).rejects.toMatchObject(refused);
    await expect(log.flush()).rejects.toMatchObject(refused);
    await expect(log.checkpoint()).rejects.toMatchObject(refused);
    await expect(log.remove()).rejects.toMatchObject(refused);
    await log.close();
  });

  it('has made the commits in flight durable', async () => {
    const files = newFiles();
    const log = await open(files);
    const transactions = Array.from({ length: 3 }, () => log.begin());
    for (const [index, transaction] of transactions.entries())
      await transaction.intend(index * BLOCK, new Uint8Array(BLOCK));
    let isSlow = true;
    files.before = async ({ kind }) => {
      if (kind === 'write' && isSlow) await new Promise(setImmediate);
      isSlow = false;
    };
    const commits = transactions.map((transaction) => log.commit(transaction));
    await log.close();
    await Promise.all(commits);
    const reopened = await open(afterPowerCut(files));
    expect(synced(reopened)).toEqual([0, 1, 2]);
    await reopened.close();
  });

  it('is closed by `await using`', async () => {
    const files = newFiles();
    {
      await using log = await open(files);
      await write(log, [0, BLOCK]);
    }
    await (await open(files)).close();
  });
});

describe('an owner', () => {
  it('excludes a second owner with COD_LOCKED, also on a file system without locks', async () => {
    const files = newFiles();
    expect('lock' in files).toBe(false);
    const log = await open(files);
    await expect(open(files)).rejects.toMatchObject({ code: 'COD_LOCKED' });
    await expect(recoverIntentLog(optionsOf(files))).rejects.toMatchObject({ code: 'COD_LOCKED' });
    const other = await open(files, { name: 'other' });
    await log.close();
    const next = await open(files);
    // A second close must not end the ownership of the next log.
    await log.close();
    await expect(open(files)).rejects.toMatchObject({ code: 'COD_LOCKED' });
    await next.close();
    await other.close();
  });

  it('takes the lock of the file system until it closes', async () => {
    const files = newFiles();
    const held: string[] = [];
    const fileSystem = Object.assign(files, {
      lock: async (name: string) => {
        held.push(name);
        return { check: async () => true, release: async () => void held.splice(held.indexOf(name), 1) };
      },
    });
    const log = await open(fileSystem);
    expect(held).toEqual(['store']);
    await log.close();
    expect(held).toEqual([]);
  });

  it('releases the ownership if the open fails', async () => {
    const files = newFiles();
    files.storage.failure = new Error('injected failure');
    await expect(open(files)).rejects.toMatchObject({ code: 'COD_POISONED' });
    files.storage.failure = undefined;
    files.before = ({ kind }) => {
      if (kind === 'write') throw new Torn(0);
    };
    await expect(open(files)).rejects.toMatchObject({ code: 'COD_NO_SPACE' });
    files.before = undefined;
    await (await open(files)).close();
  });
});

describe('a log of another storage', () => {
  it('is COD_SIZE_MISMATCH if its storage has another size', async () => {
    const files = newFiles();
    await (await open(files)).close();
    const images = files.images();
    await expect(open(files, { size: SIZE + 1 })).rejects.toMatchObject({
      code: 'COD_SIZE_MISMATCH',
      details: { size: SIZE, storageSize: SIZE + 1 },
    });
    expect(files.images()).toEqual(images);
  });

  it('is COD_SOURCE_CHANGED if its content has another identity, or none', async () => {
    const files = newFiles();
    await (await open(files, { identity: 'one' })).close();
    const images = files.images();
    for (const other of [{ identity: 'other' }, {}])
      await expect(open(files, other)).rejects.toMatchObject({ code: 'COD_SOURCE_CHANGED' });
    expect(files.images()).toEqual(images);
    const log = await open(files, { identity: 'one' });
    expect(log.identity).toBe('one');
    await log.close();
  });

  it('keeps its block size, and adopts the first identity it gets', async () => {
    const files = newFiles();
    await (await open(files, { blockSize: 8192 })).close();
    const log = await open(files, { blockSize: 4096, identity: 'one' });
    expect([log.blockSize, log.size, log.identity]).toEqual([8192, SIZE, 'one']);
    await log.close();
    await expect(open(files, { identity: 'other' })).rejects.toMatchObject({ code: 'COD_SOURCE_CHANGED' });
  });

  it.each([
    [{ name: '' }, TypeError],
    [{ size: 0 }, RangeError],
    [{ size: 1.5 }, RangeError],
    [{ blockSize: 5000 }, RangeError],
    [{ checkpointIntervalMs: 0 }, RangeError],
    [{ identity: 'x'.repeat(65_537) }, RangeError],
  ])('refuses the options %j', async (wrong, type) => {
    const files = newFiles();
    await expect(open(files, wrong)).rejects.toThrow(type);
    expect(files.images().size).toBe(0);
    await (await open(files)).close();
  });
});

describe('removing', () => {
  it('is COD_INCOMPLETE while blocks are missing, and the log still works', async () => {
    const log = await open(newFiles());
    await write(log, [0, SIZE - 1]);
    await expect(log.remove()).rejects.toMatchObject({
      code: 'COD_INCOMPLETE',
      details: { syncedBlocks: 10, totalBlocks: 11 },
    });
    await write(log, [SIZE - 1, 1]);
    expect(log.blocks.count).toBe(11);
    await log.close();
  });

  it('leaves no file, and ends the ownership', async () => {
    const files = newFiles();
    const log = await open(files);
    await write(log, [0, SIZE]);
    await log.checkpoint();
    expect(files.images().size).toBe(4);
    await log.remove();
    expect([...files.images().keys()]).toEqual([]);
    await log.close();
    await expect(log.commit(log.begin())).rejects.toMatchObject({ code: 'COD_CLOSED' });
    const recovered = await recoverIntentLog(optionsOf(files));
    expect(recovered.isNew).toBe(true);
    await recovered.close();
  });

  it('that fails closes the log, and the next open finds a complete storage', async () => {
    const files = newFiles();
    const log = await open(files);
    await write(log, [0, SIZE]);
    files.before = ({ kind }) => {
      if (kind === 'remove') throw new Torn(0);
    };
    await expect(log.remove()).rejects.toMatchObject({ code: 'COD_NO_SPACE' });
    files.before = undefined;
    await expect(log.commit(log.begin())).rejects.toMatchObject({ code: 'COD_CLOSED' });
    const reopened = await open(files);
    expect(reopened.blocks.count).toBe(11);
    await reopened.remove();
    expect(files.images().size).toBe(0);
  });

  it('that fails before its checkpoint also closes the log', async () => {
    const files = newFiles();
    const log = await open(files);
    await write(log, [0, SIZE]);
    files.before = () => {
      throw new Torn(0);
    };
    await expect(log.remove()).rejects.toMatchObject({ code: 'COD_NO_SPACE' });
    files.before = undefined;
    await expect(log.commit(log.begin())).rejects.toMatchObject({ code: 'COD_CLOSED' });
    const reopened = await open(files);
    expect(reopened.blocks.count).toBe(11);
    await reopened.close();
  });
});

describe('a sync of the storage that fails', () => {
  it('poisons the log, and the next open recovers what the storage holds', async () => {
    const files = newFiles();
    const { storage } = files;
    const log = await open(files);
    await write(log, [0, BLOCK], [5 * BLOCK + 1, 2]);
    await log.flush();
    await write(log, [BLOCK, BLOCK], [6 * BLOCK + 1, 2]);
    storage.failure = new Error('injected failure');
    const poisoned = { code: 'COD_POISONED' };
    await expect(log.flush()).rejects.toMatchObject({ ...poisoned, cause: storage.failure });
    storage.failure = undefined;
    const { syncs } = storage;
    await expect(log.flush()).rejects.toMatchObject(poisoned);
    await expect(log.checkpoint()).rejects.toMatchObject(poisoned);
    await expect(write(log, [2 * BLOCK, BLOCK])).rejects.toMatchObject(poisoned);
    await log.close();
    // A second sync would succeed although data is lost.
    expect(storage.syncs).toBe(syncs);
    for (const [left, blocks, parts] of [
      [afterPowerCut(files), [0], []],
      [afterCrash(files), [0, 1], [[1, 3]]],
    ] as const) {
      const reopened = await open(left);
      expect([synced(reopened), reopened.dirty.parts(5), reopened.dirty.parts(6)]).toEqual([blocks, [[1, 3]], parts]);
      await reopened.close();
    }
  });

  it('makes a removal fail and leave the files', async () => {
    const files = newFiles();
    const { storage } = files;
    const log = await open(files);
    await write(log, [0, SIZE]);
    await log.flush();
    await write(log, [0, SIZE]);
    storage.failure = new Error('injected failure');
    await expect(log.remove()).rejects.toMatchObject({ code: 'COD_POISONED' });
    storage.failure = undefined;
    const reopened = await open(files);
    expect(reopened.blocks.count).toBe(11);
    await reopened.close();
  });
});

describe('the views', () => {
  it('show committed writes after a process crash, and flushed writes after a power cut', async () => {
    const files = newFiles();
    const log = await open(files);
    await write(log, [BLOCK, 3 * BLOCK], [5 * BLOCK + 16, 8], [5 * BLOCK + 512, 512]);
    await log.flush();
    await write(log, [7 * BLOCK, BLOCK], [5 * BLOCK + 24, 8]);
    for (const flushedOnly of [false, true]) {
      const found = await open(flushedOnly ? afterPowerCut(files) : afterCrash(files));
      const { blocks, dirty } = found;
      expect(synced(found)).toEqual(flushedOnly ? [1, 2, 3] : [1, 2, 3, 7]);
      expect(blocks.count).toBe(flushedOnly ? 3 : 4);
      expect([blocks.hasRange(1, 4), blocks.hasRange(1, 5), blocks.hasRange(6, 6)]).toEqual([true, false, true]);
      expect([blocks.nextUnsynced(0), blocks.nextUnsynced(1), blocks.nextUnsynced(1, 3)]).toEqual([0, 4, 3]);
      expect([...blocks.extents(0, 6)]).toEqual([
        { start: 0, end: 1, synced: false },
        { start: 1, end: 4, synced: true },
        { start: 4, end: 6, synced: false },
      ]);
      expect(dirty.blockCount).toBe(1);
      expect(dirty.parts(5)).toEqual([
        [16, flushedOnly ? 24 : 32],
        [512, 1024],
      ]);
      expect(dirty.parts(1)).toEqual([]);
      expect(() => blocks.has(11)).toThrow(RangeError);
      await found.close();
    }
    await log.close();
  });

  it('show the unflushed writes of those cells that read as the writes say', async () => {
    const files = newFiles();
    const log = await open(files);
    await write(log, [0, 3 * BLOCK], [4 * BLOCK + 100, 50]);
    await write(log, [4 * BLOCK + 200, 50]);
    const after = afterCrash(files);
    // One byte of cell 1 differs, and cell 4 reads as before the second write.
    after.storage.put(Uint8Array.of(0), BLOCK + 77);
    after.storage.put(new Uint8Array(50), 4 * BLOCK + 200);
    const found = await open(after);
    expect([synced(found), found.dirty.blockCount, found.dirty.parts(4)]).toEqual([[0, 2], 1, [[100, 150]]]);
    await found.close();
    await log.close();
  });

  it('show only flushed writes if the storage is missing, too short, or not given', async () => {
    const files = newFiles();
    const log = await open(files);
    await write(log, [0, BLOCK]);
    await log.flush();
    await write(log, [BLOCK, BLOCK]);
    const { storage: _, ...withoutStorage } = optionsOf(files);
    const reads = (['COD_NOT_FOUND', 'COD_SHORT_READ'] as const).map((code) => async () => {
      throw new CodError(code, 'injected');
    });
    for (const storage of [undefined, ...reads.map((read) => ({ read }))]) {
      const fileSystem = afterCrash(files);
      const found = await recoverIntentLog({ ...withoutStorage, fileSystem, ...(storage && { storage }) });
      expect(synced(found)).toEqual([0]);
      await found.close();
    }
    await log.close();
  });

  it('are not made from a storage that cannot be read', async () => {
    const files = newFiles();
    const log = await open(files);
    await write(log, [0, BLOCK]);
    const failure = new Error('injected failure');
    const storage = { read: () => Promise.reject(failure) };
    const after = afterCrash(files);
    await expect(recoverIntentLog({ ...optionsOf(after), storage })).rejects.toBe(failure);
    await (await open(after)).close();
    await log.close();
  });
});

describe('a flush', () => {
  it('syncs the storage and the log, and neither without new writes', async () => {
    const files = newFiles();
    const { storage } = files;
    const log = await open(files);
    storage.syncs = 0;
    files.calls.length = 0;
    await log.flush();
    expect([storage.syncs, files.calls.length]).toEqual([0, 0]);
    await write(log, [0, BLOCK]);
    files.calls.length = 0;
    await log.flush();
    expect(storage.syncs).toBe(1);
    expect(files.calls.map(({ kind, name }) => `${kind} ${name}`)).toEqual(['write store.wil.1', 'sync store.wil.1']);
    await write(log, [0, 10]);
    files.calls.length = 0;
    await log.flush();
    expect([storage.syncs, files.calls.length]).toEqual([2, 0]);
    await log.close();
  });

  it('happens automatically after the interval', async () => {
    const files = newFiles();
    const clock = new SimulatedClock();
    const environment: Environment = { clock, randomBytes: (into) => into.fill(7) };
    const log = await open(files, { environment, checkpointIntervalMs: 500 });
    await write(log, [0, BLOCK]);
    await clock.run(clock.sleep(1000));
    const found = await open(afterPowerCut(files));
    expect(synced(found)).toEqual([0]);
    await found.close();
    await log.close();
  });
});

it('spreads the checkpoints of copies that were written at one time over half of the interval', async () => {
  const clock = new SimulatedClock();
  const copies = await Promise.all(
    Array.from({ length: 16 }, async (_, index) => {
      const taken: number[] = [];
      const environment: Environment = { clock, randomBytes: (into) => into.fill(index * 16) };
      const files = newFiles();
      const log = await open(files, { environment, checkpointIntervalMs: 1000 });
      files.before = ({ name }) => void (name.startsWith('store.bak') && taken.push(clock.now()));
      return { log, taken };
    }),
  );
  const writtenAt = clock.now();
  for (const { log } of copies) await write(log, [0, BLOCK]);
  await clock.run(clock.sleep(2000));
  const delays = copies.map(({ taken }) => taken[0]! - writtenAt);
  expect(Math.min(...delays)).toBeGreaterThan(500);
  expect(Math.max(...delays)).toBeLessThanOrEqual(1000);
  // No two of them, of 16 names that are spread evenly, come at one time.
  expect(new Set(delays.map((delay) => Math.floor(delay / 20))).size).toBe(16);
  for (const { log } of copies) await log.close();
});

describe('a commit that waits for a checkpoint because the log is full', () => {
  const turned = (): Promise<void> => new Promise(setImmediate);

  it('is not made firm by that checkpoint: an overwrite of its cells is announced', async () => {
    const files = newFiles();
    const log = await open(files);
    await write(log, [0, 10]);
    let release!: () => void;
    let closed = new Promise<void>((resolve) => (release = resolve));
    files.before = ({ kind, name }) => (kind === 'sync' && name.startsWith('store.bak') ? closed : undefined);
    // Announcements fill both logs while the first checkpoint is held.
    const announce = (): Promise<boolean> =>
      Promise.race([
        log
          .begin()
          .intend(0, Uint8Array.of(1))
          .then(() => true),
        turned().then(() => false),
      ]);
    while (await announce());
    const committing = log.commit(await writeOnly(log, [5 * BLOCK, 10]));
    await turned();
    // Holds the first append to the next log after `BASED`. The commit's append follows it.
    const releaseCheckpoint = release;
    closed = new Promise<void>((resolve) => (release = resolve));
    const begun = new Promise<void>((resolve) => {
      files.before = ({ kind, name, offset }) => {
        if (kind !== 'write' || !name.startsWith('store.wil') || offset !== HEADER + FIRST_FRAME) return undefined;
        resolve();
        return closed;
      };
    });
    releaseCheckpoint();
    await begun;
    // The device lets a second write in as soon as the first one is about to be recorded.
    let isAnnounced = false;
    const intending = log
      .begin()
      .intend(5 * BLOCK + 20, Uint8Array.of(1))
      .then(() => (isAnnounced = true));
    await turned();
    expect(isAnnounced).toBe(false);
    release();
    await Promise.all([committing, intending]);
    await log.close();
  });
});

describe('recovering', () => {
  /** Files after a crash: a log with a commit that no flush followed. */
  async function crashed(): Promise<TestFiles> {
    const files = newFiles();
    const log = await open(files, { identity: 'one' });
    await write(log, [0, BLOCK]);
    await log.flush();
    await write(log, [2 * BLOCK, 100]);
    return afterCrash(files);
  }

  it('changes no file until `prepare`, and `close` ends the ownership', async () => {
    const format1Files = new Map(
      Object.entries({ 'store.bak': format1('BAK', 0, 0), 'store.wil': format1('WIL', 1, 3, 2, 4, 50, 100) }).map(
        ([name, bytes]) => [name, { bytes, size: bytes.length }] as const,
      ),
    );
    const states: [name: string, files: TestFiles, blocks: number[]][] = [
      ['no log', newFiles(), []],
      ['a crash', await crashed(), [0]],
      ['a power cut', afterPowerCut(await crashed()), [0]],
      ['format 1', new TestFiles(format1Files), [3]],
    ];
    for (const [name, files, blocks] of states) {
      const before = files.images();
      const recovered = await recoverIntentLog(optionsOf(files, { identity: 'one' }));
      expect(synced(recovered), name).toEqual(blocks);
      expect(recovered.isNew, name).toBe(name === 'no log');
      expect(files.calls, name).toEqual([]);
      expect(files.images(), name).toEqual(before);
      await expect(open(files), name).rejects.toMatchObject({ code: 'COD_LOCKED' });
      await recovered.close();
      await recovered.close();
      expect(files.images(), name).toEqual(before);
      await (await open(files, { identity: 'one' })).close();
    }
  });

  it('leaves a log after `prepare`, independent of later calls', async () => {
    const files = newFiles();
    const recovered = await recoverIntentLog(optionsOf(files, { identity: 'one' }));
    await recovered.prepare();
    const last = files.calls.at(-1);
    expect([last?.kind, last?.name]).toEqual(['sync', 'store.bak']);
    await recovered.close();
    const next = await recoverIntentLog(optionsOf(afterPowerCut(files)));
    expect([next.isNew, next.identity, next.blocks.count]).toEqual([false, 'one', 0]);
    await next.close();
  });

  it('gives a log whose storage is made between `prepare` and `begin`', async () => {
    const files = await crashed();
    const recovered = await recoverIntentLog(optionsOf(files, { identity: 'one' }));
    expect([recovered.size, recovered.blockSize, recovered.identity]).toEqual([SIZE, BLOCK, 'one']);
    expect(recovered.dirty.parts(2)).toEqual([[0, 100]]);
    await recovered.prepare();
    const { storage } = files;
    const log = await recovered.begin(storage);
    storageOf.set(log, storage);
    // The recovered state is durable before the first write.
    expect(storage.syncs).toBeGreaterThan(0);
    await write(log, [2 * BLOCK + 100, BLOCK - 100]);
    expect(synced(log)).toEqual([0, 2]);
    await log.close();
  });

  it('writes what it believed once more, and syncs it before it takes a checkpoint', async () => {
    const files = newFiles();
    const log = await open(files);
    await write(log, [0, BLOCK]);
    await log.flush();
    await write(log, [2 * BLOCK, 100], [4 * BLOCK, 2 * BLOCK]);
    const after = afterCrash(files);
    const calls: string[] = [];
    const storage: LogStorage = {
      read: (into, offset) => after.storage.read(into, offset),
      write: async (from, offset) => {
        const present = new Uint8Array(from.length);
        await after.storage.read(present, offset);
        expect(from).toEqual(present);
        calls.push(`write ${offset} + ${from.length}`);
      },
      sync: async () => void calls.push('sync'),
    };
    after.before = ({ kind, name }) => void calls.push(`${kind} ${name}`);
    const reopened = await open(after, { storage });
    const again = [`write ${2 * BLOCK} + ${BLOCK}`, `write ${4 * BLOCK} + ${2 * BLOCK}`];
    expect(calls.filter((call) => call.startsWith('write ') && /\d$/.test(call) && !call.includes('store'))).toEqual(
      again,
    );
    expect(calls.indexOf(again[1]!)).toBeLessThan(calls.indexOf('sync'));
    expect(calls.indexOf('sync')).toBeLessThan(calls.lastIndexOf('write store.bak'));
    await reopened.close();
    await log.close();
  });

  it('reports size and identity of the log, and leaves the comparison to the engine', async () => {
    const files = await crashed();
    const recovered = await recoverIntentLog(optionsOf(files, { size: 5, identity: 'other', blockSize: 8192 }));
    expect([recovered.size, recovered.blockSize, recovered.identity]).toEqual([SIZE, BLOCK, 'one']);
    await recovered.close();
  });

  it('is closed by its log once the log has begun', async () => {
    const files = newFiles();
    const recovered = await recoverIntentLog(optionsOf(files));
    await recovered.prepare();
    const log = await recovered.begin(files.storage);
    storageOf.set(log, files.storage);
    await write(log, [0, BLOCK]);
    await recovered.close();
    await expect(log.flush()).rejects.toMatchObject({ code: 'COD_CLOSED' });
    const next = await open(files);
    await recovered.close();
    await expect(open(files)).rejects.toMatchObject({ code: 'COD_LOCKED' });
    expect(synced(next)).toEqual([0]);
    await next.close();
  });

  it('releases the ownership of a damaged log', async () => {
    const files = await crashed();
    const log = await files.open('store.wil.1');
    await log.write(Uint8Array.of(1), 20);
    await expect(open(files, { identity: 'one' })).rejects.toMatchObject({ code: 'COD_CORRUPT' });
    await expect(open(files, { identity: 'one' })).rejects.toMatchObject({ code: 'COD_CORRUPT' });
  });
});
