/**
 * Repair of every state of the damage suite. After it every byte is as promised, or the source's: the latter only where
 * the plan says, and at most as many bytes as it says. A plan that says that nothing is lost is held to that.
 */

import { describe, expect, it } from 'vitest';
import { SLICE_BLOCKS } from '../../src/core/layout.ts';
import { openDeviceIn } from '../../src/device/open.ts';
import { readNamed } from '../../src/fs/inline-file.ts';
import { inspectMetadata, isCodError } from '../../src/index.ts';
import { recover } from '../../src/log/recovery.ts';
import { type RepairPlan, repairIn } from '../../src/log/repair.ts';
import { type Part, readPart, salvage } from '../../src/log/salvage.ts';
import { ALL_SLOTS, Slots, slotName } from '../../src/log/slots.ts';
import { CrashingFileSystem, exploreCrashes, type Life, SimulatedClock, type Story } from '../../src/testing/index.ts';
import { Core } from '../../src/wasm/core.ts';
import type { Counting } from '../support/byte-history.ts';
import { effort } from '../support/effort.ts';
import {
  codeOf,
  type Damage,
  flippedBits,
  foreignFiles,
  isFormat1Alone,
  isLogDamaged,
  lostSectors,
  METADATA,
  replacements,
  swappedSlots,
  truncations,
  withFile,
} from './damages.ts';
import { type Image, type Images, MemoryFiles } from './memory-files.ts';
import {
  open,
  SIZE,
  SOURCE,
  type State,
  statesAtRest,
  statesInBetween,
  statesWithLongLog,
  violation,
} from './states.ts';

/** Of the bits and lengths of a file, every so many is damaged: a repair reads every log as a whole, several times. */
const STRIDE = effort('COD_REPAIR_STRIDE', { short: 151, long: 31 });
/** The same for states at rest, whose damages are all tried. */
const REST_STRIDE = effort('COD_REPAIR_REST_STRIDE', { short: 293, long: 31 });
/** Power cuts of one kind of damage, during its repair. */
const CUTS = effort('COD_REPAIR_CUTS', { short: 150, long: 400 });
/** Of the damages at the steps of an operation, and of those in a long log, every so many is repaired. */
const EVERY = effort('COD_REPAIR_EVERY', { short: 23, long: 5 });
const environment = { clock: new SimulatedClock(), randomBytes: (into: Uint8Array) => void into.fill(99) };

const atRest = await statesAtRest();
const inBetween = await statesInBetween();
const { flushed: flushedLog, state: longLog } = await statesWithLongLog();
const core = Core.create();

/** Whether the target is as it was left, or as of its last sync. */
type TargetFile = 'left' | 'synced';

function repair(files: MemoryFiles, apply = true): Promise<RepairPlan> {
  return repairIn(environment, { fileSystem: files, target: 'disk', apply });
}

/** Opens the copy, which must work, and compares every byte. */
async function compare(state: State, files: MemoryFiles, plan: RepairPlan, promised: Counting): Promise<void> {
  const device = await open(files);
  const found = new Uint8Array(SIZE);
  await device.read(found, 0);
  await device.close();
  // What was not promised was never to be recorded, so the plan need not know of it.
  const last = promised === 'durable' ? state.events.lastIndexOf('flushed') : state.events.length;
  const newest = SOURCE.slice();
  for (const event of state.events.slice(0, Math.max(0, last)))
    if (event !== 'flushed') newest.set(event.bytes, event.offset);
  let lost = 0;
  for (const { offset, length } of plan.lost) {
    for (let at = offset; at < offset + length; at++) {
      if (found[at] !== SOURCE[at] || found[at] === newest[at]) continue;
      lost++;
      found[at] = newest[at]!;
    }
  }
  if (lost > plan.lostBytes) throw new Error(`${lost} bytes are lost, but the plan says ${plan.lostBytes}`);
  const wrong = violation(state, found, promised);
  if (wrong !== undefined) throw new Error(wrong);
}

/** Repairs damaged files of a state, and collects the failures. */
class Repairer {
  readonly state: State;
  readonly failures: string[] = [];
  /** Damages that recovery refuses, and those of them of which the plan says that bytes are lost. */
  refused = 0;
  lossy = 0;
  /** Damages that only a person can repair. */
  readonly others: string[] = [];
  readonly #target: TargetFile;
  readonly #seen = new Set<string>();

  constructor(state: State, target: TargetFile) {
    this.state = state;
    this.#target = target;
  }

  /**
   * Repairs each copy that is refused as damaged. Kind of damage and salvaged state determine all that a repair does,
   * so one of each is repaired and compared; of the others, only the state is salvaged.
   */
  async checkAll(damages: Iterable<Damage> | AsyncIterable<Damage>): Promise<void> {
    const { stackTraceLimit } = Error;
    Error.stackTraceLimit = 0;
    try {
      for await (const damage of damages) await this.#check(damage);
    } finally {
      Error.stackTraceLimit = stackTraceLimit;
    }
  }

  async #check({ what, kind, images: damaged }: Damage): Promise<void> {
    if (isFormat1Alone(this.state, damaged)) return;
    const images = this.#target === 'left' ? damaged : withFile(damaged, 'disk', this.state.syncedTarget);
    if ((await codeOf(() => recovered(images))) !== 'COD_CORRUPT') return;
    this.refused++;
    try {
      const isDurable = this.#target === 'synced' || isLogDamaged(this.state, damaged);
      const promised = isDurable ? 'durable' : 'acknowledged';
      const key = `${promised} ${kind} ${await salvaged(images)}`;
      if (this.#seen.has(key)) return;
      this.#seen.add(key);
      const files = new MemoryFiles(images);
      const plan = await repairedAs(files);
      if (plan.lostBytes > 0) this.lossy++;
      await compare(this.state, files, plan, promised);
    } catch (error) {
      const { message } = error as Error;
      if (isCodError(error, 'COD_CORRUPT') || isCodError(error, 'COD_EXISTS')) this.others.push(message);
      else this.failures.push(`${this.state.name}, target as ${this.#target}, ${what}: ${message}`);
    }
  }
}

/** Recovers the copy as opening it does. */
async function recovered(images: Images): Promise<void> {
  const files = new MemoryFiles(images);
  const target = {
    size: async () => images.get('disk')?.size ?? 0,
    read: (into: Uint8Array, offset: number) => readNamed(files, 'disk', into, offset),
  };
  (await recover(core, new Slots(files, 'disk', { readOnly: true }), target))?.state.dispose();
}

/** What the metadata still proves, as text. */
async function salvaged(images: Images): Promise<string> {
  const files = new MemoryFiles(images);
  const parts: Part[] = [];
  for (const { kind, slot } of ALL_SLOTS) {
    const name = slotName('disk', kind, slot);
    if (images.has(name)) parts.push(await readPart(core, { name, kind, slot, file: await files.open(name) }));
  }
  const read = (into: Uint8Array, offset: number): Promise<void> => readNamed(files, 'disk', into, offset);
  const found = await salvage({ core, clock: {}, read, targetBytes: images.get('disk')?.size }, parts);
  const { state, problems: _, ...rest } = found;
  const maps = [[...state.syncedRuns()], [...state.dirtyBlocks()], [...state.modified.runs()]];
  state.dispose();
  return JSON.stringify([maps, rest]);
}

function textOf(image: Image | undefined): string | undefined {
  return image && `${image.size} ${Buffer.from(image.bytes).toString('latin1')}`;
}

/** Plans and repairs, which must agree. */
async function repairedAs(files: MemoryFiles): Promise<RepairPlan> {
  const before = files.images();
  const planned = await repair(files, false);
  expect(files.calls).toEqual([]);
  const plan = await repair(files);
  expect(plan).toEqual(planned);
  expect(plan.problems).not.toEqual([]);
  const after = files.images();
  for (const name of METADATA) expect(textOf(after.get(`${name}.old`)), name).toBe(textOf(before.get(name)));
  expect(METADATA.filter((name) => after.has(name)).length).toBe(1);
  expect(await repair(files)).toMatchObject({ problems: [], copiedBytes: plan.copiedBytes, lostBytes: 0, lost: [] });
  return plan;
}

function* damagesOf(state: State, stride: number): Generator<Damage> {
  yield* flippedBits(state, stride);
  yield* truncations(state, stride);
  yield* replacements(state);
}

/** Every {@link EVERY}th damage, of each state others. */
function* sampled(from: number, damages: Iterable<Damage>): Generator<Damage> {
  let index = from;
  for (const damage of damages) if (index++ % EVERY === 0) yield damage;
}

describe.each(['left', 'synced'] as const)('with the target as %s', (target) => {
  it.each(atRest)('$name is repaired, whatever one file has become', async (state) => {
    const repairer = new Repairer(state, target);
    await repairer.checkAll(damagesOf(state, REST_STRIDE));
    if (METADATA.every((name) => state.images.has(name))) await repairer.checkAll(swappedSlots(state));
    expect(repairer).toMatchObject({ failures: [], others: [] });
    expect(repairer.refused).toBeGreaterThan(50);
    expect(repairer.lossy).toBeGreaterThan(state.name === 'a new copy' ? 0 : 3);
  });

  it.each(atRest)('$name is not repaired with a file of another copy', async (state) => {
    const repairer = new Repairer(state, target);
    await repairer.checkAll(foreignFiles(state));
    expect(repairer).toMatchObject({ failures: [], refused: 8, lossy: 0 });
    expect(repairer.others.filter((message) => message.includes('of different copies'))).toHaveLength(8);
  });

  it.each(inBetween)('$name is repaired with damage at each of its steps', async ({ states }) => {
    let refused = 0;
    for (const [index, state] of states.entries()) {
      const repairer = new Repairer(state, target);
      await repairer.checkAll(sampled(index, damagesOf(state, 11 * STRIDE)));
      // Before the target has its size, a copy holds nothing.
      const others = repairer.others.filter((message) => !message.startsWith('neither metadata nor target say'));
      const isNew = state.images.get('disk') === undefined || state.images.get('disk')!.size === 0;
      expect({ failures: repairer.failures, others: isNew ? others : repairer.others }).toEqual({
        failures: [],
        others: [],
      });
      refused += repairer.refused;
    }
    expect(refused).toBeGreaterThan(states.length / 2);
  });

  it.each([flushedLog, longLog])('$name is repaired without any of its sectors', async (state) => {
    const repairer = new Repairer(state, target);
    const used = state.images.get('disk.wil')!.bytes.length;
    await repairer.checkAll(lostSectors(state, 0, used));
    await repairer.checkAll(sampled(0, damagesOf(state, 11 * STRIDE)));
    expect(repairer).toMatchObject({ failures: [], others: [] });
    expect(repairer.refused).toBeGreaterThan(10);
  });
});

describe('what a damaged slice of a checkpoint said', () => {
  const slice = SLICE_BLOCKS * 4096;
  const size = 2 * slice + 3 * 4096;

  /** The plan for a closed copy, both of whose checkpoints `change` has damaged. */
  async function planOf(change: (bytes: Uint8Array) => void, ...writes: [offset: number, length: number][]) {
    const files = new CrashingFileSystem();
    const source = { size, read: async () => undefined, close: async () => undefined };
    const device = await openDeviceIn(environment, { source, fileSystem: files, target: 'disk', hydrate: false });
    await device.read(new Uint8Array(4096), 0);
    for (const [offset, length] of writes) await device.write(new Uint8Array(length).fill(1), offset);
    await device.checkpoint();
    // The log of this write survives.
    const [offset, length] = writes.at(-1)!;
    await device.write(new Uint8Array(length).fill(2), offset);
    await device.checkpoint();
    await device.close();
    // Also the older checkpoint: it and both logs would account for everything.
    for (const name of ['disk.bak', 'disk.bak.1']) {
      const file = await files.open(name);
      const bytes = new Uint8Array(await file.size());
      await file.read(bytes, 0);
      change(bytes);
      await file.write(bytes, 0);
    }
    return repairIn(environment, { fileSystem: files, target: 'disk', apply: false });
  }
  const zeroSlice = (index: number) => (bytes: Uint8Array) => {
    const at = Number(new DataView(bytes.buffer).getBigUint64(512 + 40 * index, true));
    bytes.fill(0, at, at + 8);
  };
  const writes: [number, number][] = [
    [4096, 100],
    [slice + 10, 4096],
    [2 * slice, 100],
  ];

  it('is lost there only, and no more of it than the directory says', async () => {
    expect(await planOf(zeroSlice(1), ...writes)).toMatchObject({
      lostBytes: 2 * 4096,
      lost: [{ offset: slice, length: slice }],
      losesIdentity: false,
    });
    expect(await planOf(zeroSlice(2), ...writes)).toMatchObject({
      lostBytes: 4096,
      lost: [{ offset: 2 * slice + 100, length: 3 * 4096 - 100 }],
    });
  });

  it('is nothing of users if it had no modified block', async () => {
    const [, ...others] = writes;
    expect(await planOf(zeroSlice(0), ...others)).toMatchObject({ lostBytes: 0, lost: [], modifiedBytes: 4196 });
  });

  it('is no more than the header says, if the directory is damaged', async () => {
    const plan = await planOf((bytes) => bytes.fill(0, 512, 600), ...writes);
    const lost = [
      { offset: 0, length: 2 * slice },
      { offset: 2 * slice + 100, length: 3 * 4096 - 100 },
    ];
    expect(plan).toMatchObject({ lostBytes: 4 * 4096, lost, losesIdentity: true });
  });
});

describe('a repair that is interrupted', () => {
  const state = atRest.at(-1)!;
  const flipped = (name: string, byte: number): Images => {
    const { bytes, size } = state.images.get(name)!;
    const changed = bytes.slice();
    changed[byte]! ^= 1;
    return withFile(state.images, name, { bytes: changed, size });
  };

  async function durableFiles(images: Images): Promise<CrashingFileSystem> {
    const files = new CrashingFileSystem();
    for (const [name, { bytes, size }] of images) {
      const file = await files.open(name, { create: true });
      await file.write(bytes, 0);
      await file.truncate(size);
      await file.sync();
      await file.close();
    }
    return files;
  }

  it.each([
    ['the header of one checkpoint', () => flipped('disk.bak', 42)],
    ['the header of the other checkpoint', () => flipped('disk.bak.1', 42)],
    ['the body of a checkpoint', () => flipped('disk.bak.1', 520)],
    ['the header of one log', () => flipped('disk.wil', 42)],
    ['the header of the other log', () => flipped('disk.wil.1', 42)],
    ['a lost checkpoint', () => withFile(state.images, 'disk.bak.1', undefined)],
  ])('is refused until it is complete, and continues with the same plan: %s', async (_, make) => {
    const images = make();
    const first = new MemoryFiles(images);
    if ((await codeOf(async () => (await open(new MemoryFiles(images))).close())) !== 'COD_CORRUPT') return;
    const { problems: _problems, ...plan } = await repair(first);
    const initial = await durableFiles(images);
    let isRepaired = false;
    const again = async ({ fileSystem }: Life): Promise<void> => {
      const done = await repairIn(environment, { fileSystem, target: 'disk', apply: true });
      if (done.problems.length > 0) expect(done).toMatchObject(plan);
      isRepaired = true;
    };
    const story = (): Story => {
      isRepaired = false;
      return {
        work: again,
        async recover(life) {
          const opened = await codeOf(async () => {
            const { copiedBytes } = await inspected(life.fileSystem);
            expect(copiedBytes).toBe(plan.copiedBytes);
          });
          if (isRepaired) expect(opened).toBeUndefined();
          else expect([undefined, 'COD_CORRUPT', 'COD_EXISTS']).toContain(opened);
          await again(life);
        },
      };
    };
    const figures = await exploreCrashes(story, {
      initial,
      kind: 'power',
      crashes: 3,
      seed: 7,
      samples: CUTS,
      settle: () => new Promise(process.nextTick),
    });
    expect(figures.crashes).toBeGreaterThan(20);
  });
});

/** What a copy that opens holds: a plan of a repair that has nothing to do. */
async function inspected(fileSystem: CrashingFileSystem): Promise<RepairPlan> {
  const { size } = await inspectMetadata(fileSystem, 'disk');
  const plan = await repairIn(environment, { fileSystem, target: 'disk', apply: false });
  expect(plan).toMatchObject({ size, problems: [] });
  return plan;
}
