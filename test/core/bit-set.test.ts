import fc from 'fast-check';
import { expect, it } from 'vitest';
import { BitSet } from '../../src/core/bit-set.ts';

/** Numbers near the borders of words and chunks, and far apart. */
const number = fc
  .tuple(fc.constantFrom(0, 32, 32_768, 65_536, 2 ** 40), fc.nat(70))
  .map(([base, more]) => Math.max(0, base + more - 35));
const range = fc.tuple(number, fc.oneof(fc.nat(70), fc.constant(40_000))).map(([start, length]) => ({
  start,
  end: start + length,
}));

function addTo(model: Set<number>, { start, end }: { start: number; end: number }): void {
  for (let at = start; at < end; at++) model.add(at);
}

it('has the numbers that were added, like a set', () => {
  fc.assert(
    fc.property(fc.array(range, { maxLength: 6 }), fc.array(range, { maxLength: 30 }), (added, asked) => {
      const set = new BitSet();
      const model = new Set<number>();
      for (const { start, end } of added) {
        set.add(start, end);
        addTo(model, { start, end });
      }
      expect(set.isEmpty).toBe(model.size === 0);
      for (const { start, end } of asked) {
        let expected = false;
        for (let at = start; at < end && !expected; at++) expected = model.has(at);
        expect(set.hasAny(start, end), `${start} to ${end}`).toBe(expected);
        const next = [...model].filter((each) => each >= start && each < end).sort((one, other) => one - other)[0];
        expect(set.next(start, end), `${start} to ${end}`).toBe(next ?? end);
      }
    }),
    { numRuns: 40 },
  );
});

it('has nothing in an empty range', () => {
  const set = new BitSet();
  set.add(7, 7);
  expect(set.isEmpty).toBe(true);
  set.add(0, 100);
  expect(set.hasAny(50, 50)).toBe(false);
});
