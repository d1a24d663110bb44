/**
 * `npm run test:fuzz [-- --for 10m] [--seed N] [--only metadata|qcow2]`: fuzzes both parsers of metadata (test/fuzz)
 * and the reader of qcow2 images for the given time each. A failure prints the failing case, of metadata the shortest
 * one. The same seed finds it again.
 *
 * `npm run test:fuzz -- --guided …`: fuzzes by coverage what parses foreign bytes. test/fuzz/guided/main.ts has the
 * options.
 */
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { ensureBuilt, ensureInstalled, root, StepError, say, script } from './lib/steps.mjs';
import { runTests } from './lib/vitest.mjs';

/** @type {Record<string, number>} */
const UNITS = { s: 1000, m: 60_000, h: 3_600_000 };

/** @param {string} text such as `90s`, `10m` or `1h` */
function milliseconds(text) {
  const [, number, unit] = /^(\d+)([smh])$/.exec(text) ?? [];
  if (number === undefined || unit === undefined || Number(number) === 0)
    throw new StepError(`--for ${text} is not a time such as 90s, 10m or 1h`, '', 2);
  return Number(number) * /** @type {number} */ (UNITS[unit]);
}

/** @type {Record<string, string>} */
const SUBJECTS = { metadata: 'test/fuzz', qcow2: 'test/sources/qcow2/fuzz.test.ts' };

/** @param {string} text */
function seedOf(text) {
  if (!/^\d{1,9}$/.test(text)) throw new StepError(`--seed ${text} is not a number of 1 to 9 digits`, '', 2);
  return text;
}

async function guided() {
  await ensureInstalled();
  await ensureBuilt();
  process.chdir(root);
  const { runTs } = await import('./run-ts.mjs');
  const { main } = await runTs(join(root, 'test', 'fuzz', 'guided', 'main.ts'));
  return main(process.argv.slice(2));
}

await script(async () => {
  if (process.argv.includes('--guided')) return guided();
  const { values } = parseArgs({
    options: { for: { type: 'string', default: '2m' }, seed: { type: 'string' }, only: { type: 'string' } },
  });
  const { only = '' } = values;
  const paths = only === '' ? Object.values(SUBJECTS) : [SUBJECTS[only] ?? ''];
  if (paths.includes('')) throw new StepError(`--only ${only} is none of ${Object.keys(SUBJECTS).join(', ')}`, '', 2);
  const forMs = milliseconds(values.for);
  const seed = seedOf(values.seed ?? String(Date.now() % 1e9));
  await ensureInstalled();
  await ensureBuilt();
  say(`to repeat: npm run test:fuzz -- --for ${values.for} --seed ${seed}${only && ` --only ${only}`}`);
  const time = { COD_FUZZ_MS: String(forMs), COD_QCOW2_MS: String(forMs) };
  const env = { ...process.env, ...time, COD_FUZZ_SEED: seed, COD_QCOW2_SEED: seed };
  return runTests('fuzz', ['--project', 'unit', ...paths], { env });
});
