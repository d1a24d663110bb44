/** What is not firm, against a model that keeps every record with its history. */

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { FILLED, MAY_READ, WRITTEN, WRITTEN_PAIR } from '../../src/core/layout.ts';
import { Firmness } from '../../src/log/firmness.ts';

const CELL = 4096;
const BLOCK = 8192;

function written(offset: number, length: number): number[] {
  return [WRITTEN, offset, length, 1];
}
function filled(offset: number, length: number): number[] {
  return [FILLED, offset, length % 2 ** 32, Math.floor(length / 2 ** 32)];
}

/** The records of one append, and how far it is. */
interface Append {
  readonly records: number[];
  state: 'begun' | 'ended';
  /** The flush that makes it firm: the first that began after the append had ended. */
  flush: number | undefined;
}

/** Whether one of the records touches the range: cells for sums, blocks for fills. */
function touches(records: readonly number[], wanted: 'cells' | 'fills', start: number, end: number): boolean {
  for (let at = 0; at < records.length; at += 4) {
    const [type, offset, low, high] = records.slice(at, at + 4) as [number, number, number, number];
    if ((type === FILLED) !== (wanted === 'fills')) continue;
    const unit = type === FILLED ? BLOCK : CELL;
    const length = type === FILLED ? low + high * 2 ** 32 : type === WRITTEN_PAIR ? 2 * CELL : 1;
    const first = Math.floor(offset / unit) * unit;
    const last = Math.ceil((offset + length) / unit) * unit;
    if (first < Math.ceil(end / unit) * unit && Math.floor(start / unit) * unit < last) return true;
  }
  return false;
}

class Model {
  appends: Append[] = [];

  begin(records: number[]): void {
    this.appends.push({ records, state: 'begun', flush: undefined });
  }

  age(flush: number): void {
    for (const append of this.appends) if (append.state === 'ended') append.flush ??= flush;
  }

  firm(number: number): void {
    this.appends = this.appends.filter(({ flush }) => flush === undefined || flush > number);
  }

  isNamed(start: number, end: number): boolean {
    return this.appends.some(({ records }) => touches(records, 'cells', start, end));
  }

  isFilled(start: number, end: number): boolean {
    return this.appends.some(({ records }) => touches(records, 'fills', start, end));
  }
}

/** Long fills, of 1024 blocks or more, are kept apart. */
const bytes = fc.oneof(
  { weight: 4, arbitrary: fc.nat(3 * BLOCK) },
  fc.integer({ min: 1022, max: 2 ** 32 }).map((n) => n * BLOCK),
);
const record = fc
  .tuple(fc.constantFrom(WRITTEN, WRITTEN_PAIR, FILLED, MAY_READ), fc.nat(30), fc.nat(4095), bytes)
  .map(([type, cell, within, length]) => {
    if (type === FILLED) return filled(cell * CELL + within, length + 1);
    if (type === WRITTEN) return written(cell * CELL + within, 1);
    return [type, cell * CELL, 3, 4];
  });
const step = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('append' as const), records: fc.array(record) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('end' as const) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constantFrom('age' as const, 'firm' as const), which: fc.nat(9) }) },
);

describe('what is not firm', () => {
  it('is what was appended after the last flush had begun, with any number of flushes side by side', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const firmness = new Firmness(BLOCK);
        const model = new Model();
        const flushes: number[] = [];
        for (const one of steps) {
          switch (one.kind) {
            case 'append': {
              const records = one.records.flat();
              firmness.begin(records);
              model.begin(records);
              break;
            }
            case 'end': {
              const first = model.appends.find(({ state }) => state === 'begun');
              if (first === undefined) break;
              first.state = 'ended';
              firmness.end(first.records);
              break;
            }
            case 'age':
              flushes.push(firmness.age());
              model.age(flushes.at(-1)!);
              break;
            case 'firm': {
              const [flush] = flushes.splice(one.which % Math.max(1, flushes.length), 1);
              if (flush === undefined) break;
              firmness.firm(flush);
              model.firm(flush);
            }
          }
          for (let start = 0; start < 40 * CELL; start += CELL - 7) {
            for (const length of [1, CELL + 1]) {
              expect(firmness.isNamed(start, length)).toBe(model.isNamed(start, start + length));
              expect(firmness.isFilled(start, length)).toBe(model.isFilled(start, start + length));
            }
          }
        }
      }),
      { numRuns: 300 },
    );
  });

  it('includes a record whose append was in flight when the flush began', () => {
    const firmness = new Firmness(BLOCK);
    const records = written(0, 100);
    firmness.begin(records);
    const flush = firmness.age();
    firmness.end(records);
    firmness.firm(flush);
    expect(firmness.isNamed(0, 1)).toBe(true);
    firmness.firm(firmness.age());
    expect(firmness.isNamed(0, 1)).toBe(false);
  });

  it('includes a record whose append is in flight when the flush ends', () => {
    const firmness = new Firmness(BLOCK);
    const records = [...written(0, 100), ...filled(BLOCK, BLOCK)];
    firmness.begin(records);
    firmness.firm(firmness.age());
    expect([firmness.isNamed(0, 1), firmness.isFilled(BLOCK, 1)]).toEqual([true, true]);
  });

  it('stays not firm if a flush fails, and a later one succeeds', () => {
    const firmness = new Firmness(BLOCK);
    firmness.begin(filled(0, 2 ** 33));
    firmness.age();
    const later = written(5 * CELL, 1);
    firmness.begin(later);
    firmness.end(later);
    expect(firmness.isFilled(2 ** 33 - 1, 1)).toBe(true);
    expect(firmness.isFilled(2 ** 33, 1)).toBe(false);
    firmness.age();
    expect([firmness.isFilled(0, 1), firmness.isNamed(5 * CELL, 1)]).toEqual([true, true]);
  });

  it('is one generation, however many flushes found nothing new', () => {
    const firmness = new Firmness(BLOCK);
    const records = written(0, 100);
    firmness.begin(records);
    firmness.end(records);
    const first = firmness.age();
    for (let flush = 0; flush < 10; flush++) expect(firmness.age()).toBe(first);
    expect(firmness.isNamed(0, 1)).toBe(true);
    firmness.firm(first);
    expect(firmness.isNamed(0, 1)).toBe(false);
  });
});
