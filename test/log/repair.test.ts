/**
 * Repair of damaged metadata. Each state of a copy, with any one file damaged: after the repair every byte is as
 * promised, or the source's, of which there are at most as many as the plan says. A plan that says that nothing is lost
 * is held to that.
 */

import { describe, expect, it } from 'vitest';
import { CodError, inspectMetadata, isCodError } from '../../src/index.ts';
import { type RepairPlan, repairIn } from '../../src/log/repair.ts';
import {
  CrashingFileSystem,
  exploreCrashes,
  type Life,
  SimulatedClock,
  type Story,
  seededRandom,
} from '../../src/testing/index.ts';
import type { Counting } from '../support/byte-history.ts';
import { effort } from '../support/effort.ts';
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

const HEADER_BYTES = 512;
/** The states of each operation that are damaged: a repair reads every log as a whole, several times. */
const STEPS = effort('COD_REPAIR_STEPS', { short: 1, long: 6 });
/** At most so many sectors of a file are damaged, the header among them. */
const SECTORS = effort('COD_REPAIR_SECTORS', { short: 8, long: 1e6 });
/** Of the bits of a long log, every so many is flipped. */
const LONG_STRIDE = effort('COD_REPAIR_STRIDE', { short: 19_997, long: 1499 });
const METADATA = ['disk.bak', 'disk.bak.1', 'disk.wil', 'disk.wil.1'];
const environment = { clock: new SimulatedClock(), randomBytes: (into: Uint8Array) => void into.fill(99) };

const atRest = await statesAtRest();
const inBetween = await statesInBetween();
const { state: longLog } = await statesWithLongLog();

function repair(files: MemoryFiles, apply = true): Promise<RepairPlan> {
  return repairIn(environment, { fileSystem: files, target: 'disk', apply });
}

function withFile(images: Images, name: string, image: Image | undefined): Images {
  const changed = new Map(images);
  if (image === undefined) changed.delete(name);
  else changed.set(name, image);
  return changed;
}

/** The damages of one file. */
function* damages(state: State, name: string, image: Image, stride: number): Generator<[string, Image | undefined]> {
  const random = seededRandom(stride);
  const { bytes, size } = image;
  yield ['deleted', undefined];
  for (let bit = random.below(stride); bit < bytes.length * 8; bit += stride) {
    const flipped = bytes.slice();
    flipped[bit >> 3]! ^= 1 << (bit & 7);
    yield [`bit ${bit} flipped`, { bytes: flipped, size }];
  }
  const step = HEADER_BYTES * Math.ceil(bytes.length / HEADER_BYTES / SECTORS);
  for (let at = 0; at < bytes.length; at += step)
    yield [`sector at ${at} zeroed`, { bytes: bytes.slice().fill(0, at, at + HEADER_BYTES), size }];
  for (let at = 0; at < bytes.length; at += step) {
    const junk = bytes.slice();
    random.fill(junk.subarray(at, at + HEADER_BYTES));
    yield [`sector at ${at} random`, { bytes: junk, size }];
  }
  for (const cut of [1, 100, 511, 513, 600, 1024, size - 4096])
    if (cut > 0 && cut < size) yield [`cut at ${cut}`, { bytes: bytes.subarray(0, cut), size: cut }];
  for (const [version, earlier] of (state.earlier.get(name) ?? []).entries()) {
    // A log of the same epoch with fewer frames is a possible state, not damage.
    const isSameLog =
      name.includes('wil') && Buffer.compare(earlier.bytes.subarray(0, 512), bytes.subarray(0, 512)) === 0;
    if (!isSameLog && earlier.bytes[8] !== 1) yield [`put back to version ${version}`, earlier];
  }
}

interface Tally {
  refused: number;
  whole: number;
  lossy: number;
  /** Damages that are no damage, or that only a person can repair. */
  readonly others: Map<string, number>;
  failures: string[];
}

function newTally(): Tally {
  return { refused: 0, whole: 0, lossy: 0, others: new Map(), failures: [] };
}

async function codeOf(work: () => Promise<unknown>): Promise<string | undefined> {
  try {
    await work();
    return undefined;
  } catch (error) {
    if (error instanceof CodError) return error.code;
    throw error;
  }
}

/** Opens the copy, which must work, and compares every byte. */
async function compare(state: State, files: MemoryFiles, plan: RepairPlan, promised: Counting): Promise<void> {
  const device = await open(files);
  const found = new Uint8Array(SIZE);
  await device.read(found, 0);
  await device.close();
  if (plan.lostBytes > 0) {
    const newest = SOURCE.slice();
    for (const event of state.events) if (event !== 'flushed') newest.set(event.bytes, event.offset);
    let lost = 0;
    for (let at = 0; at < SIZE; at++) {
      if (found[at] !== SOURCE[at] || found[at] === newest[at]) continue;
      lost++;
      found[at] = newest[at]!;
    }
    if (lost > plan.lostBytes) throw new Error(`${lost} bytes are lost, but the plan says ${plan.lostBytes}`);
  }
  const wrong = violation(state, found, promised);
  if (wrong !== undefined) throw new Error(wrong);
}

async function check(state: State, images: Images, damaged: string, promised: Counting, tally: Tally): Promise<void> {
  if ((await codeOf(async () => (await open(new MemoryFiles(images))).close())) !== 'COD_CORRUPT') return;
  tally.refused++;
  try {
    const files = new MemoryFiles(images);
    const before = files.images();
    const planned = await repair(files, false);
    expect(files.images()).toEqual(before);
    const plan = await repair(files);
    expect(plan).toEqual(planned);
    expect(plan.problems).not.toEqual([]);
    const after = files.images();
    for (const name of METADATA) expect(after.get(`${name}.old`), name).toEqual(before.get(name));
    expect(METADATA.filter((name) => after.has(name)).length).toBe(1);
    expect(await repair(files)).toMatchObject({ problems: [], copiedBytes: plan.copiedBytes });
    await compare(state, files, plan, promised);
    if (plan.lostBytes === 0) tally.whole++;
    else tally.lossy++;
  } catch (error) {
    if (isCodError(error, 'COD_CORRUPT') || isCodError(error, 'COD_EXISTS'))
      tally.others.set(error.message, (tally.others.get(error.message) ?? 0) + 1);
    else tally.failures.push(`${state.name}, ${damaged}: ${(error as Error).message}`);
  }
}

async function checkAll(state: State, target: 'left' | 'synced', stride: number, tally: Tally): Promise<void> {
  for (const [name, image] of state.images) {
    if (name === 'disk' || image.bytes[8] === 1) continue;
    for (const [what, damaged] of damages(state, name, image, stride)) {
      const images = withFile(state.images, name, damaged);
      const all = target === 'left' ? images : withFile(images, 'disk', state.syncedTarget);
      const promised = target === 'left' && !name.includes('wil') ? 'acknowledged' : 'durable';
      await check(state, all, `target as ${target}, ${name} ${what}`, promised, tally);
    }
  }
}

describe.each(['left', 'synced'] as const)('with the target as %s', (target) => {
  it.each([...atRest, longLog])('$name is repaired, whatever one file has become', async (state) => {
    const tally = newTally();
    await checkAll(state, target, state === longLog ? LONG_STRIDE : 1499, tally);
    expect(tally.failures).toEqual([]);
    expect([...tally.others]).toEqual([]);
    expect(tally.whole + tally.lossy).toBe(tally.refused);
    expect(tally.refused).toBeGreaterThan(20);
  });

  it.each(inBetween)('$name is repaired at some of its steps', async ({ states }) => {
    const tally = newTally();
    const stride = Math.ceil(states.length / STEPS);
    for (const [index, state] of states.entries())
      if (index % stride === stride - 1) await checkAll(state, target, 9973, tally);
    expect(tally.failures).toEqual([]);
    expect([...tally.others]).toEqual([]);
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
      samples: 24,
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
