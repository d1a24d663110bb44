/**
 * `npm test [-- ARGUMENTS OF VITEST]`: installs missing npm packages and system programs, builds, and runs the tests.
 *
 * With CI=true, and where the programs can be installed, sets COD_REQUIRE_TOOLS: a test fails instead of being skipped
 * for a missing program.
 */
import { ensureBuilt, ensureInstalled, script } from './lib/steps.mjs';
import { canInstallSystemPackages, ensureSystemPackages } from './lib/system-packages.mjs';
import { runTests } from './lib/vitest.mjs';

await script(async () => {
  const args = process.argv.slice(2);
  await ensureInstalled();
  await ensureBuilt();
  if (!/--project[= ]unit\b/.test(args.join(' '))) await ensureSystemPackages();
  const mustHaveTools = process.env['CI'] === 'true' && canInstallSystemPackages();
  return runTests('main', args, { env: { ...process.env, ...(mustHaveTools ? { COD_REQUIRE_TOOLS: '1' } : {}) } });
});
