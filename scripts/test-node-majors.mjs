/**
 * `npm run test:majors [-- ARGUMENTS OF VITEST]`: runs the unit tests under the other majors of Node that the package
 * supports. --install: only installs them where this script and the test of the package look for them.
 */

import { ensureNodeMajors } from './lib/node-majors.mjs';
import { ensureBuilt, ensureInstalled, say, script } from './lib/steps.mjs';
import { runTests } from './lib/vitest.mjs';

await script(async () => {
  const args = process.argv.slice(2);
  const nodes = await ensureNodeMajors();
  if (args[0] === '--install') return 0;
  await ensureInstalled();
  await ensureBuilt();
  let worst = 0;
  for (const { major, program } of nodes) {
    say(`unit tests under Node ${major}`);
    worst = Math.max(worst, await runTests(`node${major}`, ['--project', 'unit', ...args], { node: program }));
  }
  return worst;
});
