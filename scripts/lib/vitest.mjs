/** One way to run the tests: with this Node or with another, and with the results written down where .ci/run adds them up. */
import { delimiter, dirname, join } from 'node:path';
import { root, run } from './steps.mjs';

/**
 * @param {string} name of this run, for the file of its results
 * @param {readonly string[]} args for `vitest run`
 * @param {{ node?: string, env?: NodeJS.ProcessEnv }} [options] `node`: the program to run it with
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
