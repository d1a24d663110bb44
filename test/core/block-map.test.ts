import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { RoaringBitmap32 } from 'roaring-wasm/browser';
import { describe, expect, it, vi } from 'vitest';
import { BlockMap } from '../../src/core/block-map.ts';
import { concat } from '../../src/core/concat.ts';
import { addFormat1Bitmap } from '../../src/core/format1-bitmaps.ts';
import { type Geometry, geometry } from '../../src/core/geometry.ts';
import { maximumOf, parsePortable, portableSlices, runsOf } from '../../src/core/portable.ts';
import { isCodError } from '../../src/errors.ts';
import { canonicalBytes, ended, sliceOf } from './models.ts';

const shape = geometry({ size: 200_000 * 4096, blockSize: 4096 });
/** Slightly more than two bitmaps of format 1. */
const wide = geometry({ size: (2 ** 33 + 1000) * 4096, blockSize: 4096 });

async function use<T>(device: Geometry, task: (map: BlockMap) => T | Promise<T>): Promise<T> {
  const map = await BlockMap.open(device);
  try {
    return await task(map);
  } finally {
    map.dispose();
  }
}

function isRefused(action: () => unknown): boolean {
  try {
    action();
    return false;
  } catch (error) {
    if (isCodError(error, 'COD_CORRUPT')) return true;
    throw error;
  }
}

function set(...ranges: [number, number][]): Set<number> {
  const values = new Set<number>();
  for (const [start, end] of ranges) for (let value = start; value < end; value++) values.add(value);
  return values;
}

const ranges = fc.array(
  fc
    .tuple(
      fc.oneof(fc.nat(199_999), fc.constantFrom(0, 65_535, 65_536, 131_071)),
      fc.oneof(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 70_000 })),
    )
    .map(([start, length]): [number, number] => [start, Math.min(200_000, start + length)]),
  { maxLength: 15 },
);

describe('the block map', () => {
  it('answers like a plain set', async () => {
    await fc.assert(
      fc.asyncProperty(
        ranges,
        fc.array(fc.tuple(fc.nat(200_000), fc.nat(200_000)), { maxLength: 10 }),
        async (added, asked) =>
          use(shape, (map) => {
            const model = new Uint8Array(200_000);
            for (const [start, end] of added) {
              map.add(start, end);
              model.fill(1, start, end);
            }
            expect(map.count).toBe(model.reduce((sum, bit) => sum + bit, 0));
            const find = (state: number, from: number, limit: number): number => {
              const found = model.indexOf(state, from);
              return found < 0 || found > limit ? limit : found;
            };
            for (const [a, b] of asked) {
              const [start, end] = a < b ? [a, b] : [b, a];
              expect(map.hasRange(start, end)).toBe(!model.subarray(start, end).includes(0));
              expect(map.hasAny(start, end)).toBe(model.subarray(start, end).includes(1));
              expect(map.nextUnsynced(start, end)).toBe(find(0, start, end));
              expect(map.nextSynced(start, end)).toBe(find(1, start, end));
              expect(map.nextSynced(start)).toBe(find(1, start, 200_000));
              let at = start;
              for (const extent of map.extents(start, end)) {
                expect(extent.start).toBe(at);
                expect(extent.end).toBe(find(extent.synced ? 0 : 1, at, end));
                expect(extent.synced).toBe(model[at] === 1);
                at = extent.end;
              }
              expect(at).toBe(end);
              if (start < 200_000) expect(map.has(start)).toBe(model[start] === 1);
            }
          }),
      ),
      { numRuns: 50 },
    );
  });

  it('writes equal bytes for equal sets, independent of their history, and reads them back', async () => {
    await fc.assert(
      fc.asyncProperty(ranges, async (added) => {
        const bytes: Uint8Array[] = [];
        for (const order of [added, [...added].reverse()]) {
          await use(shape, (map) => {
            for (const [start, end] of order) {
              map.add(start, end);
              if (order !== added) sliceOf(map, 0);
            }
            bytes.push(sliceOf(map, 0));
          });
        }
        const portable = added.length === 0 ? new Uint8Array(0) : canonicalBytes(set(...added));
        expect(Buffer.from(bytes[0]!).equals(portable)).toBe(true);
        expect(Buffer.from(bytes[1]!).equals(bytes[0]!)).toBe(true);
        await use(shape, (map) => {
          if (added.length > 0) ended(map.uniting(0, bytes[0]!));
          expect([map.count, map.countOf(0)]).toEqual([set(...added).size, set(...added).size]);
          expect(Buffer.from(sliceOf(map, 0)).equals(bytes[0]!)).toBe(true);
        });
      }),
      { numRuns: 60 },
    );
  });

  it('stores runs as an array if they hold twice as many values as runs, unlike CRoaring alone', async () => {
    await use(shape, (map) => {
      map.add(0, 3);
      map.add(10, 11);
      for (let times = 0; times < 2; times++)
        expect(Buffer.from(sliceOf(map, 0)).equals(canonicalBytes([0, 1, 2, 10]))).toBe(true);
      expect(map.count).toBe(4);
    });
  });

  it('spans slices of 2^24 blocks', async () => {
    await use(wide, (map) => {
      map.add(2 ** 32 - 5, 2 ** 32 + 5);
      map.add(2 ** 33 - 1, 2 ** 33 + 1000);
      expect(map.count).toBe(1011);
      expect(map.has(2 ** 32 + 4)).toBe(true);
      expect(map.has(4)).toBe(false);
      expect(map.hasRange(2 ** 32 - 5, 2 ** 32 + 5)).toBe(true);
      expect(map.nextUnsynced(2 ** 32 - 5)).toBe(2 ** 32 + 5);
      expect(map.nextSynced(0)).toBe(2 ** 32 - 5);
      const runs = [
        [2 ** 32 - 5, 2 ** 32 + 5],
        [2 ** 33 - 1, 2 ** 33 + 1000],
      ];
      expect([...map.runs()]).toEqual(runs);
      expect([...map.runs(2 ** 32 + 6)]).toEqual([[2 ** 32, 2 ** 32 + 5], runs[1]]);
      expect([...map.runs(2 ** 33 + 999)]).toEqual([[2 ** 33, 2 ** 33 + 1000]]);
      expect(map.filter(Float64Array.of(1, 2 ** 32 - 5, 2 ** 32 + 4, 2 ** 32 + 5, 2 ** 33 + 999))).toEqual([
        2 ** 32 - 5,
        2 ** 32 + 4,
        2 ** 33 + 999,
      ]);
      return use(wide, (other) => {
        const slices = [2 ** 8 - 1, 2 ** 8, 2 ** 9 - 1, 2 ** 9];
        for (let slice = 0; slice <= 2 ** 9; slice++) {
          const bytes = sliceOf(map, slice);
          expect(bytes.length > 0).toBe(slices.includes(slice));
          if (bytes.length > 0) ended(other.uniting(slice, bytes));
        }
        expect([other.count, ...slices.map((slice) => other.countOf(slice))]).toEqual([1011, 5, 5, 1, 1000]);
        other.add(0, 2 ** 33 + 1000);
        expect(other.count).toBe(2 ** 33 + 1000);
        expect(other.nextUnsynced(0)).toBe(2 ** 33 + 1000);
      });
    });
  });

  it('reads the bitmaps of format 1, one per 2^32 - 1 blocks, and drops the phantom block', async () => {
    await use(wide, (map) => {
      addFormat1Bitmap(map, wide, 0, canonicalBytes([0, 2 ** 32 - 1]));
      expect([map.has(0), map.has(2 ** 32 - 1)]).toEqual([true, true]);
      addFormat1Bitmap(map, wide, 1, canonicalBytes([0, 1, 2, 2 ** 32 - 2]));
      addFormat1Bitmap(map, wide, 2, canonicalBytes([0, 1, 2, 1001, 1002, 5000]));
      expect([...map.runs()]).toEqual(
        [
          [0, 1],
          [2 ** 32 - 1, 2 ** 32 + 2],
          [2 ** 33 - 3, 2 ** 33 + 1],
          [2 ** 33 - 2 + 1001, 2 ** 33 + 1000],
        ].filter(([start, end]) => start! < end!),
      );
    });
  });

  it('retains what another map or a list has, in one slice', async () => {
    const second = 2 ** 24;
    await fc.assert(
      fc.asyncProperty(ranges, ranges, fc.array(fc.array(fc.nat(199_999))), async (own, others, lists) =>
        use(wide, (map) =>
          use(wide, (other) => {
            map.add(7, 9);
            for (const [start, end] of own) map.add(second + start, second + end);
            for (const [start, end] of others) other.add(second + start, second + end);
            const kept = new Set([...set(...others), ...lists.flat()]);
            const expected = [...set(...own)].filter((block) => kept.has(block));
            ended(
              map.retaining(
                1,
                other,
                lists.map((blocks) => Float64Array.from(blocks, (block) => second + block)),
              ),
            );
            expect([map.count, map.countOf(1)]).toEqual([2 + expected.length, expected.length]);
            const portable = expected.length === 0 ? new Uint8Array(0) : canonicalBytes(expected);
            expect(Buffer.from(sliceOf(map, 1)).equals(portable)).toBe(true);
            expect([map.has(7), map.has(8), other.count]).toEqual([true, true, set(...others).size]);
          }),
        ),
      ),
      { numRuns: 30 },
    );
  });

  it('retains step by step, and frees the memory of what it needs meanwhile', async () => {
    await use(shape, (map) =>
      use(shape, (other) => {
        map.add(0, 10);
        other.add(0, 5);
        const dispose = vi.spyOn(RoaringBitmap32.prototype, 'dispose');
        // One step for each list.
        expect([...map.retaining(0, other, [Float64Array.of(7), Float64Array.of(9)])]).toHaveLength(2);
        expect(dispose).toHaveBeenCalledTimes(1);
        expect([...map.runs()]).toEqual([
          [0, 5],
          [7, 8],
          [9, 10],
        ]);
        // Nothing to drop: no list is looked at.
        other.add(5, 10);
        expect([...map.retaining(0, other, [Float64Array.of(1)])]).toEqual([]);
        dispose.mockRestore();
      }),
    );
  });

  it('checks every argument, because roaring-wasm would wrap silently', async () => {
    await use(shape, (map) => {
      for (const bad of [-1, 200_000, 0.5, 2 ** 32 + 5, NaN]) expect(() => map.has(bad)).toThrow(RangeError);
      for (const [start, end] of [
        [-1, 1],
        [2, 1],
        [0, 200_001],
        [0.5, 1],
        [2 ** 32, 2 ** 32 + 5],
      ] as const) {
        for (const call of ['add', 'hasRange', 'hasAny', 'nextSynced', 'nextUnsynced'] as const) {
          expect(() => map[call](start, end)).toThrow(RangeError);
        }
      }
      for (const slice of [1, -1, 0.5]) expect(() => ended(map.uniting(slice, canonicalBytes([])))).toThrow(RangeError);
      map.add(7, 7);
      expect(map.count).toBe(0);
    });
  });

  it('refuses values beyond the device or the slice, and bytes of a wrong length', async () => {
    await use(shape, (map) => {
      const good = canonicalBytes([199_999]);
      for (const bad of [
        canonicalBytes([200_000]),
        good.subarray(0, 7),
        good.subarray(0, good.length - 1),
        concat(good, new Uint8Array(8)),
      ]) {
        expect(isRefused(() => ended(map.uniting(0, bad)))).toBe(true);
        expect(map.count).toBe(0);
      }
    });
    await use(wide, (map) => expect(isRefused(() => ended(map.uniting(3, canonicalBytes([2 ** 24]))))).toBe(true));
  });

  it('merges a bitmap of more values than roaring-wasm adds at once without a trap', async () => {
    await use(geometry({ size: 2 ** 40, blockSize: 4096 }), (map) => {
      const blocks = Float64Array.from({ length: 1_200_000 }, (_, i) => i * 200);
      for (const block of blocks.subarray(0, 1000)) map.add(block, block + 1);
      expect(map.filter(blocks).length).toBe(1000);
    });
  });
});

describe('portable Roaring bytes', () => {
  const file = (name: string): Uint8Array =>
    new Uint8Array(readFileSync(new URL(`../fixtures/roaring/${name}.bin`, import.meta.url)));

  it.each(['bitmapwithruns', 'bitmapwithoutruns'])('reads the specification’s file %s', (name) => {
    const bytes = file(name);
    const expected = new Set<number>();
    for (let value = 0; value < 100_000; value += 1000) expected.add(value);
    for (let value = 100_000; value < 200_000; value++) expected.add(value * 3);
    for (let value = 700_000; value < 800_000; value++) expected.add(value);
    const bitmap = parsePortable(bytes, name);
    const values: number[] = [];
    for (const [start, end] of runsOf(bytes, bitmap)) for (let value = start; value < end; value++) values.push(value);
    expect(values).toEqual([...expected].sort((a, b) => a - b));
    expect([bitmap.cardinality, maximumOf(bytes, bitmap)]).toEqual([expected.size, 799_999]);
  });

  it('writes the file with runs as CRoaring does', async () => {
    await use(geometry({ size: 2 ** 33, blockSize: 4096 }), (map) => {
      ended(map.uniting(0, file('bitmapwithoutruns')));
      expect(Buffer.from(sliceOf(map, 0)).equals(file('bitmapwithruns'))).toBe(true);
    });
  });

  it('names the cookie when it refuses bytes that are not a bitmap', () => {
    expect(() => parsePortable(Uint8Array.of(0x3a, 0, 0, 0), 'bitmap 0')).toThrow(
      'bitmap 0, byte 0 of 4: not a Roaring bitmap: cookie 0x3a',
    );
  });

  it('refuses damaged bytes, or reads them as roaring-wasm does', () => {
    const values = fc.oneof(
      fc.array(fc.nat(300_000), { maxLength: 30 }),
      fc.tuple(fc.nat(100_000), fc.nat(70_000)).map(([start, length]) => Array.from({ length }, (_, i) => start + i)),
      fc.integer({ min: 2, max: 7 }).map((step) => Array.from({ length: 40_000 }, (_, i) => i * step)),
    );
    fc.assert(
      fc.property(
        fc.array(values, { minLength: 1, maxLength: 3 }),
        fc.array(fc.tuple(fc.oneof(fc.nat(60), fc.nat(100_000)), fc.nat(255)), { minLength: 1, maxLength: 4 }),
        fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.integer({ min: -9, max: 9 }) }),
        (lists, changes, longer) => {
          const good = canonicalBytes(lists.flat());
          expect(parsePortable(good, 'good').cardinality).toBe(new Set(lists.flat()).size);
          const bytes = new Uint8Array(Math.max(0, good.length + longer));
          bytes.set(good.subarray(0, bytes.length));
          for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value;
          let parsed: ReturnType<typeof parsePortable>;
          try {
            parsed = parsePortable(bytes, 'bytes');
          } catch (error) {
            if (isCodError(error, 'COD_CORRUPT')) return;
            throw error;
          }
          const bitmap = RoaringBitmap32.deserialize(bytes, 'portable');
          const found: number[] = [];
          for (const [start, end] of runsOf(bytes, parsed))
            for (let value = start; value < end; value++) found.push(value);
          expect(Buffer.from(Uint32Array.from(found).buffer).equals(Buffer.from(bitmap.toUint32Array().buffer))).toBe(
            true,
          );
          expect([parsed.cardinality, maximumOf(bytes, parsed)]).toEqual([found.length, found.at(-1) ?? -1]);
          bitmap.dispose();
        },
      ),
      { numRuns: 40 },
    );
  });

  it('joins adjacent runs on reading', async () => {
    // Two runs, 0 to 4 and 5 to 9, as one container.
    const bytes = Uint8Array.from([0x3b, 0x30, 0, 0, 1, 0, 0, 9, 0, 2, 0, 0, 0, 4, 0, 5, 0, 4, 0]);
    expect(parsePortable(bytes, 'bytes').touching).toBe(true);
    await use(shape, (map) => {
      ended(map.uniting(0, bytes));
      expect(Buffer.from(sliceOf(map, 0)).equals(canonicalBytes(set([0, 10])))).toBe(true);
    });
  });
});

describe('the block map avoids the pitfalls of roaring-wasm:', () => {
  it('values that wrap silently', async () => {
    const bitmap = new RoaringBitmap32([]);
    bitmap.add(2 ** 32 + 5);
    expect(bitmap.has(5)).toBe(true);
    bitmap.dispose();
    await use(wide, (map) => {
      map.add(2 ** 32 + 5, 2 ** 32 + 6);
      expect([map.has(5), map.has(2 ** 32 + 5)]).toEqual([false, true]);
    });
  });

  it('intersectsWithRange without the last value of the range', async () => {
    const bitmap = new RoaringBitmap32([9]);
    expect(bitmap.intersectsWithRange(5, 10)).toBe(false);
    bitmap.dispose();
    await use(shape, (map) => {
      map.add(9, 10);
      expect([map.hasAny(5, 9), map.hasAny(5, 10), map.hasAny(9, 10), map.hasAny(10, 11)]).toEqual([
        false,
        true,
        true,
        false,
      ]);
    });
  });

  it('addMany with more values than it accepts while its heap grows', async () => {
    const given = vi.spyOn(RoaringBitmap32.prototype, 'addMany');
    try {
      await use(geometry({ size: 2 ** 40, blockSize: 4096 }), (map) => {
        // As runs and as arrays these need equally many bytes, so the map corrects each container with addMany.
        for (let block = 0; block < 2 ** 24; block += 2 ** 14) {
          map.add(block, block + 3);
          map.add(block + 10, block + 11);
        }
        map.filter(Float64Array.from({ length: 1_000_000 }, (_, i) => i * 3));
        expect(parsePortable(sliceOf(map, 0), 'bytes').cardinality).toBe(map.count);
      });
      for (const [values] of given.mock.calls)
        expect([...(values as Iterable<number>)].length).toBeLessThanOrEqual(983_040);
    } finally {
      given.mockRestore();
    }
  });

  it('stale counts, and stale serialized bytes after a change', async () => {
    await use(shape, (map) => {
      const counts: number[] = [];
      for (const change of [
        () => map.add(5, 6),
        () => map.add(5, 6),
        () => map.add(0, 70_000),
        () => map.add(69_990, 70_010),
      ]) {
        change();
        counts.push(map.count);
        const bytes = sliceOf(map, 0);
        expect(Buffer.from(sliceOf(map, 0)).equals(bytes)).toBe(true);
        expect(parsePortable(bytes, 'bytes').cardinality).toBe(map.count);
      }
      ended(map.uniting(0, canonicalBytes([3, 150_000])));
      counts.push(map.count);
      expect(counts).toEqual([1, 1, 70_000, 70_010, 70_011]);
      expect(map.countOf(0)).toBe(70_011);
    });
  });

  it('a double dispose', async () => {
    const map = await BlockMap.open(shape);
    map.add(1, 3);
    map.dispose();
    map.dispose();
  });
});

it('portable bytes are divided into slices without a change of any value', () => {
  const kinds: [start: number, values: number[]][] = [
    [0, [1, 5, 9]],
    [65_536 * 3, Array.from({ length: 9000 }, (_, i) => i * 2)],
    [2 ** 24 - 65_536, Array.from({ length: 65_536 }, (_, i) => i)],
    [2 ** 24, Array.from({ length: 500 }, (_, i) => i)],
    [2 ** 24 * 3 + 65_536 * 7, [0, 65_535]],
  ];
  // Each subset of the containers, so that slices have runs or none, and few or many containers.
  for (let subset = 1; subset < 2 ** kinds.length; subset++) {
    const values = kinds.flatMap(([start, own], i) => ((subset >> i) & 1 ? own.map((value) => start + value) : []));
    const bytes = canonicalBytes(values);
    const found: number[] = [];
    for (const [slice, part] of portableSlices(bytes, parsePortable(bytes, 'all'))) {
      const own = values.filter((value) => Math.floor(value / 2 ** 24) === slice).map((value) => value % 2 ** 24);
      expect(Buffer.from(part).equals(canonicalBytes(own)), `subset ${subset}, slice ${slice}`).toBe(true);
      found.push(...own.map((value) => slice * 2 ** 24 + value));
    }
    expect(found).toEqual(values);
  }
});

describe('geometry', () => {
  it('counts a short last block as a block', () => {
    expect(geometry({ size: 4097, blockSize: 4096 }).blockCount).toBe(2);
    expect(geometry({ size: 0, blockSize: 4096 }).blockCount).toBe(0);
  });

  it('refuses an invalid geometry, and names a sufficient block size', () => {
    for (const size of [-1, 0.5, 2 ** 53, NaN]) expect(() => geometry({ size, blockSize: 4096 })).toThrow(RangeError);
    for (const blockSize of [0, 512, 4095, 6000, 2 ** 27, NaN])
      expect(() => geometry({ size: 1, blockSize })).toThrow(RangeError);
    expect(() => geometry({ size: '1' as unknown as number, blockSize: 4096 })).toThrow(TypeError);
    expect(() => geometry({ size: 2 ** 46, blockSize: 4096 })).toThrow(/blockSize of at least 8192/);
    expect(geometry({ size: 2 ** 46, blockSize: 8192 }).blockCount).toBe(2 ** 33);
  });
});
