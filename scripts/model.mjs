/**
 * `npm run model [-- NAME …]`: checks the models of the protocols in model/ with Spin.
 *
 * A correct model must have no error. Each planted mistake must be found, and each known limit must show.
 * Prints one line per model and variant, and the steps that lead to an unexpected error. Exit code 1: a result is not
 * the expected one.
 * With names, such as `records` or `BUG_SWITCH`, it runs only these variants and prints the steps to every error.
 * Where it can, it installs Spin and the compiler with apt-get.
 */
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { capture, root, run, StepError, say, script } from './lib/steps.mjs';
import { canInstallSystemPackages, ensureSystemPackages } from './lib/system-packages.mjs';

/** Debian packages of Spin and of what compiles its output. */
const PACKAGES = ['spin', 'gcc', 'libc6-dev'];

/** The search keeps all states in memory, and ends when it has used this much. */
const MAX_MEMORY_MIB = 2048;
const MAX_DEPTH = 10_000;

/**
 * @typedef {object} Variant
 * @property {string} model name of the file in model/
 * @property {'correct' | 'mistake' | 'limit'} kind
 * @property {string} title bounds of a correct model; otherwise the macro that changes it
 * @property {readonly string[]} defines
 */

/**
 * @param {string} model
 * @param {string} bounds such as `WRITES=2 CRASHES=1`
 * @returns {Variant}
 */
const correct = (model, bounds) => ({ model, kind: 'correct', title: bounds, defines: bounds.split(' ') });

/**
 * @param {string} model
 * @param {string} bounds
 * @param {string} names macros in model/, separated by spaces
 * @returns {Variant[]}
 */
const changed = (model, bounds, names) =>
  names.split(' ').map((title) => ({
    model,
    kind: title.startsWith('LIMIT_') ? 'limit' : 'mistake',
    title,
    defines: [...bounds.split(' '), title],
  }));

/** @type {readonly Variant[]} */
const variants = [
  correct('records', 'WRITES=2 FLUSHES=2'),
  correct('records', 'WRITES=3 FLUSHES=1 EMPTY_START'),
  ...changed('records', 'WRITES=2 FLUSHES=2', 'BUG_ORDER BUG_BARRIER BUG_NO_MAYREAD BUG_FILL_NO_MAYREAD BUG_PENDING'),
  ...changed('records', 'WRITES=2 FLUSHES=2', 'BUG_FIRM BUG_NO_RECORD BUG_FILLED BUG_FIRST_MATCH BUG_BELIEVE_ALL'),
  ...changed('records', 'WRITES=2 FLUSHES=2', 'LIMIT_TORN_CELL'),
  correct('checkpoint', 'WRITES=2 FLUSHES=2 CHECKPOINTS=1 CRASHES=2'),
  correct('checkpoint', 'WRITES=1 FLUSHES=2 CHECKPOINTS=2 CRASHES=3'),
  ...changed('checkpoint', 'WRITES=2 CRASHES=1', 'BUG_BARRIER BUG_FIRM BUG_ONE_BY_ONE BUG_SYNC_NEW_ONLY BUG_SWITCH'),
  ...changed('checkpoint', 'WRITES=2 CRASHES=1', 'BUG_HEADER_EARLY'),
  ...changed('checkpoint', 'WRITES=1 CRASHES=2', 'BUG_NO_REWRITE BUG_NO_STANDALONE BUG_NO_CHECKPOINT_SYNC LIMIT_FIRM'),
  correct('ownership', 'WRITES=2 FLUSHES=2'),
  ...changed('ownership', 'WRITES=1 FLUSHES=1', 'BUG_FENCE_EARLY BUG_NO_FENCE BUG_REUSE_FILES BUG_LOCK_UNSYNCED'),
  ...changed('ownership', 'WRITES=1 FLUSHES=1', 'BUG_RELEASE_EARLY BUG_RELEASE_BY_NAME BUG_SOCKET_NAME'),
  ...changed('ownership', 'WRITES=1 FLUSHES=1', 'LIMIT_LATE_ACKNOWLEDGEMENT LIMIT_LATE_WRITE'),
  ...changed('ownership', 'WRITES=1 FLUSHES=1', 'BUG_READ_EARLY BUG_BEAT_BY_NAME'),
  correct('ownership', 'WRITES=1 FLUSHES=1 REMOVAL'),
  ...changed('ownership', 'WRITES=1 FLUSHES=1 REMOVAL', 'BUG_REMOVE_BY_NAME BUG_REMOVE_UNCHECKED BUG_LEFT_ASIDE'),
];

/** @param {string} program */
const isThere = (program) =>
  capture('sh', ['-c', `command -v ${program}`]).then(
    () => true,
    () => false,
  );

/** @returns {Promise<string[]>} */
async function missingPrograms() {
  const missing = [];
  for (const program of ['spin', 'cc']) if (!(await isThere(program))) missing.push(program);
  return missing;
}

async function ensurePrograms() {
  if ((await missingPrograms()).length === 0) return;
  if (canInstallSystemPackages()) await ensureSystemPackages(PACKAGES);
  const missing = await missingPrograms();
  if (missing.length === 0) return;
  throw new StepError(
    `${missing.join(' and ')} cannot be found: install the Debian packages ${PACKAGES.join(', ')}`,
    '',
    1,
  );
}

/**
 * Runs a search and returns its output. Spin's searches do not tell errors by their exit code.
 * @param {string} folder
 * @param {readonly string[]} args
 */
async function pan(folder, args) {
  /** @type {Buffer[]} */
  const chunks = [];
  await run('./pan', args, { cwd: folder, onOutput: (chunk) => chunks.push(chunk) });
  return Buffer.concat(chunks).toString();
}

/**
 * Compiles a variant and searches all of its states. A search by breadth finds the shortest way to an error, and a
 * search by depth takes half of the memory.
 * @param {string} folder
 * @param {Variant} variant
 * @param {{ byBreadth: boolean }} options
 */
async function search(folder, { model, defines }, { byBreadth }) {
  const file = `${model}.pml`;
  copyFileSync(join(root, 'model', file), join(folder, file));
  await capture('spin', ['-Pcc -E -x c', ...defines.map((name) => `-D${name}`), '-a', file], { cwd: folder });
  // Compiling takes longer than most searches by breadth.
  const mode = byBreadth ? ['-O1', '-DBFS'] : ['-O2'];
  const flags = ['-w', '-DSAFETY', '-DNOFAIR', `-DMEMLIM=${MAX_MEMORY_MIB}`, ...mode];
  await capture('cc', [...flags, '-o', 'pan', 'pan.c'], { cwd: folder });
  const output = await pan(folder, ['-w24', `-m${MAX_DEPTH}`]);
  const [, depth, errors] = /depth reached (\d+), errors: (\d+)/.exec(output) ?? [];
  const [, states] = /([\d.e+]+) states, stored/.exec(output) ?? [];
  const [, seconds] = /elapsed time ([\d.e+-]+) seconds/.exec(output) ?? [];
  const [, mebibytes] = /([\d.]+)\s+total actual memory usage/.exec(output) ?? [];
  if (depth === undefined || states === undefined || seconds === undefined || mebibytes === undefined) {
    throw new StepError(`the search of ${file} has an unknown output`, output, 1);
  }
  const isComplete = !/Search not completed|max search depth too small/.test(output);
  return { hasError: errors !== '0', isComplete, depth, states: Number(states), seconds, mebibytes };
}

/**
 * Returns the steps of a search's last error: what the model prints.
 * @param {string} folder
 */
async function steps(folder) {
  const output = await pan(folder, ['-r', '-S']);
  const [path = ''] = output.split(/^spin: trail ends/m);
  return path.trimEnd();
}

/**
 * @param {string} folder
 * @param {Variant} variant
 * @param {boolean} showsSteps whether to print the steps to an expected error too
 * @returns {Promise<boolean>} whether the result is the expected one
 */
async function check(folder, variant, showsSteps) {
  const isCorrect = variant.kind === 'correct';
  const found = await search(folder, variant, { byBreadth: !isCorrect });
  const isExpected = isCorrect ? !found.hasError && found.isComplete : found.hasError;
  const outcome = found.hasError ? (isCorrect ? 'ERROR' : 'found') : found.isComplete ? 'no error' : 'not complete';
  const { states, depth, seconds, mebibytes } = found;
  const figures = `${states} states, depth ${depth}, ${seconds} s, ${Math.round(Number(mebibytes))} MiB`;
  const name = `${variant.model} ${variant.title}`;
  process.stdout.write(`${isExpected ? 'ok' : 'NOT OK'}  ${name}: ${outcome}, ${figures}\n`);
  if (found.hasError && (isCorrect || showsSteps)) {
    // The way that a search by depth has found is long.
    if (isCorrect) await search(folder, variant, { byBreadth: true });
    process.stdout.write(`${await steps(folder)}\n\n`);
  }
  return isExpected;
}

await script(async () => {
  const names = process.argv.slice(2);
  const chosen = variants.filter(
    ({ model, title }) => names.length === 0 || names.includes(model) || names.includes(title),
  );
  if (chosen.length === 0) throw new StepError(`no variant of this name: ${names.join(', ')}`, '', 2);
  await ensurePrograms();
  let failed = 0;
  for (const variant of chosen) {
    const folder = mkdtempSync(join(tmpdir(), 'copyondemand-model-'));
    try {
      if (!(await check(folder, variant, names.length > 0))) failed++;
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }
  if (failed > 0) say(`${failed} of ${chosen.length} results are not as expected`);
  return failed > 0 ? 1 : 0;
});
