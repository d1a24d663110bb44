import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DirtyMap } from '../../src/core/dirty-map.ts';
import { geometry } from '../../src/core/geometry.ts';
import { Core, STAGING_BYTES } from '../../src/wasm/core.ts';
import { slowCellSum } from '../support/cell-sum.ts';
import { builds } from './builds.ts';
import { slowCrc32c } from './models.ts';

describe.each(builds)('the $name core', ({ name, create }) => {
  it('computes CRC32C as defined', () => {
    const core = create();
    expect(core.crc32c(new TextEncoder().encode('123456789'))).toBe(0xe3069283);
    expect(core.crc32c(new Uint8Array(0))).toBe(0);
    expect(core.crc32c(new Uint8Array(32).fill(255))).toBe(0x62a8ab43);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(300), (bytes, cut) => {
        expect(core.crc32c(bytes)).toBe(slowCrc32c(bytes));
        expect(core.crc32c(bytes.subarray(cut), core.crc32c(bytes.subarray(0, cut)))).toBe(slowCrc32c(bytes));
      }),
    );
    const long = Uint8Array.from({ length: STAGING_BYTES * 2 + 77 }, (_, i) => (i * 31) >> 3);
    expect(core.crc32c(long)).toBe(slowCrc32c(long));
  });

  it('sums a cell as defined, and a short one as if zeros followed', () => {
    const core = create();
    expect(core.cellSum(new Uint8Array(4096).fill(1))).toBe(slowCellSum(new Uint8Array(4096).fill(1)));
    const content = fc.uint8Array({ minLength: 1, maxLength: 200 });
    fc.assert(
      fc.property(content, content, (bytes, before) => {
        core.cellSum(before);
        expect(core.cellSum(bytes)).toBe(slowCellSum(bytes));
      }),
    );
    const known = [new Uint8Array(4096), Uint8Array.from({ length: 4096 }, (_, i) => i), Uint8Array.of(1)];
    expect(known.map((bytes) => core.cellSum(bytes).toString(16))).toEqual(['f47de570', 'd654e102', '79ab488e']);
  });

  it('tells cells apart that differ in one bit, one word or the order of words', () => {
    const core = create();
    const cell = Uint8Array.from({ length: 4096 }, (_, i) => (i * 31) >> 3);
    const sums = new Set([core.cellSum(cell)]);
    for (let bit = 0; bit < cell.length * 8; bit += 7) {
      cell[bit >> 3]! ^= 1 << (bit & 7);
      sums.add(core.cellSum(cell));
      cell[bit >> 3]! ^= 1 << (bit & 7);
    }
    const words = new BigUint64Array(cell.buffer);
    for (let at = 1; at < words.length; at++) {
      const swapped = words.slice();
      [swapped[at - 1], swapped[at]] = [words[at]!, words[at - 1]!];
      sums.add(core.cellSum(new Uint8Array(swapped.buffer)));
    }
    expect(sums.size).toBe(1 + Math.ceil((4096 * 8) / 7) + 511);
  });

  it('reads its staging area without a copy', () => {
    const core = create();
    core.staging.set([1, 2, 3]);
    expect(core.crc32c(core.staging.subarray(1, 3))).toBe(slowCrc32c(Uint8Array.of(2, 3)));
    expect(core.staging.length).toBe(STAGING_BYTES);
  });

  it('refuses further calls after its memory could not grow, and names the remedy', () => {
    const core = create({ memoryLimit: 2 ** 21 });
    const shape = geometry({ size: 2 ** 40, blockSize: 4096 });
    const map = new DirtyMap(core, shape);
    const fill = (): void => {
      for (let block = 0; block < 10 ** 6; block++) map.add(block, 0, 1);
    };
    expect(fill).toThrow(
      expect.objectContaining({ code: 'COD_NO_MEMORY', message: expect.stringContaining('new instance') }),
    );
    expect(core.memoryBytes).toBeLessThanOrEqual(2 ** 21 + 65_536);
    expect(() => core.crc32c(new Uint8Array(1))).toThrow(core.failure);
    expect(() => map.blockCount).toThrow(core.failure);
    map.dispose();
    expect(create().crc32c(new Uint8Array(1))).toBe(slowCrc32c(new Uint8Array(1)));
  });

  it('refuses further calls after a trap', () => {
    const core = create();
    expect(() => core.exports.crc32c(2 ** 31, 1024, 0)).toThrow(expect.objectContaining({ code: 'COD_BUG' }));
    expect(() => core.crc32c(new Uint8Array(1))).toThrow(core.failure);
  });

  it.runIf(name === 'release')('is the core that the package contains', () => {
    expect(Core.create().crc32c(Uint8Array.of(1))).toBe(create().crc32c(Uint8Array.of(1)));
    expect(() => Core.create(undefined, { memoryLimit: 1 })).toThrow(RangeError);
  });
});
