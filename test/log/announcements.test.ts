/** What is announced and recorded for a write, against a model of the target and of the records' meaning. */

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CopyState } from '../../src/core/copy-state.ts';
import { geometry } from '../../src/core/geometry.ts';
import { FILLED, MAY_READ, MODIFIED, WRITTEN, WRITTEN_PAIR } from '../../src/core/layout.ts';
import { Announcements, addFilled, applyExtents, extentsOf, type Recorded } from '../../src/log/announcements.ts';
import { Firmness } from '../../src/log/firmness.ts';
import { Core } from '../../src/wasm/core.ts';

const core = Core.create();
const CELL = 4096;
const BLOCK = 2 * CELL;
const SIZE = 7 * CELL + 100;
const shape = geometry({ size: SIZE, blockSize: BLOCK });

type Claim = readonly [type: number, offset: number, low: number, high: number];

function claimsIn(records: readonly number[]): Claim[] {
  const claims: Claim[] = [];
  for (let at = 0; at < records.length; at += 4) claims.push(records.slice(at, at + 4) as unknown as Claim);
  return claims;
}

/** A log that appends nothing: it notes what was announced, and how. */
class World {
  readonly target = new Uint8Array(SIZE);
  readonly firmness = new Firmness(BLOCK);
  readonly announced: Claim[] = [];
  readonly joined: Claim[] = [];
  /** Records that wait for their append. */
  readonly waiting: number[] = [];
  /** Reads complete later. */
  isSlow = false;
  reads = 0;
  readonly state: CopyState;
  readonly announcements: Announcements;

  private constructor(state: CopyState) {
    this.state = state;
    this.announcements = new Announcements({
      core,
      state,
      firmness: this.firmness,
      read: (into, offset) => {
        this.reads++;
        const copy = (): void => into.set(this.target.subarray(offset, offset + into.length));
        if (this.isSlow) return Promise.resolve().then(copy);
        copy();
        return undefined;
      },
      log: {
        announce: ({ records, extents }) => {
          this.announced.push(...claimsIn(records));
          this.append(records);
          applyExtents(extents, this.state);
          return undefined;
        },
        join: (records) => {
          this.joined.push(...claimsIn(records));
          this.waiting.push(...records);
          return undefined;
        },
        names: (offset, length) =>
          claimsIn(this.waiting).some(([, start]) => cellsOf(offset, length).includes(Math.floor(start / CELL))),
      },
    });
  }

  static async create(): Promise<World> {
    return new World(await CopyState.open(core, shape));
  }

  append(records: readonly number[]): void {
    this.firmness.begin(records);
    this.firmness.end(records);
  }

  /** A write whose records are appended and applied, as a commit does. */
  async write(offset: number, bytes: Uint8Array): Promise<Claim[]> {
    const recorded: Recorded = { records: [], extents: [] };
    await this.announcements.write(recorded, offset, bytes);
    this.target.set(bytes, offset);
    this.append(recorded.records);
    applyExtents(recorded.extents, this.state);
    return claimsIn(recorded.records);
  }

  fill(offset: number, length: number): void {
    const recorded: Recorded = { records: [], extents: [] };
    addFilled(recorded, offset, length);
    this.append(recorded.records);
    this.state.apply(offset, length);
  }

  flush(): void {
    this.firmness.firm(this.firmness.age());
  }

  /** Whether a write of these bytes may change a block that is synced and not modified. */
  mustMark(offset: number, length: number): boolean {
    const blocks: number[] = [];
    for (let block = Math.floor(offset / BLOCK); block * BLOCK < offset + length; block++) blocks.push(block);
    return blocks.some((block) => this.state.blocks.has(block) && !this.state.modified.has(block));
  }

  /** The sum of a cell as the target reads now. */
  sumAt(cell: number): number {
    return core.cellSum(this.target.subarray(cell * CELL, Math.min(SIZE, (cell + 1) * CELL)));
  }
}

function cellsOf(offset: number, length: number): number[] {
  const cells: number[] = [];
  for (let cell = Math.floor(offset / CELL); cell * CELL < offset + length; cell++) cells.push(cell);
  return cells;
}

const range = fc.tuple(fc.nat(SIZE - 1), fc.constantFrom(1, 100, CELL, BLOCK, 3 * CELL + 7), fc.boolean());
const step = fc.oneof(
  { weight: 5, arbitrary: fc.record({ kind: fc.constantFrom('write', 'change' as const), range, slow: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('fill' as const), range }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('flush' as const) }) },
);

describe('a write of a user', () => {
  it('is recorded unless firm or user records have its blocks, and announced where cells are named', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
        const world = await World.create();
        let value = 0;
        /** Cells named by records behind the last flush, and bytes that only fills behind it have. */
        let named = new Set<number>();
        let unfirmFills = new Uint8Array(SIZE);
        try {
          for (const one of steps) {
            if (one.kind === 'flush') {
              world.flush();
              named = new Set();
              unfirmFills = new Uint8Array(SIZE);
              continue;
            }
            const [wanted, length, aligned] = one.range;
            const offset = aligned ? wanted - (wanted % CELL) : wanted;
            const bytes = new Uint8Array(Math.min(length, SIZE - offset)).fill(++value);
            const cells = cellsOf(offset, bytes.length);
            if (one.kind === 'fill') {
              const start = offset - (offset % BLOCK);
              const end = Math.min(SIZE, Math.ceil((offset + bytes.length) / BLOCK) * BLOCK);
              world.fill(start, end - start);
              unfirmFills.fill(1, start, end);
              continue;
            }
            world.isSlow = one.slow;
            world.announced.length = 0;
            const isSynced = world.state.isSynced(offset, bytes.length);
            const blockStart = offset - (offset % BLOCK);
            const blockEnd = Math.ceil((offset + bytes.length) / BLOCK) * BLOCK;
            const isFilled = unfirmFills.subarray(blockStart, blockEnd).includes(1);
            const isMarked = one.kind === 'write' && world.mustMark(offset, bytes.length);
            let records: Claim[] = [];
            if (one.kind === 'write') records = await world.write(offset, bytes);
            else {
              await world.announcements.change(offset, bytes);
              world.target.set(bytes, offset);
            }
            // Every named cell was announced with the sum that it has now, and no other cell was.
            const expected = cells
              .filter((cell) => named.has(cell))
              .map((cell) => [MAY_READ, cell * CELL, world.sumAt(cell), 0]);
            const mark = isMarked ? [[MODIFIED, offset, bytes.length, 0]] : [];
            expect(world.announced).toEqual([...expected, ...mark]);
            expect(world.joined).toEqual([]);
            if (one.kind === 'change') continue;
            expect(records.length > 0).toBe(!isSynced || isFilled);
            if (records.length === 0) continue;
            // The records cover the bytes exactly, in order, and have the sum of each cell.
            let at = offset;
            for (const [type, start, low, high] of records) {
              expect(start).toBe(at);
              const cell = Math.floor(at / CELL);
              if (type === WRITTEN_PAIR) {
                expect([at % CELL, low, high]).toEqual([0, world.sumAt(cell), world.sumAt(cell + 1)]);
                at += 2 * CELL;
              } else {
                expect([type, high]).toEqual([WRITTEN, world.sumAt(cell)]);
                expect((at % CELL) + low).toBeLessThanOrEqual(CELL);
                at += low;
              }
            }
            expect(at).toBe(offset + bytes.length);
            for (const cell of cells) named.add(cell);
          }
        } finally {
          world.state.dispose();
        }
      }),
      { numRuns: 300 },
    );
  });

  it('reads the target only for cells that it covers in part', async () => {
    const world = await World.create();
    await world.write(CELL, new Uint8Array(4 * CELL).fill(1));
    expect(world.reads).toBe(0);
    await world.write(SIZE - 100, new Uint8Array(100).fill(2));
    expect(world.reads).toBe(0);
    await world.write(3 * CELL - 1, new Uint8Array(2).fill(3));
    expect(world.reads).toBe(2);
    await world.write(CELL + 1, new Uint8Array(3 * CELL).fill(4));
    expect(world.reads).toBe(4);
    world.state.dispose();
  });

  it('completes synchronously if its reads do', async () => {
    const world = await World.create();
    const recorded: Recorded = { records: [], extents: [] };
    expect(world.announcements.write(recorded, 1, new Uint8Array(9000))).toBeUndefined();
    world.isSlow = true;
    expect(world.announcements.write(recorded, 1, new Uint8Array(9000))).toBeInstanceOf(Promise);
    expect(world.announcements.write(recorded, CELL, new Uint8Array(CELL))).toBeUndefined();
    world.state.dispose();
  });

  it('over firm synced blocks needs neither a record nor a read, and over unfirm ones both', async () => {
    const world = await World.create();
    world.fill(0, BLOCK);
    world.flush();
    expect(await world.write(5, new Uint8Array(10).fill(1))).toEqual([]);
    // Only that the block is no longer the source's.
    expect([world.reads, world.announced.splice(0)]).toEqual([0, [[MODIFIED, 5, 10, 0]]]);
    expect(await world.write(5000, new Uint8Array(10).fill(2))).toEqual([]);
    expect([world.reads, world.announced]).toEqual([0, []]);
    world.fill(BLOCK, BLOCK);
    expect(await world.write(BLOCK + 5, new Uint8Array(10).fill(1))).toEqual([
      [WRITTEN, BLOCK + 5, 10, world.sumAt(2)],
    ]);
    expect([world.reads, world.announced]).toEqual([1, [[MODIFIED, BLOCK + 5, 10, 0]]]);
    world.state.dispose();
  });

  it('over bytes of an unfirm write is announced, and needs no second record', async () => {
    const world = await World.create();
    await world.write(0, new Uint8Array(BLOCK).fill(1));
    expect(await world.write(5, new Uint8Array(10).fill(2))).toEqual([]);
    expect(world.announced).toEqual([[MAY_READ, 0, world.sumAt(0), 0]]);
    world.flush();
    expect(await world.write(5, new Uint8Array(10).fill(3))).toEqual([]);
    expect(world.announced.length).toBe(1);
    world.state.dispose();
  });

  it('of the same cell in one turn joins the records that wait, and does not wait for their append', async () => {
    const world = await World.create();
    const recorded: Recorded = { records: [], extents: [] };
    await world.announcements.write(recorded, 0, new Uint8Array(10).fill(1));
    world.target.fill(1, 0, 10);
    world.waiting.push(...recorded.records);
    await world.announcements.write(recorded, 10, new Uint8Array(10).fill(2));
    world.target.fill(2, 10, 20);
    expect(world.announced).toEqual([]);
    expect(world.joined).toEqual([[MAY_READ, 0, world.sumAt(0), 0]]);
    // Once the log has the first record, a change must wait for its announcement.
    world.waiting.length = 0;
    world.append(recorded.records);
    await world.announcements.change(0, new Uint8Array(10).fill(3));
    world.target.fill(3, 0, 10);
    expect(world.announced).toEqual([[MAY_READ, 0, world.sumAt(0), 0]]);
    world.state.dispose();
  });
});

describe('a write that failed', () => {
  it('is announced with what the named cells read as, whatever that is', async () => {
    const world = await World.create();
    await world.write(0, new Uint8Array(CELL).fill(1));
    await world.write(SIZE - 50, new Uint8Array(50).fill(1));
    const reads = world.reads;
    // It left its beginning.
    world.target.fill(2, 100, 105);
    await world.announcements.content(100, CELL);
    expect(world.announced.splice(0)).toEqual([[MAY_READ, 0, world.sumAt(0), 0]]);
    expect(world.reads).toBe(reads + 1);
    world.isSlow = true;
    world.target.fill(2, SIZE - 3);
    await world.announcements.content(SIZE - 3, 3);
    expect(world.announced.splice(0)).toEqual([[MAY_READ, 7 * CELL, world.sumAt(7), 0]]);
    world.state.dispose();
  });

  it('over cells that no record names is not announced, and not read', async () => {
    const world = await World.create();
    await world.write(0, new Uint8Array(CELL).fill(1));
    expect(world.announcements.content(CELL, 3 * CELL)).toBeUndefined();
    expect([world.reads, world.announced]).toEqual([0, []]);
    world.state.dispose();
  });
});

describe('the extents of records', () => {
  const pair = [WRITTEN_PAIR, 0, 11, 12];
  const filled = (offset: number, length: number) => [FILLED, offset, length % 2 ** 32, Math.floor(length / 2 ** 32)];

  it('have the bytes of each record, and nothing of announcements', () => {
    expect(extentsOf([WRITTEN, 100, 200, 7])).toEqual([WRITTEN, 100, 200]);
    expect(extentsOf(pair)).toEqual([WRITTEN, 0, 2 * CELL]);
    expect(extentsOf(filled(CELL, 2 ** 40 + 5))).toEqual([FILLED, CELL, 2 ** 40 + 5]);
    expect(extentsOf([MODIFIED, 5, 10, 1])).toEqual([MODIFIED, 5, 10 + 2 ** 32]);
    expect(extentsOf([MAY_READ, 0, 9, 0])).toEqual([]);
  });

  it('are joined only where a record follows another one of its kind without a gap', () => {
    const end = 2 * CELL;
    expect(extentsOf([...pair, WRITTEN, end, 10, 7, WRITTEN, end + 10, 5, 7])).toEqual([WRITTEN, 0, end + 15]);
    expect(extentsOf([...pair, ...filled(end, 10)])).toEqual([WRITTEN, 0, end, FILLED, end, 10]);
    expect(extentsOf([...pair, WRITTEN, end + 1, 10, 7])).toEqual([WRITTEN, 0, end, WRITTEN, end + 1, 10]);
    expect(extentsOf([...filled(0, 9), ...filled(4, 9)])).toEqual([FILLED, 0, 9, FILLED, 4, 9]);
    // An announcement between them separates nothing.
    expect(extentsOf([...filled(0, 9), MAY_READ, 9, 1, 0, ...filled(9, 1)])).toEqual([FILLED, 0, 10]);
  });
});

describe('a fill', () => {
  it('is one record of any length, without a sum', () => {
    const recorded: Recorded = { records: [], extents: [] };
    addFilled(recorded, 4096, 2 ** 40 + 5);
    expect(recorded).toEqual({ records: [FILLED, 4096, 5, 256], extents: [FILLED, 4096, 2 ** 40 + 5] });
  });
});
