/**
 * `npm test [-- ARGUMENTS OF VITEST]`: installs and builds what is missing, npm packages and programs of the system alike, then runs
 * all tests, or those that the arguments select.
 *
 * With CI=true, where the programs can be installed, COD_REQUIRE_TOOLS makes a test fail that would else be skipped for want of one.
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
