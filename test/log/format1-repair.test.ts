/**
 * Repair of damaged files of format 1: every golden state, with one file damaged. Format 1 has no checksums, so only
 * damage that recovery notices is repaired. What survives is then part of the state, and the plan says what is not.
 */

import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { inspectMetadata } from '../../src/index.ts';
import { type RepairPlan, repairIn } from '../../src/log/repair.ts';
import {
  CrashingFileSystem,
  exploreCrashes,
  type Life,
  SimulatedClock,
  type Story,
  seededRandom,
} from '../../src/testing/index.ts';
import { effort } from '../support/effort.ts';
import { codeOf, withFile } from './damages.ts';
import { type Image, type Images, MemoryFiles } from './memory-files.ts';
import { format1State, open, SIZE, SOURCE, violation } from './states.ts';

const BLOCK = 4096;
/** The bits of a file that are flipped behind its header. */
const BITS = effort('COD_FORMAT1_BITS', { short: 4, long: 60 });
/** Of the damages of a golden state, every so many is repaired. */
const EVERY = effort('COD_FORMAT1_EVERY', { short: 5, long: 1 });
const environment = { clock: new SimulatedClock(), randomBytes: (into: Uint8Array) => void into.fill(99) };
const folder = new URL('../fixtures/golden/', import.meta.url);
const goldenStates = readdirSync(folder, { withFileTypes: true }).filter((entry) => entry.isDirectory());

type Run = readonly [start: number, end: number];

interface Expected {
  readonly deviceSize: number;
  readonly synced: readonly Run[];
  readonly dirty: readonly { readonly block: number; readonly ranges: readonly Run[] }[];
}

function readGolden(name: string): { images: Images; expected: Expected } {
  const url = new URL(`${name}/`, folder);
  const expected = JSON.parse(readFileSync(new URL('expected.json', url), 'utf8')) as Expected;
  const images = new Map<string, Image>([['disk', { bytes: new Uint8Array(0), size: expected.deviceSize }]]);
  for (const file of readdirSync(url)) {
    if (file === 'expected.json') continue;
    const bytes = new Uint8Array(readFileSync(new URL(file, url)));
    images.set(file.replace('disk.raw', 'disk'), { bytes, size: bytes.length });
  }
  return { images, expected };
}

/** The bytes that the target holds, as ascending runs that do not touch. */
function heldBytes({ synced, dirty }: Pick<Expected, 'synced' | 'dirty'>, size: number): Run[] {
  const runs = synced.map(([first, last]): Run => [first * BLOCK, Math.min((last + 1) * BLOCK, size)]);
  for (const { block, ranges } of dirty)
    for (const [offset, length] of ranges) runs.push([block * BLOCK + offset, block * BLOCK + offset + length]);
  runs.sort((one, other) => one[0] - other[0]);
  const merged: [number, number][] = [];
  for (const [start, end] of runs) {
    const last = merged.at(-1);
    if (last !== undefined && start <= last[1]) last[1] = Math.max(last[1], end);
    else merged.push([start, end]);
  }
  return merged;
}

/** The bytes of `runs` that are not in `others`. */
function without(runs: readonly Run[], others: readonly Run[]): Run[] {
  const left: Run[] = [];
  let index = 0;
  for (const [start, end] of runs) {
    let at = start;
    while (index < others.length && others[index]![1] <= at) index++;
    for (let next = index; next < others.length && others[next]![0] < end; next++) {
      const [from, to] = others[next]!;
      if (from > at) left.push([at, from]);
      at = Math.max(at, to);
    }
    if (at < end) left.push([at, end]);
  }
  return left;
}

function* damages(images: Images): Generator<{ what: string; images: Images }> {
  const random = seededRandom(4);
  for (const [name, { bytes }] of images) {
    if (name === 'disk') continue;
    const damaged = (what: string, change: (bytes: Uint8Array) => Uint8Array | undefined) => {
      const changed = change(bytes.slice());
      const image = changed && { bytes: changed, size: changed.length };
      return { what: `${name} ${what}`, images: withFile(images, name, image) };
    };
    const bits = Array.from({ length: 12 }, (_, index) => index * 11);
    for (let count = 0; count < BITS && bytes.length > 16; count++) bits.push(random.below(bytes.length * 8));
    for (const bit of bits)
      yield damaged(`with bit ${bit} flipped`, (changed) => {
        changed[bit >> 3]! ^= 1 << (bit & 7);
        return changed;
      });
    for (const length of [1, 7, 15, 16, 20, 100, bytes.length - 9, bytes.length - 1])
      if (length >= 0 && length < bytes.length) yield damaged(`of ${length} bytes`, (all) => all.subarray(0, length));
    for (const at of [0, 16, random.below(bytes.length), bytes.length - 30]) {
      if (at < 0) continue;
      yield damaged(`random at ${at}`, (changed) => {
        random.fill(changed.subarray(at, at + 512));
        return changed;
      });
      yield damaged(`zeroed at ${at}`, (changed) => changed.fill(0, at, at + 512));
    }
    yield damaged('deleted', () => undefined);
  }
}

function repair(files: MemoryFiles, apply: boolean): Promise<RepairPlan> {
  return repairIn(environment, { fileSystem: files, target: 'disk', apply });
}

/** Repairs the copy, and checks what changed. Returns undefined if recovery does not notice the damage. */
async function repaired(images: Images): Promise<{ files: MemoryFiles; plan: RepairPlan } | undefined> {
  if ((await codeOf(() => inspectMetadata(new MemoryFiles(images), 'disk'))) !== 'COD_CORRUPT') return undefined;
  const files = new MemoryFiles(images);
  const planned = await repair(files, false);
  expect(files.calls).toEqual([]);
  const plan = await repair(files, true);
  // Plans may have 10^5 extents.
  expect(JSON.stringify(plan) === JSON.stringify(planned)).toBe(true);
  expect(plan.problems).not.toEqual([]);
  const after = files.images();
  for (const [name, { bytes, size }] of images) {
    const saved = after.get(name === 'disk' ? name : `${name}.old`);
    expect(saved?.size, name).toBe(size);
    if (name !== 'disk') expect(Buffer.compare(saved!.bytes, bytes.subarray(0, saved!.bytes.length)), name).toBe(0);
  }
  expect(await repair(files, true)).toMatchObject({ problems: [], copiedBytes: plan.copiedBytes });
  return { files, plan };
}

describe.each(goldenStates)('the state $name of format 1, damaged,', ({ name }) => {
  it('is repaired: what survives is part of it, and what is lost is where the plan says', async () => {
    const { images, expected } = readGolden(name);
    const held = heldBytes(expected, expected.deviceSize);
    let refused = 0;
    /** A file counts as a whole or not at all, so there are few outcomes. */
    const seen = new Set<string>();
    for (const [index, { what, images: damaged }] of [...damages(images)].entries()) {
      if (index % EVERY !== 0) continue;
      if ((await codeOf(() => inspectMetadata(new MemoryFiles(damaged), 'disk'))) !== 'COD_CORRUPT') continue;
      refused++;
      const { problems: _, ...outcome } = await repair(new MemoryFiles(damaged), false);
      const key = JSON.stringify(outcome);
      if (seen.has(key)) continue;
      seen.add(key);
      const result = (await repaired(damaged))!;
      const { files, plan } = result;
      const inspection = await inspectMetadata(files, 'disk');
      const survived = heldBytes(inspection, expected.deviceSize);
      // Not the runs themselves: there are 10^5.
      expect(without(survived, held).length, what).toBe(0);
      const lost = without(held, survived);
      const within = plan.lost.map(({ offset, length }): Run => [offset, offset + length]);
      expect(without(lost, within).length, what).toBe(0);
      const lostBytes = lost.reduce((sum, [start, end]) => sum + end - start, 0);
      expect(lostBytes, what).toBeLessThanOrEqual(plan.lostBytes);
      // Nothing tells who wrote what survives.
      expect(inspection.modifiedBlocks, what).toBe(inspection.syncedBlocks + inspection.dirty.length);
    }
    expect(refused).toBeGreaterThan(1);
  });
});

describe.each(['disk.bak', 'disk.bak.1'] as const)('a copy of format 1 whose checkpoint is %s', (checkpoint) => {
  const { images, events } = format1State(checkpoint);
  const state = { name: checkpoint, images, syncedTarget: undefined, events, earlier: new Map() };

  it('reads as promised after the repair of any damage, or as the source where bytes are lost', async () => {
    let refused = 0;
    for (const { what, images: damaged } of damages(images)) {
      const result = await repaired(damaged);
      if (result === undefined) continue;
      refused++;
      const device = await open(result.files);
      const found = new Uint8Array(SIZE);
      await device.read(found, 0);
      await device.close();
      const newest = SOURCE.slice();
      for (const event of events) if (event !== 'flushed') newest.set(event.bytes, event.offset);
      let lost = 0;
      for (const { offset, length } of result.plan.lost) {
        for (let at = offset; at < offset + length; at++) {
          if (found[at] !== SOURCE[at] || found[at] === newest[at]) continue;
          lost++;
          found[at] = newest[at]!;
        }
      }
      expect(violation(state, found, 'durable'), what).toBeUndefined();
      expect(lost, what).toBeLessThanOrEqual(result.plan.lostBytes);
    }
    expect(refused).toBeGreaterThan(40);
  });

  it.each(['disk.wil', 'disk.wil.1', checkpoint])(
    'is refused until the repair of %s is complete, which continues after a crash',
    async (name) => {
      const bytes = images.get(name)!.bytes.slice();
      // The type of the first record, or the length of the first bitmap.
      bytes[20] = 0xff;
      const damaged = withFile(images, name, { bytes, size: bytes.length });
      const { plan } = (await repaired(damaged))!;
      // An interrupted repair may leave a file that says nothing, which is saved, too.
      const { problems: _problems, saved: _saved, ...rest } = plan;
      const initial = new CrashingFileSystem();
      for (const [file, image] of damaged) {
        const made = await initial.open(file, { create: true });
        await made.write(image.bytes, 0);
        await made.truncate(image.size);
        await made.sync();
        await made.close();
      }
      const again = async ({ fileSystem }: Life): Promise<void> => {
        const done = await repairIn(environment, { fileSystem, target: 'disk', apply: true });
        if (done.problems.length > 0) expect(done).toMatchObject(rest);
        else expect(done.copiedBytes).toBe(plan.copiedBytes);
      };
      const figures = await exploreCrashes((): Story => ({ work: again, recover: again }), {
        initial,
        kind: 'power',
        crashes: 3,
        seed: 7,
        samples: 24,
        settle: () => new Promise(process.nextTick),
      });
      expect(figures.crashes).toBeGreaterThan(20);
    },
  );
});
