/**
 * `npm run test:majors [-- ARGUMENTS OF VITEST]`: the unit tests under the other majors of Node that the package promises to run on.
 * --install: only puts them where they, and the test of the package, are looked for.
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
