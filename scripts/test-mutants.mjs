/**
 * `npm run test:mutants [-- OPTIONS]`: changes the log, the core and the device's write path in one place at a time,
 * and counts the changes that a unit test finds. Exits with 1 when less than 90 % are found.
 *
 * - `--only REGEX`: only the sources whose path matches.
 * - `--since COMMIT`: only the sources that have changed since a commit.
 * - `--tests REGEX`: only the tests whose path matches judge them.
 * - `--sample N`: every Nth mutant only, for an estimate.
 * - `--fresh`: runs all again. By default only mutants are run whose file or tests have changed.
 *
 * COD_MUTANT_OUTPUT is the folder of the results, by default build/mutants. Its survivors.txt lists the survivors.
 * COD_MUTANT_WORKERS is the number of processes, by default 2.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { capture, ensureBuilt, ensureInstalled, root, run, StepError, say, script } from './lib/steps.mjs';
import { mutatedFiles } from './mutants/tests.mjs';

/** The share of mutants that the tests must find. */
const LEAST = 0.9;
const OUTPUT = resolve(root, process.env['COD_MUTANT_OUTPUT'] ?? join('build', 'mutants'));
const LIST = join(OUTPUT, 'survivors.txt');

/**
 * @typedef {{ line: number, column: number }} Position
 * @typedef {{ start: Position, end: Position }} Location
 * @typedef {{ id: string, status: string, mutatorName: string, replacement: string, location: Location }} Mutant
 */

/** @param {string} source @param {Mutant} mutant */
function original(source, { location: { start, end } }) {
  const lines = source.split('\n').slice(start.line - 1, end.line);
  lines.push((lines.pop() ?? '').slice(0, end.column - 1));
  lines[0] = (lines[0] ?? '').slice(start.column - 1);
  return lines.join(' ');
}

/** @param {string} text */
const short = (text) => {
  const one = text.replace(/\s+/g, ' ');
  return one.length > 70 ? `${one.slice(0, 70)}…` : one;
};

/**
 * Prints the score of each folder, lists the survivors, and returns whether enough mutants were found.
 * @param {number} sample
 */
function judged(sample) {
  /** @type {Record<string, { source: string, mutants: Mutant[] }>} */
  const files = JSON.parse(readFileSync(join(OUTPUT, 'report.json'), 'utf8')).files;
  /** @type {Map<string, { found: number, all: number }>} */
  const scores = new Map([['all', { found: 0, all: 0 }]]);
  const list = [];
  for (const [file, { source, mutants }] of Object.entries(files)) {
    const folder = dirname(file);
    const score = scores.get(folder) ?? { found: 0, all: 0 };
    scores.set(folder, score);
    for (const mutant of mutants) {
      if (mutant.status === 'Ignored' || Number(mutant.id) % sample !== 0) continue;
      const isFound = ['Killed', 'Timeout', 'RuntimeError', 'CompileError'].includes(mutant.status);
      for (const one of [score, scores.get('all')]) {
        if (one) one.all++;
        if (one && isFound) one.found++;
      }
      if (isFound) continue;
      const { line, column } = mutant.location.start;
      const change = `${short(original(source, mutant))} → ${short(mutant.replacement)}`;
      list.push(`${file}:${line}:${column} ${mutant.mutatorName} ${mutant.status}: ${change}`);
    }
  }
  writeFileSync(LIST, `${list.join('\n')}\n`);
  for (const [folder, { found, all }] of scores) {
    say(`${folder}: ${found} of ${all} mutants found (${((100 * found) / Math.max(all, 1)).toFixed(1)} %)`);
  }
  say(`survivors: ${LIST}`);
  const { found, all } = scores.get('all') ?? { found: 0, all: 0 };
  return all > 0 && found >= LEAST * all;
}

await script(async () => {
  const { values } = parseArgs({
    options: {
      only: { type: 'string' },
      since: { type: 'string' },
      tests: { type: 'string' },
      sample: { type: 'string', default: '1' },
      fresh: { type: 'boolean', default: false },
    },
  });
  await ensureInstalled();
  await ensureBuilt();
  const { only = '', since, tests } = values;
  let files = mutatedFiles(root).filter((file) => new RegExp(only).test(file));
  if (since !== undefined) {
    const changed = (await capture('git', ['diff', '--name-only', since])).split('\n');
    files = files.filter((file) => changed.includes(file));
  }
  if (files.length === 0) {
    say('no source to mutate');
    return since === undefined ? 1 : 0;
  }
  const stryker = join(root, 'node_modules', '@stryker-mutator', 'core', 'bin', 'stryker.js');
  if (!existsSync(stryker)) throw new StepError(`${stryker} is missing: run npm install`, '', 1);
  const args = ['run', join(root, 'scripts', 'mutants', 'stryker.config.mjs'), '--mutate', files.join(',')];
  if (values.fresh) args.push('--force');
  const sample = Number(values.sample);
  // What is not judged must not count as a result of a later run.
  if (sample > 1) args.push('--incrementalFile', join(OUTPUT, `sample-${sample}.json`));
  const env = {
    ...process.env,
    ...(tests === undefined ? {} : { COD_MUTANT_TESTS: tests }),
    COD_MUTANT_SAMPLE: values.sample,
  };
  const exitCode = await run(process.execPath, [stryker, ...args], { env });
  if (exitCode !== 0) return exitCode;
  return judged(sample) ? 0 : 1;
});
