/**
 * `npm run test:majors [-- ARGUMENTS OF VITEST]`: runs the unit tests under the other majors of Node that the package
 * supports. --install: only installs them where this script and the test of the package look for them.
 */
import { ensureNodeMajors, testNodeMajors } from './lib/node-majors.mjs';
import { ensureBuilt, ensureInstalled, script } from './lib/steps.mjs';

await script(async () => {
  const args = process.argv.slice(2);
  if (args[0] === '--install') {
    await ensureNodeMajors();
    return 0;
  }
  await ensureInstalled();
  await ensureBuilt();
  return testNodeMajors(args);
});
