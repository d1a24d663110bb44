/**
 * `npm test [-- ARGUMENTS OF VITEST]`: installs missing npm packages and system programs, builds, and runs the tests.
 * `npm run test:long [-- ARGUMENTS OF VITEST]` runs the tests that take minutes: the crash campaign, the planted bugs,
 * Firefox, and more rounds of the randomized tests.
 * Without arguments it also runs the unit tests under the other majors of Node.
 *
 * With CI=true, and where the programs can be installed, sets COD_REQUIRE_TOOLS: a test fails instead of being skipped
 * for a missing program.
 */
import { ensureNodeMajors, testNodeMajors } from './lib/node-majors.mjs';
import { ensureBuilt, ensureInstalled, script } from './lib/steps.mjs';
import {
  canInstallSystemPackages,
  ensureSystemPackages,
  longSystemPackages,
  systemPackages,
} from './lib/system-packages.mjs';
import { runTests } from './lib/vitest.mjs';

await script(async () => {
  const isLong = process.argv[2] === '--long';
  const args = process.argv.slice(isLong ? 3 : 2);
  await ensureInstalled();
  await ensureBuilt();
  if (!/--project[= ]unit\b/.test(args.join(' '))) {
    await ensureSystemPackages(Object.keys({ ...systemPackages, ...(isLong ? longSystemPackages : {}) }));
  }
  // The tests use these programs too.
  if (isLong) await ensureNodeMajors();
  const mustHaveTools = process.env['CI'] === 'true' && canInstallSystemPackages();
  const env = { ...process.env, ...(mustHaveTools ? { COD_REQUIRE_TOOLS: '1' } : {}) };
  const projects = isLong ? ['long', 'firefox'] : ['unit*', 'system', 'browser'];
  const project = args.some((arg) => arg.startsWith('--project')) ? [] : projects.map((name) => `--project=${name}`);
  const exitCode = await runTests(isLong ? 'long' : 'main', [...project, ...args], { env });
  return isLong && args.length === 0 ? Math.max(exitCode, await testNodeMajors()) : exitCode;
});
