/**
 * Both parsers against every kind of damage. An accepted file must mean what the plain reader reads. Other files are
 * refused in bounded memory, and the same core then reads a good state.
 *
 * `npm run test:fuzz -- --for 10m --seed N` runs for longer.
 */

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { effort } from '../support/effort.ts';
import { BASES, type Edit, type FuzzCase } from './cases.ts';
import { runCase } from './harness.ts';

/** 0: a fixed number of cases. */
const FOR_MS = effort('COD_FUZZ_MS', { short: 0, long: 60_000 });
const SEED = Number(process.env['COD_FUZZ_SEED'] ?? 1);
const RUNS = 150;
const corpusFile = new URL('../fixtures/fuzz/corpus.json', import.meta.url);

interface Kept extends FuzzCase {
  readonly outcome: string;
}

const corpus = existsSync(corpusFile) ? (JSON.parse(readFileSync(corpusFile, 'utf8')) as readonly Kept[]) : [];

const number = (max: number): fc.Arbitrary<number> => fc.nat(max);
/** Headers are small and important. */
const place = fc.oneof(number(127), number(1023), number(2 ** 16));
const edit: fc.Arbitrary<Edit> = fc.record({
  kind: fc.constantFrom(
    ...([
      'flip',
      'flip',
      'value',
      'value',
      'value',
      'zero',
      'random',
      'copy',
      'insert',
      'cut',
      'resize',
      'delete',
      'swap',
      'replace',
    ] as const),
  ),
  file: number(3),
  other: number(3),
  at: place,
  from: place,
  length: number(600),
  value: number(255),
});
const fuzzCase: fc.Arbitrary<FuzzCase> = fc.record({
  base: fc.constantFrom(...BASES.keys()),
  target: fc.constantFrom('kept', 'lost', 'some'),
  sealed: fc.boolean(),
  via: fc.constantFrom('recover', 'recover', 'recover', 'inspect', 'open'),
  edits: fc.array(edit, { maxLength: 4 }),
});

it('stored cases end as recorded', async () => {
  for (const { outcome, ...one } of corpus) expect((await runCase(one)).outcome, JSON.stringify(one)).toBe(outcome);
  expect(corpus.length).toBeGreaterThan(40);
});

describe.each([...BASES.keys()])('%s', (base) => {
  it('is read undamaged', async () => {
    // Format 1 has neither records that the target proves nor checksums.
    const isNew = BASES.get(base)!.format === 2;
    for (const target of isNew ? (['kept', 'lost', 'some'] as const) : (['kept'] as const)) {
      for (const sealed of isNew ? [false, true] : [false]) {
        for (const via of ['recover', 'inspect', 'open'] as const) {
          expect((await runCase({ base, target, via, sealed, edits: [] })).outcome).toBe('read');
        }
      }
    }
  });
});

it(
  'refuses damage of any kind, or reads what the files mean',
  async () => {
    const ways = new Map<string, Kept>();
    let cases = 0;
    await fc.assert(
      fc.asyncProperty(fuzzCase, async (one) => {
        const { outcome, way } = await runCase(one);
        cases++;
        const name = `${BASES.get(one.base)!.format} ${outcome} ${way}`;
        if (!ways.has(name)) ways.set(name, { ...one, outcome });
      }),
      {
        seed: SEED,
        ...(FOR_MS > 0
          ? { numRuns: 2 ** 31 - 1, interruptAfterTimeLimit: FOR_MS, markInterruptAsFailure: false }
          : { numRuns: RUNS }),
      },
    );
    if (FOR_MS > 0) console.log(`${cases} cases of seed ${SEED} with ${ways.size} distinct results`);
    if (process.env['COD_FUZZ_KEEP'] !== undefined) {
      const kept = [...ways].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, one]) => JSON.stringify(one));
      writeFileSync(corpusFile, `[\n${kept.join(',\n')}\n]\n`);
    }
    expect(ways.size).toBeGreaterThan(20);
  },
  FOR_MS + 120_000,
);
