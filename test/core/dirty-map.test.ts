import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { concat } from '../../src/core/concat.ts';
import { DirtyMap } from '../../src/core/dirty-map.ts';
import { geometry } from '../../src/core/geometry.ts';
import { GrowingBuffer } from '../../src/core/growing-buffer.ts';
import { isCodError } from '../../src/errors.ts';
import { builds } from './builds.ts';
import { ended, Model } from './models.ts';

const shape = geometry({ size: 5000 * 4096 - 1000, blockSize: 4096 });

/** The dirty section of a slice as docs/FORMAT.md specifies it. */
function section(blocks: [number, (readonly [number, number])[]][]): Uint8Array {
  return new Uint8Array(
    Uint32Array.from(blocks.flatMap(([block, parts]) => [block, parts.length, ...parts.flat()])).buffer,
  );
}

/** The dirty section of the first slice, and the number of its blocks. */
function saved(map: DirtyMap): { bytes: Uint8Array; count: number } {
  const buffer = new GrowingBuffer();
  const count = ended(map.serializing(0, buffer));
  return { bytes: buffer.bytes, count };
}

function load(map: DirtyMap, bytes: Uint8Array): void {
  ended(map.loading(0, bytes));
}

describe.each(builds)('the dirty map of the $name core', ({ create }) => {
  it('keeps merged parts equal to a model of bytes', () => {
    const core = create();
    const block = fc.oneof(fc.nat(12), fc.nat(4999), fc.constant(4999));
    const operation = fc.oneof(
      {
        weight: 8,
        arbitrary: fc.record({
          op: fc.constant('add' as const),
          block,
          start: fc.nat(63),
          length: fc.integer({ min: 1, max: 20 }),
        }),
      },
      {
        weight: 1,
        arbitrary: fc.record({
          op: fc.constant('add' as const),
          block,
          start: fc.constant(0),
          length: fc.constant(64),
        }),
      },
      {
        weight: 1,
        arbitrary: fc.record({ op: fc.constant('remove' as const), block, length: fc.oneof(fc.nat(3), fc.nat(5000)) }),
      },
    );
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 120, size: 'max' }), (operations) => {
        const map = new DirtyMap(core, shape);
        const model = new Model(shape);
        for (const operation of operations) {
          if (operation.op === 'remove') {
            const end = Math.min(5000, operation.block + operation.length);
            map.remove(operation.block, end);
            for (const block of [...model.parts.keys()])
              if (block >= operation.block && block < end) model.parts.delete(block);
            continue;
          }
          const whole = operation.block === 4999 ? 3096 : 4096;
          const start = operation.start * 64;
          const end = Math.min(whole, start + operation.length * 64);
          if (start >= end) continue;
          model.write(operation.block, start, end);
          const complete = model.parts.get(operation.block)!.every((byte) => byte === 1);
          expect(map.add(operation.block, start, end)).toBe(complete ? 'complete' : 'dirty');
          if (complete) model.parts.delete(operation.block);
        }
        const { dirty } = model.state();
        expect([...map.blocks()].map((block) => [block, map.parts(block)])).toEqual(dirty);
        expect(map.blockCount).toBe(dirty.length);
        expect(map.partCount).toBe(dirty.reduce((sum, [, parts]) => sum + parts.length, 0));
        const all = Array.from({ length: 5000 }, (_, block) => block);
        expect(all.filter((block) => map.has(block))).toEqual(dirty.map(([block]) => block));
        for (const [start, end] of [
          [0, 5],
          [3, 3],
          [10, 4000],
          [4999, 5000],
        ] as const) {
          expect(map.hasAny(start, end)).toBe(dirty.some(([block]) => block >= start && block < end));
        }
        const { bytes, count } = saved(map);
        expect(count).toBe(dirty.length);
        expect(Buffer.from(bytes).equals(section(dirty.map(([block, parts]) => [block, [...parts]])))).toBe(true);
        const other = new DirtyMap(core, shape);
        load(other, bytes);
        expect(Buffer.from(saved(other).bytes).equals(bytes)).toBe(true);
        other.dispose();
        map.dispose();
      }),
      { numRuns: 150 },
    );
  });

  it('writes and reads a section in steps, between which blocks may become dirty or synced', () => {
    const core = create();
    const large = geometry({ size: 2 ** 40, blockSize: 4096 });
    const map = new DirtyMap(core, large);
    const first = 3 * 2 ** 24;
    const count = 10_000;
    for (let block = 0; block < count; block++) map.add(first + block, 5, 10);
    const buffer = new GrowingBuffer();
    const steps = map.serializing(3, buffer);
    let taken = 0;
    for (let step = steps.next(); !step.done; step = steps.next()) {
      // A block before the present place, and one after it.
      map.remove(first + taken, first + taken + 1);
      map.remove(first + 9000 + taken, first + 9001 + taken);
      map.add(first + count + taken, 0, 1);
      taken++;
    }
    expect(taken).toBe(3);
    const other = new DirtyMap(core, large);
    expect([...other.loading(3, buffer.bytes)].length).toBe(2);
    expect(other.blockCount).toBe(count - 2);
    expect([other.parts(first), other.parts(first + 9000), other.parts(first + count)]).toEqual([[[5, 10]], [], []]);
  });

  it('grows to many blocks and parts, and frees all of them', () => {
    const core = create();
    const large = geometry({ size: 2 ** 45, blockSize: 65_536 });
    const before = core.memoryBytes;
    for (let round = 0; round < 3; round++) {
      const map = new DirtyMap(core, large);
      for (let i = 0; i < 50_000; i++) {
        const block = (i * 7919 * 10_007) % large.blockCount;
        for (const start of [60_000, 10, 200])
          if (map.add(block, start, start + 5) !== 'dirty') throw new Error(`block ${block}`);
      }
      expect([map.blockCount, map.partCount]).toEqual([50_000, 150_000]);
      const blocks = [...map.blocks()];
      expect(blocks.every((block, i) => i === 0 || block > blocks[i - 1]!)).toBe(true);
      map.remove(0, large.blockCount);
      expect([map.blockCount, map.partCount]).toEqual([0, 0]);
      map.dispose();
    }
    expect(core.memoryBytes - before).toBeLessThan(16 * 2 ** 20);
  });

  it('changes nothing when a limit would be exceeded', () => {
    const core = create();
    const map = new DirtyMap(core, shape, { maxBlocks: 2, maxParts: 4 });
    expect([map.add(0, 0, 1), map.add(1, 0, 1), map.add(2, 0, 1)]).toEqual(['dirty', 'dirty', 'full']);
    expect(map.add(2, 0, 4096)).toBe('complete');
    expect([map.add(0, 2, 3), map.add(0, 4, 5), map.add(0, 6, 7)]).toEqual(['dirty', 'dirty', 'full']);
    expect(map.add(0, 1, 5)).toBe('dirty');
    expect(map.parts(0)).toEqual([[0, 5]]);
    expect([map.blockCount, map.partCount, map.hasRoom]).toEqual([2, 2, false]);
    const wide = new DirtyMap(core, geometry({ size: 2 ** 30, blockSize: 2 ** 20 }));
    for (let i = 0; i < 65_536; i++) wide.add(3, i * 2, i * 2 + 1);
    expect(wide.add(3, 200_000, 200_001)).toBe('full');
    expect(wide.partCount).toBe(65_536);
  });

  it('checks every argument', () => {
    const map = new DirtyMap(create(), shape);
    for (const [block, start, end] of [
      [-1, 0, 1],
      [5000, 0, 1],
      [0.5, 0, 1],
      [0, 1, 1],
      [0, 2, 1],
      [0, -1, 1],
      [0, 0, 4097],
      [4999, 0, 3097],
      [0, 0.5, 1],
    ] as const) {
      expect(() => map.add(block, start, end)).toThrow(RangeError);
    }
    expect(() => map.hasAny(0, 5001)).toThrow(RangeError);
    expect(() => map.remove(2, 1)).toThrow(RangeError);
    expect(() => map.parts(5000)).toThrow(RangeError);
  });

  it('refuses a section that differs from what it writes', () => {
    const core = create();
    const good = section([
      [
        3,
        [
          [0, 1],
          [5, 9],
        ],
      ],
      [4999, [[0, 3095]]],
    ]);
    /** Loads a section, and returns what the map then saves. */
    const loaded = (bytes: Uint8Array): Uint8Array => {
      const map = new DirtyMap(core, shape);
      try {
        load(map, bytes);
        return saved(map).bytes;
      } finally {
        map.dispose();
      }
    };
    expect(Buffer.from(loaded(good)).equals(good)).toBe(true);
    const bad: Uint8Array[] = [
      good.subarray(0, good.length - 8),
      good.subarray(0, good.length - 1),
      good.subarray(0, 12),
      concat(good, new Uint8Array(8)),
      section([
        [4, [[0, 1]]],
        [3, [[0, 1]]],
      ]),
      section([
        [3, [[0, 1]]],
        [3, [[4, 5]]],
      ]),
      section([[5000, [[0, 1]]]]),
      section([[3, []]]),
      section([
        [
          3,
          [
            [5, 9],
            [0, 1],
          ],
        ],
      ]),
      section([
        [
          3,
          [
            [0, 5],
            [5, 9],
          ],
        ],
      ]),
      section([[3, [[1, 1]]]]),
      section([[3, [[0, 4096]]]]),
      section([[4999, [[0, 3096]]]]),
      section([[4999, [[1, 3097]]]]),
    ];
    for (const bytes of bad) {
      expect(() => loaded(bytes)).toThrow(expect.objectContaining({ code: 'COD_CORRUPT' }));
    }
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { maxLength: 3 }), (changes) => {
        const bytes = good.slice();
        for (const [at, value] of changes) bytes[at] = value;
        try {
          expect(Buffer.from(loaded(bytes)).equals(bytes)).toBe(true);
        } catch (error) {
          if (!isCodError(error, 'COD_CORRUPT')) throw error;
        }
      }),
    );
  });
});
