/** `npm run bench`: runs all benchmarks in sequence. Exits with 1 if one of them misses a bar. */

import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

for (const name of ['core.mjs', 'write-path.mjs', 'copy.mjs', 'nbd.mjs', 'nbd-writes.mjs', 'browser.mjs']) {
  const { status } = spawnSync(process.execPath, [fileURLToPath(new URL(name, import.meta.url))], { stdio: 'inherit' });
  if (status !== 0) process.exitCode = 1;
}
