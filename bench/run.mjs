/** `npm run bench`: builds, then runs all benchmarks in sequence. Exits with 1 if a benchmark misses a bar. */

import { fileURLToPath } from 'node:url';
import { ensureBuilt, ensureInstalled, run, script } from '../scripts/lib/steps.mjs';

const NAMES = [
  'core.mjs',
  'write-path.mjs',
  'cold-reads.mjs',
  'checkpoint-stall.mjs',
  'fence.mjs',
  'snapshot.mjs',
  'copy.mjs',
  'zeros.mjs',
  'readers.mjs',
  'nbd.mjs',
  'nbd-writes.mjs',
  'many-disks.mjs',
  'browser.mjs',
];

await script(async () => {
  await ensureInstalled();
  await ensureBuilt();
  let worst = 0;
  for (const name of NAMES) {
    const exitCode = await run(process.execPath, [fileURLToPath(new URL(name, import.meta.url))]);
    if (exitCode !== 0) worst = 1;
  }
  return worst;
});
