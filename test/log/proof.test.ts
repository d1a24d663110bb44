/** Which records behind the last barrier count, against a model that compares contents instead of sums. */

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { concat } from '../../src/core/concat.ts';
import { CopyState } from '../../src/core/copy-state.ts';
import { type Geometry, geometry } from '../../src/core/geometry.ts';
import { CodError } from '../../src/errors.ts';
import { MAX_CLAIMS } from '../../src/log/firmness.ts';
import { type Extent, Proof, type ReadTarget } from '../../src/log/proof.ts';
import { recover } from '../../src/log/recovery.ts';
import { Slots } from '../../src/log/slots.ts';
import { seededRandom } from '../../src/testing/index.ts';
import { Core } from '../../src/wasm/core.ts';
import { filled, frame, logBody, mayRead, written, writtenPair } from '../core/models.ts';
import { MemoryFiles } from './memory-files.ts';
import { Life } from './states.ts';

const core = Core.create();
const CELL = 4096;
const CELLS = 8;
const shape = geometry({ size: (CELLS - 1) * CELL + 100, blockSize: 2 * CELL });

function sum(content: Uint8Array): number {
  return core.cellSum(content);
}

function reader(target: Uint8Array): ReadTarget {
  return async (into, offset) => {
    if (offset + into.length > target.length) throw new CodError('COD_SHORT_READ', `the target ends at ${offset}`);
    into.set(target.subarray(offset, offset + into.length));
  };
}

/** Judges frames, and returns the bytes that count. */
async function judged(
  body: Uint8Array,
  target: Uint8Array | ReadTarget,
  {
    from = 0,
    to = 2 ** 31,
    shape: device = shape,
    seen,
  }: { from?: number; to?: number; shape?: Geometry; seen?: ReadonlyMap<number, number> } = {},
): Promise<{ truth: Uint8Array; proved: Extent[] }> {
  const proof = new Proof(core, device.size);
  const state = await CopyState.open(core, device);
  try {
    for (let at = 0; at < body.length; at += 1024) proof.collect(body.subarray(at, at + 1024), { from, to });
    const proved = await proof.judge(typeof target === 'function' ? target : reader(target), state, {}, seen);
    return { truth: truthOf(state), proved };
  } finally {
    state.dispose();
  }
}

/** 1 for each byte that the target holds. */
function truthOf(state: CopyState): Uint8Array {
  const { size, blockSize } = state.geometry;
  const truth = new Uint8Array(size);
  for (const [start, end] of state.syncedRuns()) truth.fill(1, start * blockSize, Math.min(size, end * blockSize));
  for (const { block, parts } of state.dirtyBlocks())
    for (const [start, end] of parts) truth.fill(1, block * blockSize + start, block * blockSize + end);
  return truth;
}

/** What happens to the target: a write of a user, or one that is only announced. */
const change = fc.record({
  kind: fc.constantFrom('write', 'write', 'announced', 'fill' as const),
  offset: fc.nat(shape.size - 1),
  length: fc.oneof(fc.integer({ min: 1, max: 300 }), fc.constantFrom(CELL, 2 * CELL, 3 * CELL + 5)),
  aligned: fc.boolean(),
  value: fc.integer({ min: 1, max: 3 }),
});

describe('records behind the last barrier', () => {
  it('count up to the last one whose sum the cell reads as, cell by cell', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(change, { minLength: 1, maxLength: 12 }),
        fc.array(fc.nat(20), { minLength: CELLS, maxLength: CELLS }),
        async (changes, survivors) => {
          const target = new Uint8Array(shape.size);
          const cellOf = (cell: number): Uint8Array => target.slice(cell * CELL, (cell + 1) * CELL);
          const history = Array.from({ length: CELLS }, (_, cell) => [cellOf(cell)]);
          /** In order: each cell's content after a change, and the part that was written. */
          const claims: { cell: number; content: Uint8Array; start: number; end: number }[] = [];
          const frames: Uint8Array[] = [];
          for (const { kind, offset: wanted, length, aligned, value } of changes) {
            const offset = aligned ? wanted - (wanted % CELL) : wanted;
            const end = Math.min(shape.size, offset + length);
            const records: [bigint, bigint | number][] = [];
            if (kind === 'fill') records.push(filled(offset, end - offset));
            else target.fill(value, offset, end);
            for (let at = offset; at < end && kind !== 'fill'; ) {
              const cell = Math.floor(at / CELL);
              const stop = Math.min(end, (cell + 1) * CELL);
              const [one, two] = [cellOf(cell), cellOf(cell + 1)];
              const isPair = kind === 'write' && at % CELL === 0 && at + 2 * CELL <= end;
              if (isPair) records.push(writtenPair(at, sum(one), sum(two)));
              else if (kind === 'write') records.push(written(at, stop - at, sum(one)));
              else records.push(mayRead(cell * CELL, sum(one)));
              const isWrite = kind === 'write';
              claims.push({ cell, content: one, start: at, end: isWrite ? stop : at });
              if (isPair) claims.push({ cell: cell + 1, content: two, start: stop, end: stop + CELL });
              at = isPair ? at + 2 * CELL : stop;
            }
            for (const [cell, versions] of history.entries()) versions.push(cellOf(cell));
            for (let at = 0; at < records.length; at += 30)
              frames.push(frame({ epoch: 1, sequence: frames.length }, records.slice(at, at + 30)));
          }
          // Each cell reads as any of its versions, the last one included.
          const found = concat(...history.map((versions, cell) => versions[survivors[cell]! % versions.length]!));
          const expected = new Uint8Array(shape.size);
          const cells: boolean[] = [];
          for (let cell = 0; cell < CELLS; cell++) {
            const own = claims.filter((claim) => claim.cell === cell);
            const reads = found.subarray(cell * CELL, (cell + 1) * CELL);
            const last = own.findLastIndex(({ content }) => Buffer.compare(content, reads) === 0);
            for (const { start, end } of own.slice(0, last + 1)) expected.fill(1, start, end);
            cells.push(last >= 0);
          }
          const { truth, proved } = await judged(logBody(frames), found);
          expect(Buffer.compare(truth, expected)).toBe(0);
          for (let cell = 0; cell < CELLS; cell++) {
            const isProved = proved.some(
              ({ offset, length }) => offset <= cell * CELL && cell * CELL < offset + length,
            );
            expect(isProved, `cell ${cell}`).toBe(cells[cell]);
          }
        },
      ),
      { numRuns: 200 },
    );
  });

  it('all count where the target reads as the last of them says', async () => {
    const content = (value: number): number => sum(new Uint8Array(CELL).fill(value));
    const body = logBody([
      frame({ epoch: 1, sequence: 0 }, [written(0, 10, content(1)), written(100, 10, content(2))]),
      frame({ epoch: 1, sequence: 1 }, [mayRead(0, content(3))]),
      frame({ epoch: 1, sequence: 2 }, [written(200, 10, content(4))]),
    ]);
    const partsFor = async (value: number): Promise<number[]> => {
      const { truth } = await judged(body, new Uint8Array(shape.size).fill(value));
      return [0, 100, 200].map((at) => truth[at]!);
    };
    expect(await partsFor(0)).toEqual([0, 0, 0]);
    expect(await partsFor(1)).toEqual([1, 0, 0]);
    expect(await partsFor(2)).toEqual([1, 1, 0]);
    expect(await partsFor(3)).toEqual([1, 1, 0]);
    expect(await partsFor(4)).toEqual([1, 1, 1]);
    expect(await partsFor(5)).toEqual([0, 0, 0]);
  });

  it('of the source’s bytes count nowhere', async () => {
    const body = logBody([frame({ epoch: 1, sequence: 0 }, [filled(0, 3 * CELL)])]);
    const { truth, proved } = await judged(body, new Uint8Array(shape.size));
    expect([truth.some((byte) => byte === 1), proved]).toEqual([false, []]);
  });

  it('are those of the given frames only', async () => {
    const zeros = sum(new Uint8Array(CELL));
    const body = logBody(
      [0, 1, 2, 3].map((sequence) => frame({ epoch: 1, sequence }, [written(sequence * 2 * CELL, 8, zeros)])),
    );
    const { truth } = await judged(body, new Uint8Array(shape.size), { from: 1, to: 3 });
    expect([0, 2, 4, 6].map((cell) => truth[cell * CELL])).toEqual([0, 1, 1, 0]);
  });

  it('of cells that were read before count by what was read, or by a read; other cells are left alone', async () => {
    const content = (value: number): number => sum(new Uint8Array(CELL).fill(value));
    const body = logBody([
      frame(
        { epoch: 1, sequence: 0 },
        [0, 1, 2].map((cell) => written(cell * CELL, 10, content(1))),
      ),
      frame({ epoch: 1, sequence: 1 }, [written(100, 10, content(2))]),
    ]);
    const reads: [number, number][] = [];
    const read: ReadTarget = async (into, offset) => {
      reads.push([offset, into.length]);
      into.fill(1);
    };
    const seen = new Map([
      [0, content(2)],
      [1, content(9)],
    ]);
    const { truth, proved } = await judged(body, read, { seen });
    expect([0, 100, CELL, 2 * CELL].map((at) => truth[at])).toEqual([1, 1, 1, 0]);
    expect([reads, proved]).toEqual([[[CELL, CELL]], [{ offset: CELL, length: CELL }]]);
  });

  it('of a frame longer than its sector count nowhere, and a frame without records hides no other', async () => {
    const zeros = sum(new Uint8Array(CELL));
    const long = frame(
      { epoch: 1, sequence: 0 },
      Array.from({ length: 40 }, () => written(0, 8, zeros)),
    );
    const outside = concat(long, new Uint8Array(1024 - long.length));
    expect((await judged(outside, new Uint8Array(shape.size))).proved).toEqual([]);
    const body = logBody([
      frame({ epoch: 1, sequence: 0 }, []),
      frame({ epoch: 1, sequence: 1 }, [written(0, 8, zeros)]),
    ]);
    expect((await judged(body, new Uint8Array(shape.size))).proved).toEqual([{ offset: 0, length: CELL }]);
  });

  it('are refused if there are more than a writer leaves', () => {
    const proof = new Proof(core, shape.size);
    const pairs = (count: number): Uint8Array =>
      logBody([
        frame(
          { epoch: 1, sequence: 0 },
          Array.from({ length: count }, () => writtenPair(0, 1, 2)),
        ),
      ]);
    const frames = { from: 0, to: 1 };
    const most = 2 * MAX_CLAIMS;
    const full = pairs(30);
    for (let count = 60; count <= most; count += 60) proof.collect(full, frames);
    proof.collect(pairs((most % 60) / 2), frames);
    const tooMany = logBody([frame({ epoch: 1, sequence: 0 }, [mayRead(0, 1)])]);
    expect(() => proof.collect(tooMany, frames)).toThrow(expect.objectContaining({ code: 'COD_CORRUPT' }));
  });

  it('may name a short last cell, and a whole cell whose last half is beyond a pair', async () => {
    const last = (CELLS - 1) * CELL;
    const short = new Uint8Array(100).fill(9);
    const target = concat(new Uint8Array(last), short);
    const body = logBody([frame({ epoch: 1, sequence: 0 }, [written(last + 5, 95, sum(short))])]);
    const { truth, proved } = await judged(body, target);
    expect([truth[last + 4], truth[last + 5], truth[last + 99]]).toEqual([0, 1, 1]);
    expect(proved).toEqual([{ offset: last, length: 100 }]);
  });

  it('count nowhere if the target is missing or shorter, and other errors are passed on', async () => {
    const body = logBody([
      frame({ epoch: 1, sequence: 0 }, [written(0, 8, sum(new Uint8Array(CELL)))]),
      frame({ epoch: 1, sequence: 1 }, [written(4 * CELL, 8, sum(new Uint8Array(CELL)))]),
    ]);
    expect((await judged(body, new Uint8Array(0))).proved).toEqual([]);
    expect((await judged(body, new Uint8Array(4 * CELL + 8))).proved).toEqual([{ offset: 0, length: CELL }]);
    const fails = (code: 'COD_NOT_FOUND' | 'COD_TARGET_IO') => () => Promise.reject(new CodError(code, 'no'));
    expect((await judged(body, fails('COD_NOT_FOUND'))).proved).toEqual([]);
    await expect(judged(body, fails('COD_TARGET_IO'))).rejects.toMatchObject({ code: 'COD_TARGET_IO' });
  });

  it('need one read for many neighbouring cells, and none if there are none', async () => {
    const device = geometry({ size: 2 ** 40, blockSize: CELL });
    const zeros = sum(new Uint8Array(CELL));
    const records = Array.from({ length: 60 }, (_, index) => writtenPair(2 ** 39 + index * 2 * CELL, zeros, zeros));
    const body = logBody([
      frame({ epoch: 1, sequence: 0 }, records.slice(30)),
      frame({ epoch: 1, sequence: 1 }, records.slice(0, 30)),
    ]);
    const reads: [number, number][] = [];
    const read: ReadTarget = async (into, offset) => {
      reads.push([offset, into.length]);
      into.fill(0);
    };
    const proof = new Proof(core, device.size);
    proof.collect(body, { from: 0, to: 2 });
    const state = await CopyState.open(core, device);
    expect(await proof.judge(read, state, {})).toEqual([{ offset: 2 ** 39, length: 120 * CELL }]);
    expect(reads).toEqual([[2 ** 39, 120 * CELL]]);
    expect(state.blocks.count).toBe(120);
    state.dispose();
    expect((await judged(new Uint8Array(512), () => Promise.reject(new Error('read')))).proved).toEqual([]);
  });

  it('let the event loop turn while many cells are judged, also over a target that answers at once', async () => {
    const device = geometry({ size: 2 ** 40, blockSize: CELL });
    const cells = 6000;
    const frames = Array.from({ length: cells / 20 }, (_, sequence) =>
      frame(
        { epoch: 1, sequence },
        Array.from({ length: 20 }, (_, index) => written((sequence * 20 + index) * 3 * CELL, CELL, 0)),
      ),
    );
    const proof = new Proof(core, device.size);
    proof.collect(logBody(frames), { from: 0, to: frames.length });
    const state = await CopyState.open(core, device);
    let reads = 0;
    const readsBetween: number[] = [];
    const turn = async (): Promise<void> => {
      readsBetween.push(reads);
      reads = 0;
    };
    await proof.judge(async () => void reads++, state, { turn });
    expect(readsBetween.length).toBeGreaterThan(10);
    expect(Math.max(reads, ...readsBetween)).toBeLessThanOrEqual(256);
    state.dispose();
  });
});

describe('a recovery', () => {
  async function recovered(files: MemoryFiles, size: number): Promise<{ state: unknown; proved: readonly Extent[] }> {
    const found = await recover(core, new Slots(files, 'disk', { readOnly: true }), {
      size: async () => size,
      read: async (into, offset) => (await files.open('disk')).read(into, offset),
    });
    const { state, proved } = found!;
    const read = { synced: [...state.syncedRuns()], dirty: [...state.dirtyBlocks()] };
    state.dispose();
    return { state: read, proved };
  }

  it('takes no record from what follows the last frame, even if it looks like a frame', async () => {
    const life = new Life();
    await life.start();
    await life.write(100, 50);
    await life.flush();
    await life.write(3 * CELL + 1, 7);
    const images = life.fileSystem.images();
    const name = 'disk.wil.1';
    const log = images.get(name)!;
    const { size } = images.get('disk')!;
    const before = await recovered(new MemoryFiles(images), size);
    const zeros = sum(new Uint8Array(CELL));
    const stale = [
      // Of an earlier epoch, with a sequence that counts here; and bytes that are no frame.
      frame({ epoch: 0, sequence: 2 }, [written(2 * CELL, 9, zeros)]),
      frame({ epoch: 1, sequence: 1 }, [written(2 * CELL, 9, zeros)]),
      Uint8Array.from({ length: 60 }, (_, index) => index + 1),
    ];
    for (const rest of stale) {
      const bytes = concat(log.bytes, new Uint8Array((8 - (log.bytes.length % 8)) % 8), rest);
      const files = new MemoryFiles(new Map(images).set(name, { bytes, size: log.size }));
      expect(await recovered(files, size)).toEqual(before);
    }
  });

  it('believes a barrier behind missing frames, whatever bytes are in their place', async () => {
    const life = new Life();
    await life.start();
    const fileSystem = life.fileSystem;
    // A flush whose barrier comes after a frame in another sector, which is not durable with it.
    for (let count = 0; count < 40; count++) await life.write(3 * CELL + 2 * count, 1);
    let isWriting = false;
    fileSystem.before = async ({ kind, name }) => {
      if (kind !== 'sync' || name !== 'disk' || isWriting) return;
      isWriting = true;
      for (let count = 0; count < 40; count++) await life.write(CELL + 2 * count, 1);
    };
    await life.flush();
    fileSystem.before = undefined;
    const images = fileSystem.images();
    const name = 'disk.wil.1';
    const { bytes, size } = images.get(name)!;
    const frames = framesOf(bytes);
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    const last = frames.at(-1)!;
    const [type, through] = [view.getUint8(last + 16 + 7), view.getUint32(last + 16 + 8, true)];
    expect([type, through < frames.length - 60]).toEqual([2, true]);
    // The target lost what was not flushed. So did the log, in the sectors between: they have junk.
    const target = images.get('disk')!;
    const kept = target.bytes.slice().fill(0, CELL, 2 * CELL);
    const junk = bytes.slice();
    const [first, end] = [frames[through - 1]!, last].map((at) => at - (at % 512)) as [number, number];
    expect(end - first).toBeGreaterThan(1024);
    seededRandom(1).fill(junk.subarray(first + 512, end));
    const files = new MemoryFiles(
      new Map(images).set(name, { bytes: junk, size }).set('disk', { bytes: kept, size: target.size }),
    );
    const { state } = await recovered(files, target.size);
    expect(state).toEqual({ synced: [], dirty: [{ block: 3, parts: parts(40) }] });
    // In the sector of the last frame below the barrier, too.
    const tail = junk.slice();
    tail.fill(0xff, frames[through]!, first + 512);
    const again = new MemoryFiles(
      new Map(images).set(name, { bytes: tail, size }).set('disk', { bytes: kept, size: target.size }),
    );
    expect((await recovered(again, target.size)).state).toEqual(state);
  });
});

/** Parts of one byte at every second place from byte 0 on. */
function parts(count: number): [number, number][] {
  return Array.from({ length: count }, (_, index) => [2 * index, 2 * index + 1]);
}

/** Where the frames of a log begin. */
function framesOf(log: Uint8Array): number[] {
  const view = new DataView(log.buffer, log.byteOffset, log.byteLength);
  const frames: number[] = [];
  for (let at = 512; at + 40 <= log.length; ) {
    const length = view.getUint16(at, true);
    if (length > 0) frames.push(at);
    at += length > 0 ? length : 512 - (at % 512);
  }
  return frames;
}
