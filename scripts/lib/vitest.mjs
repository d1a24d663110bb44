/** Runs the tests with this Node or another one. Writes the results to the folder where .ci/run sums them. */
import { delimiter, dirname, join } from 'node:path';
import { root, run } from './steps.mjs';

/**
 * Runs vitest.
 * @param {string} name of the run, which names the file of its results
 * @param {readonly string[]} args for `vitest run`
 * @param {{ node?: string, env?: NodeJS.ProcessEnv }} [options] `node`: the Node program that runs vitest
 * @returns {Promise<number>} vitest's exit code
 */
export function runTests(name, args, { node = process.execPath, env = process.env } = {}) {
  const results = process.env['COD_TEST_RESULTS'];
  const reporters = results
    ? ['--reporter=default', '--reporter=json', `--outputFile.json=${join(results, `${name}.json`)}`]
    : [];
  const path = `${dirname(node)}${delimiter}${env['PATH'] ?? ''}`;
  return run(node, [join(root, 'node_modules', 'vitest', 'vitest.mjs'), 'run', ...reporters, ...args], {
    env: { ...env, PATH: path },
  });
}
