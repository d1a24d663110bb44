/** The store of examples/storage-engine with a crash at each of its storage operations. */

import { readFile } from 'node:fs/promises';
import { pathToFileURL } from 'node:url';
import { describe, expect, it } from 'vitest';
import type { Environment, FileSystem } from '../../src/log.ts';
import { CrashFailure, type ExplorerOptions, exploreCrashes, type Life, type Story } from '../../src/testing/index.ts';
import { bundleUser } from '../support/own-package.ts';

/** The exports of examples/storage-engine/store.js. */
interface Store {
  get(slot: number): Promise<Uint8Array>;
  put(slot: number, value: Uint8Array): Promise<void>;
  flush(): Promise<void>;
  close(): Promise<void>;
}

interface Original {
  readonly identity: string;
  read(slot: number): Promise<Uint8Array>;
}

interface StoreModule {
  readonly SLOT_BYTES: number;
  openSlotStore(options: {
    fileSystem: FileSystem;
    name: string;
    slotCount: number;
    original: Original;
    environment: Environment;
  }): Promise<Store>;
}

const SLOT_BYTES = 64;
/** One whole block of 64 slots and a short block. */
const SLOT_COUNT = 72;
/** Few slots, so that users collide: in both blocks, and in one sector. */
const USED_SLOTS = [0, 1, 2, 62, 63, 64, 71];
const USERS = 3;
const STEPS = 5;
const SEEDS = Number(process.env['COD_STORE_SEEDS'] ?? 2);

const source = await readFile(new URL('../../examples/storage-engine/store.js', import.meta.url), 'utf8');

async function load(contents = source): Promise<StoreModule> {
  // The bundle has its own copy of roaring-wasm, which must be compiled before simulated time begins.
  const warmUp = `
    import { openIntentLog } from 'copyondemand/log';
    import { memfsFileSystem } from 'copyondemand/memfs';
    const storage = { read: async () => {}, sync: async () => {} };
    await (await openIntentLog({ fileSystem: memfsFileSystem(), name: 'warm', size: 1, storage })).close();
  `;
  const path = await bundleUser(contents + warmUp);
  return (await import(/* @vite-ignore */ pathToFileURL(path).href)) as StoreModule;
}

/** A slot that repeats one number. */
function slotOf(value: number): Uint8Array {
  return new Uint8Array(new Uint32Array(SLOT_BYTES / 4).fill(value).buffer);
}

/** @throws Error if the slot contains several numbers */
function numberIn(slot: Uint8Array): number {
  const words = new Uint32Array(slot.buffer, slot.byteOffset, SLOT_BYTES / 4);
  if (words.some((word) => word !== words[0])) throw new Error(`a slot is a mixture: ${words.join(' ')}`);
  return words[0]!;
}

interface Put {
  readonly value: number;
  isCommitted: boolean;
  isFlushed: boolean;
}

/** The values that a slot may hold. Puts to one slot take effect in the order of their calls. */
class SlotHistory {
  #base: number;
  #puts: Put[] = [];

  constructor(base: number) {
    this.#base = base;
  }

  begin(value: number): Put {
    const put: Put = { value, isCommitted: false, isFlushed: false };
    this.#puts.push(put);
    return put;
  }

  get committed(): readonly Put[] {
    return this.#puts.filter(({ isCommitted }) => isCommitted);
  }

  /** The allowed values: the last put that counts, and later puts. */
  allowed(counts: (put: Put) => boolean): number[] {
    const last = this.#puts.findLastIndex(counts);
    const later = this.#puts.slice(Math.max(last, 0)).map(({ value }) => value);
    return last < 0 ? [this.#base, ...later] : later;
  }

  settle(found: number): void {
    this.#base = found;
    this.#puts = [];
  }
}

function storeStory({ openSlotStore }: StoreModule): Story {
  const histories = Array.from({ length: SLOT_COUNT }, (_, slot) => new SlotHistory(1000 + slot));
  let lastValue = 1_000_000;
  /** The recovered store, which this life continues to use. */
  let store: Store | undefined;
  let isPowerLost = false;

  const open = ({ fileSystem, clock, random }: Life): Promise<Store> =>
    openSlotStore({
      fileSystem,
      name: 'slots',
      slotCount: SLOT_COUNT,
      original: {
        identity: 'version 1',
        read: async (slot) => {
          await clock.sleep(random.below(10));
          return slotOf(1000 + slot);
        },
      },
      environment: { clock, randomBytes: (into) => random.fill(into) },
    });

  const check = async (from: Store, slot: number, counts: (put: Put) => boolean): Promise<number> => {
    const before = new Set(histories[slot]!.allowed(counts));
    const found = numberIn(await from.get(slot));
    if (!before.has(found) && !histories[slot]!.allowed(counts).includes(found))
      throw new Error(`slot ${slot} is ${found}; allowed are ${[...before].join(', ')}`);
    return found;
  };

  const step = async (to: Store, { clock, random }: Life): Promise<void> => {
    const slot = USED_SLOTS[random.below(USED_SLOTS.length)]!;
    const history = histories[slot]!;
    switch (random.below(8)) {
      case 0:
      case 1: {
        const committed = histories.flatMap((each) => each.committed);
        await to.flush();
        for (const put of committed) put.isFlushed = true;
        return;
      }
      case 2:
      case 3: {
        const committed = new Set(history.committed);
        await check(to, slot, (put) => committed.has(put));
        return;
      }
      case 4:
        // Longer than the checkpoint interval.
        return clock.sleep(12_000);
      default: {
        const put = history.begin(++lastValue);
        await to.put(slot, slotOf(put.value));
        put.isCommitted = true;
      }
    }
  };

  return {
    work: async (life) => {
      const opened = store ?? (await open(life));
      store = undefined;
      const user = async (): Promise<void> => {
        for (let count = 0; count < STEPS; count++) await step(opened, life);
      };
      await Promise.all(Array.from({ length: USERS }, user));
      await opened.close();
    },
    recover: async (life) => {
      isPowerLost ||= life.crash !== 'process';
      const opened = await open(life);
      const counts = isPowerLost ? (put: Put) => put.isFlushed : (put: Put) => put.isCommitted;
      const slots = life.isLast ? histories.keys() : USED_SLOTS;
      const checks = Array.from(slots, async (slot) => [slot, await check(opened, slot, counts)] as const);
      // A recovered store is durable, so these are the contents of the slots from now on.
      for (const [slot, value] of await Promise.all(checks)) histories[slot]!.settle(value);
      isPowerLost = false;
      if (life.isLast) await opened.close();
      else store = opened;
    },
  };
}

/** The kernel writes each page as a whole, and a slot is within a page: a process crash never tears a slot. */
function optionsOf(more: ExplorerOptions): ExplorerOptions {
  return {
    fileSystem: { tearBytes: SLOT_BYTES },
    settle: () => new Promise(process.nextTick),
    ...more,
  };
}

async function failureOf(module: StoreModule, options: ExplorerOptions): Promise<CrashFailure | undefined> {
  try {
    await exploreCrashes(() => storeStory(module), options);
    return undefined;
  } catch (error) {
    if (error instanceof CrashFailure) return error;
    throw error;
  }
}

describe('the store of examples/storage-engine', () => {
  it.each([
    ['loses no committed slot when its process dies at any operation', 'process'],
    ['loses no flushed slot when power is cut at any operation', 'power'],
    ['loses no flushed slot when its volume is lost at any operation', 'loss'],
    ['keeps its promises when all kinds of crash alternate', 'mixed'],
  ] as const)('%s', async (_, kind) => {
    const module = await load();
    expect(module.SLOT_BYTES).toBe(SLOT_BYTES);
    for (let seed = 0; seed < SEEDS; seed++) {
      const options = optionsOf({ kind, seed, crashes: 3 });
      const figures = await exploreCrashes(() => storeStory(module), options);
      expect(figures.crashes).toBeGreaterThan(figures.stories);
      expect(figures.stories).toBeGreaterThan(40);
    }
  });

  /** Loads the store with part of its code replaced. */
  async function loadWith(find: string, replace: string): Promise<StoreModule> {
    const changed = source.replace(find, () => replace);
    expect(changed).not.toBe(source);
    return load(changed);
  }

  const intend = '    await transaction.intend(slot * SLOT_BYTES, value);\n';
  const write = '    await this.#file.write(value, slot * SLOT_BYTES);\n';
  const flush = '    await this.#log.flush();\n';
  const commit = '    await this.#log.commit(transaction);\n';

  it.each([
    ['commits before it writes, and flushes in between', 'process', write + commit, commit + flush + write],
    ['does not wait for its write before it commits', 'process', write, write.replace('await', 'void')],
    ['resolves before the commit', 'process', commit, commit.replace('await', 'void')],
    ['announces a write after it', 'process', intend + write, write + intend],
    [
      'lets the writes of one cell overlap',
      'process',
      '(slot * SLOT_BYTES) / CELL_BYTES);\n    const before',
      'slot);\n    const before',
    ],
    ['recovers without its file', 'process', 'file && { storage: file }', 'false'],
    [
      'reports a sync that never happened',
      'power',
      'recovered.begin(file)',
      'recovered.begin({ read: (into, offset) => file.read(into, offset), sync() {} })',
    ],
    [
      'overwrites a newer value with a value of the original',
      'process',
      'if (!this.#has(slot)) await this.#write',
      'await this.#write',
    ],
  ] as const)('is found faulty if it %s', async (_, kind, find, replace) => {
    const module = await loadWith(find, replace);
    let failure: CrashFailure | undefined;
    for (let seed = 0; seed < 20 && failure === undefined; seed++)
      failure = await failureOf(module, optionsOf({ kind, seed, crashes: 1 }));
    expect(failure?.message).toMatch(/^slot \d+ is \d+|^slots has 0 bytes/);
    expect(failure?.message).toContain('replay: {"version":1,');
  });
});
