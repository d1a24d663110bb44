/** Questions for extents, ahead of the background copy. */

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { ExtentsAhead } from '../../src/sources/extents-ahead.ts';
import type { SourceExtent } from '../../src/sources/source.ts';

const MIB = 2 ** 20;
const GIB = 2 ** 30;
const TIB = 2 ** 40;

/** A source whose units of `unitBytes` are zero where `isZero` says so; it notes the questions. */
class Asked {
  readonly questions: { offset: number; length: number }[] = [];
  inFlight = 0;
  maxInFlight = 0;
  failures = 0;
  readonly #unitBytes: number;
  readonly #isZero: (unit: number) => boolean;

  constructor(unitBytes: number, isZero: (unit: number) => boolean) {
    this.#unitBytes = unitBytes;
    this.#isZero = isZero;
  }

  readonly ask = async (offset: number, length: number): Promise<readonly SourceExtent[]> => {
    this.questions.push({ offset, length });
    this.maxInFlight = Math.max(this.maxInFlight, ++this.inFlight);
    await new Promise(setImmediate);
    this.inFlight--;
    if (this.failures > 0) {
      this.failures--;
      throw new Error('the source fails');
    }
    return this.expected(offset, length);
  };

  expected(offset: number, length: number): SourceExtent[] {
    const found: { length: number; zero: boolean }[] = [];
    for (let at = offset; at < offset + length; ) {
      const unit = Math.floor(at / this.#unitBytes);
      const end = Math.min(offset + length, (unit + 1) * this.#unitBytes);
      const last = found.at(-1);
      if (last !== undefined && last.zero === this.#isZero(unit)) last.length += end - at;
      else found.push({ length: end - at, zero: this.#isZero(unit) });
      at = end;
    }
    return found;
  }
}

describe('ExtentsAhead', () => {
  it('asks few questions of a source that is mostly empty, several at a time', async () => {
    const asked = new Asked(TIB, () => true);
    const ahead = new ExtentsAhead(asked.ask);
    for (let at = 0; at < 256 * GIB; at += 64 * MIB)
      expect(await ahead.of(at, 64 * MIB, 256 * GIB)).toEqual([{ length: 64 * MIB, zero: true }]);
    expect(asked.questions.length).toBeLessThan(150);
    expect(asked.maxInFlight).toBe(4);
  });

  it('asks for no more than the copy needs while answers are long', async () => {
    const asked = new Asked(4096, (unit) => unit % 2 === 0);
    const ahead = new ExtentsAhead(asked.ask);
    for (let at = 0; at < GIB; at += 64 * MIB) await ahead.of(at, 64 * MIB, TIB);
    expect(asked.questions.map(({ length }) => length)).toEqual(Array(16).fill(64 * MIB));
    expect(asked.maxInFlight).toBe(1);
  });

  it('gives what the source says of any ranges, in any order', async () => {
    const range = fc.record({ offset: fc.nat(20_000 * MIB), length: fc.integer({ min: 1, max: 300 * MIB }) });
    await fc.assert(
      fc.asyncProperty(fc.array(range, { maxLength: 30 }), fc.nat(), async (ranges, seed) => {
        const asked = new Asked(64 * MIB, (unit) => ((unit + 1) * (seed + 1)) % 7 < 5);
        const ahead = new ExtentsAhead(asked.ask);
        const size = 20_300 * MIB;
        await Promise.all(
          ranges.map(async ({ offset, length }) =>
            expect(await ahead.of(offset, length, size)).toEqual(asked.expected(offset, length)),
          ),
        );
        for (const { offset, length } of asked.questions) expect(offset + length).toBeLessThanOrEqual(size);
      }),
      { numRuns: 50 },
    );
  });

  it('passes a failure on, and asks again', async () => {
    const asked = new Asked(TIB, () => true);
    const ahead = new ExtentsAhead(asked.ask);
    asked.failures = 1;
    await expect(ahead.of(0, MIB, GIB)).rejects.toThrow('the source fails');
    expect(await ahead.of(0, MIB, GIB)).toEqual([{ length: MIB, zero: true }]);
  });
});
