import fc from 'fast-check';
import { expect, test } from 'vitest';
import { RangeSet } from '../../src/core/range-set.ts';

test('adds the same numbers as a set of numbers, and returns the added ranges', () => {
  const range = fc.tuple(fc.nat(60), fc.nat(12)).map(([start, length]) => [start, start + length] as const);
  fc.assert(
    fc.property(fc.array(range, { maxLength: 40 }), (ranges) => {
      const set = new RangeSet();
      const model = new Set<number>();
      for (const [start, end] of ranges) {
        const added = set.add(start, end);
        const numbers = added.flatMap(([from, to]) => Array.from({ length: to - from }, (_, index) => from + index));
        const expected = [];
        for (let number = start; number < end; number++) if (!model.has(number)) expected.push(number);
        expect(numbers).toEqual(expected);
        // The ranges are maximal: none is empty, and no two touch.
        added.forEach(([from, to], index) => {
          expect(from).toBeLessThan(to);
          if (index > 0) expect(from).toBeGreaterThan(added[index - 1]![1]);
        });
        for (const number of expected) model.add(number);
      }
    }),
  );
});
