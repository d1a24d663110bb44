/** `npm run bench`: builds, then runs all benchmarks in sequence. Exits with 1 if a benchmark misses a bar. */

import { fileURLToPath } from 'node:url';
import { ensureBuilt, ensureInstalled, run, script } from '../scripts/lib/steps.mjs';

await script(async () => {
  await ensureInstalled();
  await ensureBuilt();
  let worst = 0;
  for (const name of ['core.mjs', 'write-path.mjs', 'copy.mjs', 'nbd.mjs', 'nbd-writes.mjs', 'browser.mjs']) {
    const exitCode = await run(process.execPath, [fileURLToPath(new URL(name, import.meta.url))]);
    if (exitCode !== 0) worst = 1;
  }
  return worst;
});
