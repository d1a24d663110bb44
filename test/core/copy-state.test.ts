/** The state of a copy against a plain array that records for each byte whether the target holds it. */

import { describe, expect, it } from 'vitest';
import { BlockMap } from '../../src/core/block-map.ts';
import { CopyState, type SerializedSlice } from '../../src/core/copy-state.ts';
import { DirtyMap } from '../../src/core/dirty-map.ts';
import { bytesOfBlock, type Geometry, geometry } from '../../src/core/geometry.ts';
import { GrowingBuffer } from '../../src/core/growing-buffer.ts';
import { SLICE_BLOCKS } from '../../src/core/layout.ts';
import type { BlockRange, Piece, StateRun } from '../../src/core/runs.ts';
import { type Random, seededRandom } from '../../src/testing/index.ts';
import { Core } from '../../src/wasm/core.ts';
import { ended } from './models.ts';

const BLOCK = 4096;
const core = Core.create();

/** From this number of parts on, a block counts as crowded. */
const CROWDED_PARTS = 64;

type State = StateRun['state'];

/** One byte for each byte of the device: 1 if the target holds it. */
class Model {
  readonly geometry: Geometry;
  readonly bytes: Uint8Array;

  constructor(geometry: Geometry) {
    this.geometry = geometry;
    this.bytes = new Uint8Array(geometry.size);
  }

  apply(offset: number, length: number): void {
    this.bytes.fill(1, offset, offset + length);
  }

  ofBlock(block: number): Uint8Array {
    return this.bytes.subarray(block * BLOCK, block * BLOCK + bytesOfBlock(this.geometry, block));
  }

  state(block: number): State {
    const bytes = this.ofBlock(block);
    if (!bytes.includes(1)) return 'unsynced';
    return bytes.includes(0) ? 'dirty' : 'synced';
  }

  states(): State[] {
    return Array.from({ length: this.geometry.blockCount }, (_, block) => this.state(block));
  }

  isSynced(block: number): boolean {
    return this.state(block) === 'synced';
  }

  parts(block: number): [number, number][] {
    if (this.isSynced(block)) return [];
    return runsOf(this.ofBlock(block))
      .filter(({ value }) => value === 1)
      .map(({ start, end }) => [start, end]);
  }

  pieces(offset: number, length: number): Piece[] {
    return runsOf(this.bytes.subarray(offset, offset + length)).map(({ start, end, value }) => ({
      start: offset + start,
      end: offset + end,
      from: value === 1 ? 'target' : 'source',
    }));
  }

  /** The blocks with missing bytes of the range. A run ends only at a synced block. */
  missing(offset: number, length: number): BlockRange[] {
    const runs: { start: number; end: number }[] = [];
    for (const block of blocksOf(offset, length)) {
      const from = Math.max(offset, block * BLOCK);
      const to = Math.min(offset + length, (block + 1) * BLOCK);
      if (!this.bytes.subarray(from, to).includes(0)) continue;
      const last = runs.at(-1);
      const between = last === undefined ? [] : range(last.end, block);
      if (last !== undefined && !between.some((each) => this.isSynced(each))) last.end = block + 1;
      else runs.push({ start: block, end: block + 1 });
    }
    return runs;
  }

  runs(offset: number, length: number): StateRun[] {
    const runs: { state: State; length: number }[] = [];
    for (const block of blocksOf(offset, length)) {
      const bytes = Math.min(offset + length, (block + 1) * BLOCK) - Math.max(offset, block * BLOCK);
      const last = runs.at(-1);
      if (last?.state === this.state(block)) last.length += bytes;
      else runs.push({ state: this.state(block), length: bytes });
    }
    return runs;
  }

  crowded(offset: number, length: number): number[] {
    const blocks = blocksOf(offset, length);
    return [...new Set([blocks[0]!, blocks.at(-1)!])].filter((block) => {
      const end = block * BLOCK + bytesOfBlock(this.geometry, block);
      const isWhole = offset <= block * BLOCK && end <= offset + length;
      return !isWhole && this.parts(block).length >= CROWDED_PARTS;
    });
  }

  count(start: number, end: number, parts: number): { synced: number[]; dirty: number[] } {
    const edge = (part: number): number => start + Math.floor(((end - start) * part) / parts);
    const counted = (state: State): number[] =>
      range(0, parts).map((part) => range(edge(part), edge(part + 1)).filter((b) => this.state(b) === state).length);
    return { synced: counted('synced'), dirty: counted('dirty') };
  }

  /** The first block of [from, limit) that is synced (`isSynced`) or unsynced. */
  next(isSynced: boolean, from: number, limit: number): number {
    return range(from, limit).find((block) => this.isSynced(block) === isSynced) ?? limit;
  }
}

function range(start: number, end: number): number[] {
  return Array.from({ length: Math.max(0, end - start) }, (_, index) => start + index);
}

function blocksOf(offset: number, length: number): number[] {
  return range(Math.floor(offset / BLOCK), Math.ceil((offset + length) / BLOCK));
}

function runsOf(bytes: Uint8Array): { start: number; end: number; value: number }[] {
  const runs: { start: number; end: number; value: number }[] = [];
  for (let at = 0; at < bytes.length; ) {
    const other = bytes.indexOf(1 - bytes[at]!, at);
    const end = other < 0 ? bytes.length : other;
    runs.push({ start: at, end, value: bytes[at]! });
    at = end;
  }
  return runs;
}

/** A range of the device: short or long, aligned or unaligned, often up to the end of the device. */
function someRange(random: Random, size: number): [offset: number, length: number] {
  const unit = [1, 512, BLOCK][random.below(3)]!;
  const offset = Math.min(size - 1, random.below(size / unit) * unit);
  if (random.oneIn(10)) return [offset, size - offset];
  const length = unit * (1 + random.below(random.oneIn(4) ? (10 * BLOCK) / unit : Math.max(1, 600 / unit)));
  return [offset, Math.min(length, size - offset)];
}

/** Applies many parts to a block. */
function crowd(random: Random, apply: (offset: number, length: number) => void, block: number): void {
  const parts = CROWDED_PARTS - 2 + random.below(4);
  for (let part = 0; part < parts; part++) apply(block * BLOCK + part * 30 + 1, 10);
}

/** A state and its model after random writes. The caller disposes of the state. */
async function grown(random: Random, steps: number): Promise<{ state: CopyState; model: Model }> {
  const shape = geometry({ size: (20 + random.below(30)) * BLOCK - 1 - random.below(BLOCK - 1), blockSize: BLOCK });
  const state = await CopyState.open(core, shape);
  const model = new Model(shape);
  const apply = (offset: number, length: number): void => {
    state.apply(offset, length);
    model.apply(offset, length);
  };
  for (let step = 0; step < steps; step++) {
    if (random.oneIn(10)) crowd(random, apply, random.below(shape.blockCount - 1));
    else apply(...someRange(random, shape.size));
  }
  return { state, model };
}

/** Compares every answer of a state with its model. */
function check(state: CopyState, model: Model, random: Random): void {
  const { size, blockCount } = model.geometry;
  const states = model.states();
  const blocks = range(0, blockCount);

  // The views of both maps.
  expect(blocks.map((block) => state.blocks.has(block))).toEqual(states.map((each) => each === 'synced'));
  expect(state.blocks.count).toBe(states.filter((each) => each === 'synced').length);
  expect(blocks.map((block) => state.dirty.parts(block))).toEqual(blocks.map((block) => model.parts(block)));
  expect(state.dirty.blockCount).toBe(states.filter((each) => each === 'dirty').length);
  expect(state.dirtyParts).toBe(blocks.flatMap((block) => model.parts(block)).length);
  expect(state.isComplete).toBe(!model.bytes.includes(0));
  expect(state.isEmpty).toBe(!model.bytes.includes(1));
  expect([...state.dirtyBlocks()]).toEqual(
    blocks.filter((block) => states[block] === 'dirty').map((block) => ({ block, parts: model.parts(block) })),
  );
  const synced = runsOf(Uint8Array.from(states, (each) => (each === 'synced' ? 1 : 0)));
  expect([...state.syncedRuns()]).toEqual(
    synced.filter(({ value }) => value === 1).map(({ start, end }) => [start, end]),
  );
  expect([...state.blocks.extents(0, blockCount)]).toEqual(
    synced.map(({ start, end, value }) => ({ start, end, synced: value === 1 })),
  );

  for (let question = 0; question < 12; question++) {
    const [offset, length] = question === 0 ? [0, size] : someRange(random, size);
    const where = `bytes ${offset} + ${length} of ${size}`;
    expect(state.pieces(offset, length), where).toEqual(model.pieces(offset, length));
    expect(state.missing(offset, length), where).toEqual(model.missing(offset, length));
    expect(state.isSynced(offset, length), where).toBe(blocksOf(offset, length).every((each) => model.isSynced(each)));
    expect(state.crowded(offset, length), where).toEqual(model.crowded(offset, length));
    const asked = state.blocksOf(offset, length);
    expect(range(asked.start, asked.end), where).toEqual(blocksOf(offset, length));
    const whole = { offset: asked.start * BLOCK, end: Math.min(size, asked.end * BLOCK) };
    expect(state.bytesOf(asked), where).toEqual({ offset: whole.offset, length: whole.end - whole.offset });
    checkRuns(state, model, offset, length, random);
  }

  for (let question = 0; question < 6; question++) {
    const start = random.below(blockCount + 1);
    const end = start + random.below(blockCount + 1 - start);
    expect(state.nextUnsynced(start, end)).toBe(model.next(false, start, end));
    expect(state.nextSynced(start, end)).toBe(model.next(true, start, end));
    expect(state.blocks.nextUnsynced(start, end)).toBe(model.next(false, start, end));
    expect(state.nextUnsynced(start)).toBe(model.next(false, start, blockCount));
    expect(state.nextSynced(start)).toBe(model.next(true, start, blockCount));
    expect(state.blocks.hasRange(start, end)).toBe(range(start, end).every((block) => model.isSynced(block)));
    const parts = 1 + random.below(2 * blockCount);
    const counted = state.count(start, end, parts);
    const { synced, dirty } = model.count(start, end, parts);
    expect([...counted.synced]).toEqual(synced);
    expect([...counted.dirty]).toEqual(dirty);
  }
}

function checkRuns(state: CopyState, model: Model, offset: number, length: number, random: Random): void {
  const expected = model.runs(offset, length);
  expect(state.runs(offset, length, expected.length + 1 + random.below(3))).toEqual(expected);
  // With a smaller limit: the same runs, of which the last may be shorter.
  const limit = 1 + random.below(expected.length);
  // Another test checks that the result has at most `limit` runs.
  const found = state.runs(offset, length, limit).slice(0, limit);
  expect(found.length).toBe(limit);
  expect(found.slice(0, -1)).toEqual(expected.slice(0, limit - 1));
  const last = found.at(-1)!;
  const whole = expected[limit - 1]!;
  expect(last.state).toBe(whole.state);
  expect(last.length).toBeGreaterThan(0);
  expect(last.length).toBeLessThanOrEqual(whole.length);
}

describe('the state of a copy', () => {
  it('knows of every byte what a plain array knows, after any writes', async () => {
    for (let seed = 0; seed < 60; seed++) {
      const random = seededRandom(seed);
      const { state, model } = await grown(random, random.below(4));
      for (let round = 0; round < 6; round++) {
        check(state, model, random);
        for (let step = random.below(8); step >= 0; step--) {
          const range = someRange(random, model.geometry.size);
          state.apply(...range);
          model.apply(...range);
        }
      }
      check(state, model, random);
      state.dispose();
    }
  });

  it('returns at most `limit` runs', async () => {
    const shape = geometry({ size: 8 * BLOCK, blockSize: BLOCK });
    const state = await CopyState.open(core, shape);
    state.apply(3 * BLOCK, 10);
    expect(state.runs(0, 8 * BLOCK, 1)).toEqual([{ state: 'unsynced', length: 3 * BLOCK }]);
    expect(state.runs(0, 8 * BLOCK, 2)).toEqual([
      { state: 'unsynced', length: 3 * BLOCK },
      { state: 'dirty', length: BLOCK },
    ]);
    state.dispose();
  });

  it('is complete when every byte was applied, in any parts and any order', async () => {
    for (let seed = 0; seed < 10; seed++) {
      const random = seededRandom(seed);
      const { state, model } = await grown(random, 0);
      const pieces: [number, number][] = [];
      for (let at = 0; at < model.geometry.size; ) {
        const length = Math.min(1 + random.below(random.oneIn(3) ? 3 * BLOCK : 700), model.geometry.size - at);
        pieces.push([at, length]);
        at += length;
      }
      for (const piece of random.shuffle(pieces)) {
        expect(state.isComplete).toBe(false);
        state.apply(...piece);
      }
      expect([state.isComplete, state.dirty.blockCount, state.dirtyParts]).toEqual([true, 0, 0]);
      expect(state.isSynced(0, model.geometry.size)).toBe(true);
      expect(state.blocks.count).toBe(model.geometry.blockCount);
      state.dispose();
    }
  });

  it('returns values that do not change with the state', async () => {
    for (let seed = 0; seed < 30; seed++) {
      const random = seededRandom(seed);
      const { state, model } = await grown(random, 10);
      const { size, blockCount } = model.geometry;
      const dirty = range(0, blockCount).filter((block) => model.state(block) === 'dirty');
      const answers = {
        pieces: state.pieces(0, size),
        missing: state.missing(0, size),
        runs: state.runs(0, size, blockCount),
        count: state.count(0, blockCount, 3),
        parts: dirty.map((block) => state.dirty.parts(block)),
        dirtyBlocks: [...state.dirtyBlocks()],
        syncedRuns: [...state.syncedRuns()],
      };
      const before = structuredClone(answers);
      expect(answers.pieces).toEqual(model.pieces(0, size));
      for (let step = 0; step < 200; step++) state.apply(...someRange(random, size));
      state.apply(0, size);
      expect(answers).toEqual(before);
      state.dispose();
      expect(answers).toEqual(before);
    }
  });

  it('answers the same after a save and a load, and saves equal states as equal bytes', async () => {
    for (let seed = 0; seed < 30; seed++) {
      const random = seededRandom(seed);
      const { state, model } = await grown(random, random.below(25));
      const saved = save(state);
      const loaded = await CopyState.open(core, model.geometry);
      load(loaded, saved);
      check(loaded, model, random);
      expect(save(loaded)).toEqual(saved);
      // Further changes affect the loaded state like the saved state.
      for (let step = 0; step < 10; step++) {
        const range = someRange(random, model.geometry.size);
        for (const each of [state, loaded]) each.apply(...range);
        model.apply(...range);
      }
      check(loaded, model, random);
      expect(save(loaded)).toEqual(save(state));
      // The same bytes, applied in another order.
      const other = await CopyState.open(core, model.geometry);
      const written = model.pieces(0, model.geometry.size).filter(({ from }) => from === 'target');
      for (const { start, end } of random.shuffle(written)) other.apply(start, end - start);
      expect(save(other)).toEqual(save(state));
      for (const each of [state, loaded, other]) each.dispose();
    }
  });

  it('refuses sections with unexpected numbers of blocks', async () => {
    const { state, model } = await grown(seededRandom(4), 20);
    const { bytes, slice } = save(state);
    for (const wrong of [{ syncedBlocks: slice.syncedBlocks + 1 }, { dirtyBlocks: slice.dirtyBlocks + 1 }]) {
      const loaded = await CopyState.open(core, model.geometry);
      const loading = (): void => load(loaded, { bytes, slice: { ...slice, ...wrong } });
      expect(loading).toThrow(expect.objectContaining({ code: 'COD_CORRUPT' }));
      loaded.dispose();
    }
    state.dispose();
  });

  it('refuses parts beyond the capacity of its map, and reports the crowded blocks before', async () => {
    const shape = geometry({ size: 64 * BLOCK, blockSize: BLOCK });
    const map = new DirtyMap(core, shape, { maxBlocks: 16, maxParts: 16 });
    const state = new CopyState(shape, await BlockMap.open(shape), map, await BlockMap.open(shape));
    for (let block = 0; block < 16; block++) {
      // When the map is seven eighths full, a write must first complete the block at its end.
      const isCrowded = block >= 14;
      expect(state.crowded(block * BLOCK, 10)).toEqual(isCrowded ? [block] : []);
      expect(state.crowded(block * BLOCK, BLOCK)).toEqual([]);
      expect(state.crowded(block * BLOCK + 1, BLOCK)).toEqual(isCrowded ? [block, block + 1] : []);
      state.apply(block * BLOCK, 10);
    }
    const apply = (): void => state.apply(30 * BLOCK - 5, 2 * BLOCK + 5);
    expect(apply).toThrow(expect.objectContaining({ code: 'COD_NO_SPACE' }));
    // The whole blocks of the range are applied.
    expect([state.blocks.has(29), state.blocks.has(30), state.blocks.has(31)]).toEqual([false, true, true]);
    expect(state.dirty.blockCount).toBe(16);
    state.apply(0, BLOCK);
    expect([state.dirty.blockCount, state.blocks.has(0)]).toEqual([15, true]);
    state.dispose();
  });
});

describe('the modified blocks of a state', () => {
  /** A state after random writes, of which some are users'. The caller disposes of the state. */
  async function modifiedAtRandom(seed: number): Promise<{ state: CopyState; model: Model; modified: Set<number> }> {
    const random = seededRandom(seed);
    const { state, model } = await grown(random, random.below(25));
    const modified = new Set<number>();
    for (let step = random.below(8); step > 0; step--) {
      const [offset, length] = someRange(random, model.geometry.size);
      state.modify(offset, length);
      for (const block of blocksOf(offset, length)) modified.add(block);
    }
    return { state, model, modified };
  }

  const blocksIn = (state: CopyState): number[] =>
    [...state.modified.runs()].flatMap(([start, end]) => range(start, end));
  const ascending = (blocks: Iterable<number>): number[] => [...blocks].sort((a, b) => a - b);

  it('are those that users may have changed', async () => {
    for (let seed = 0; seed < 20; seed++) {
      const { state, model, modified } = await modifiedAtRandom(seed);
      const random = seededRandom(seed);
      expect(blocksIn(state)).toEqual(ascending(modified));
      for (let question = 0; question < 30; question++) {
        const [offset, length] = question === 0 ? [0, model.geometry.size] : someRange(random, model.geometry.size);
        const isUnmodified = blocksOf(offset, length).some((block) => model.isSynced(block) && !modified.has(block));
        expect(state.isUnmodified(offset, length), `bytes ${offset} + ${length}, seed ${seed}`).toBe(isUnmodified);
      }
      state.dispose();
    }
  });

  it('are saved and loaded, and a checkpoint with damaged ones is refused', async () => {
    for (let seed = 0; seed < 20; seed++) {
      const { state, model, modified } = await modifiedAtRandom(seed);
      const saved = save(state);
      expect(saved.slice.modifiedBlocks).toBe(modified.size);
      const loaded = await CopyState.open(core, model.geometry);
      load(loaded, saved);
      expect(blocksIn(loaded)).toEqual(ascending(modified));
      expect(save(loaded)).toEqual(saved);
      const refuse = async (damaged: typeof saved): Promise<void> => {
        const other = await CopyState.open(core, model.geometry);
        expect(() => load(other, damaged)).toThrow(expect.objectContaining({ code: 'COD_CORRUPT' }));
        other.dispose();
      };
      await refuse({ ...saved, slice: { ...saved.slice, modifiedBlocks: modified.size + 1 } });
      // The padding behind each of the two bitmaps.
      const { dirtyBytes, bitmapBytes, modifiedBytes } = saved.slice;
      const modifiedAt = dirtyBytes + Math.ceil(bitmapBytes / 8) * 8;
      for (const [end, next] of [
        [dirtyBytes + bitmapBytes, modifiedAt],
        [modifiedAt + modifiedBytes, saved.bytes.length],
      ] as const) {
        for (let at = end; at < next; at++) {
          const bytes = saved.bytes.slice();
          bytes[at] = 1;
          await refuse({ ...saved, bytes });
        }
      }
      for (const each of [state, loaded]) each.dispose();
    }
  });

  it('are all that the target holds, if nothing tells', async () => {
    for (let seed = 0; seed < 10; seed++) {
      const { state, model } = await grown(seededRandom(seed), 20);
      ended(state.modifyingAll());
      const held = model.states().flatMap((each, block) => (each === 'unsynced' ? [] : [block]));
      expect(blocksIn(state)).toEqual(held);
      state.dispose();
    }
  });

  it('are as those of another state, among the blocks that the target holds', async () => {
    for (let seed = 0; seed < 10; seed++) {
      const { state: other, modified, model: like } = await modifiedAtRandom(seed);
      const model = new Model(like.geometry);
      const state = await CopyState.open(core, like.geometry);
      const random = seededRandom(seed);
      for (let step = 0; step < 10; step++) {
        const [offset, length] = someRange(random, model.geometry.size);
        state.apply(offset, length);
        model.apply(offset, length);
      }
      ended(state.modifyingAs(other));
      const states = model.states();
      expect(blocksIn(state)).toEqual(ascending(modified).filter((block) => states[block] !== 'unsynced'));
      expect(blocksIn(other)).toEqual(ascending(modified));
      for (const each of [state, other]) each.dispose();
    }
  });
});

describe('a state that is serialized in steps', () => {
  const shape = geometry({ size: (2 * SLICE_BLOCKS + 200_000) * BLOCK, blockSize: BLOCK });
  const SECTOR = 512;

  /** For each block, a bit for each of its sectors that the target holds. */
  type Sectors = Map<number, number>;

  /** The sectors of the blocks that a test has touched, as the state says. */
  function sectorsOf(state: CopyState, blocks: Iterable<number>): Sectors {
    const found: Sectors = new Map();
    for (const block of blocks) {
      let mask = state.blocks.has(block) ? 255 : 0;
      // Parts of a synced block mean nothing.
      for (const [start, end] of mask === 0 ? state.dirty.parts(block) : [])
        for (let sector = start / SECTOR; sector < end / SECTOR; sector++) mask |= 1 << sector;
      found.set(block, mask);
    }
    return found;
  }

  it('loses nothing that it held before, and invents nothing, whatever changes between the steps', async () => {
    let mostSteps = 0;
    for (let seed = 0; seed < 8; seed++) {
      const random = seededRandom(seed);
      const state = await CopyState.open(core, shape);
      const model: Sectors = new Map();
      // Few tables with many blocks each, and blocks far away.
      const bases = Array.from({ length: 3 }, () => random.below(shape.blockCount - 70_000));
      // A table that is emptied at once: by syncing all of it.
      const table = Math.floor(bases[0]! / 65_536) * 65_536;
      let isTableSynced = false;
      const isSyncedByTable = (block: number): boolean => isTableSynced && block >= table && block < table + 65_536;
      const apply = (block: number, sector: number, count: number): void => {
        state.apply(block * BLOCK + sector * SECTOR, count * SECTOR);
        for (let at = sector; at < sector + count; at++) {
          const changed = block + (at >> 3);
          const held = isSyncedByTable(changed) ? 255 : (model.get(changed) ?? 0);
          model.set(changed, held | (1 << (at & 7)));
        }
      };
      const change = (): void => {
        const base = bases[random.below(3)]!;
        const block = random.oneIn(20) ? random.below(shape.blockCount - 4) : base + random.below(60_000);
        if (random.oneIn(4)) apply(block, 0, 8 * (1 + random.below(3)));
        else apply(block, random.below(8), 1 + random.below(10));
      };
      for (let step = 0; step < 30_000; step++) change();
      const before = new Map(model);
      const loaded = await CopyState.open(core, shape);
      let steps = 0;
      for (const slice of random.shuffle([0, 1, 2])) {
        const buffer = new GrowingBuffer();
        const writing = state.serializing(slice, buffer);
        let step = writing.next();
        for (; !step.done; step = writing.next()) {
          steps++;
          for (let count = random.below(3000); count > 0; count--) change();
          if (!random.oneIn(4)) continue;
          state.apply(table * BLOCK, 65_536 * BLOCK);
          isTableSynced = true;
          for (const block of model.keys()) if (isSyncedByTable(block)) model.set(block, 255);
        }
        ended(loaded.loading(slice, step.value, buffer.bytes));
      }
      mostSteps = Math.max(mostSteps, steps);
      const held = sectorsOf(loaded, model.keys());
      for (const [block, after] of model) {
        const mask = held.get(block)!;
        const least = before.get(block) ?? 0;
        if ((mask & least) !== least || (mask | after) !== after)
          throw new Error(`seed ${seed}, block ${block}: ${mask} is not between ${least} and ${after}`);
      }
      expect(sectorsOf(state, model.keys())).toEqual(model);
      for (const each of [state, loaded]) each.dispose();
    }
    expect(mostSteps).toBeGreaterThan(5);
  });

  it('counts the dirty blocks of any parts as a plain loop does', async () => {
    const random = seededRandom(1);
    const state = await CopyState.open(core, shape);
    const blocks = new Set<number>();
    for (let step = 0; step < 20_000; step++) {
      const block = random.oneIn(3) ? random.below(shape.blockCount) : 60_000 + random.below(150_000);
      state.apply(block * BLOCK + 5, 6);
      blocks.add(block);
    }
    for (const parts of [1, 2, 7, 515, 1000, 20_011]) {
      const start = random.oneIn(2) ? 0 : random.below(100_000);
      const end = shape.blockCount - random.below(100_000);
      const expected = new Float64Array(parts);
      for (const block of blocks) {
        if (block < start || block >= end) continue;
        let part = Math.floor(((block - start) * parts) / (end - start));
        while (part + 1 < parts && start + Math.floor(((end - start) * (part + 1)) / parts) <= block) part++;
        expected[part]!++;
      }
      expect(state.count(start, end, parts).dirty).toEqual(expected);
    }
    state.dispose();
  });

  it('is disposed of in steps, and returns all of its memory', async () => {
    const own = Core.create();
    for (let round = 0, before = 0; round < 3; round++) {
      const state = await CopyState.open(own, shape);
      for (let block = 0; block < 40_000; block++)
        for (const part of [0, 100]) state.apply(block * 7 * BLOCK + part, 10);
      expect([...state.disposing()].length).toBeGreaterThan(2);
      if (round > 0) expect(own.memoryBytes).toBe(before);
      before = own.memoryBytes;
    }
  });
});

/** A slice as a checkpoint stores it. */
interface Saved {
  readonly bytes: Uint8Array;
  readonly slice: SerializedSlice;
}

/** The only slice of a state. */
function save(state: CopyState): Saved {
  const buffer = new GrowingBuffer();
  const slice = ended(state.serializing(0, buffer));
  return { bytes: buffer.bytes.slice(), slice };
}

function load(state: CopyState, { bytes, slice }: Saved): void {
  ended(state.loading(0, slice, bytes));
}
