/**
 * `npm run test:fleet [-- ARGUMENTS OF VITEST]`: a rack of machines behind a cache, with a Ceph of one node as origin,
 * and Ceph as source and target. Takes some minutes, and 4 GiB of disk. It prints times beside those of the simulation.
 *
 * COD_FLEET_MACHINES sets the number of machines.
 */
import { ensureBuilt, ensureInstalled, script } from './lib/steps.mjs';
import { ensureSystemPackages, longSystemPackages } from './lib/system-packages.mjs';
import { runTests } from './lib/vitest.mjs';

/** Packages of `npm test` that these tests need: qemu-system-x86 has the storage daemon with it. */
const NEEDED = ['nginx-light', 'qemu-utils', 'qemu-system-x86', 'libnbd-bin', 'python3-libnbd', 'e2fsprogs', 'curl'];

await script(async () => {
  await ensureInstalled();
  await ensureBuilt();
  await ensureSystemPackages([...NEEDED, ...Object.keys(longSystemPackages).filter((name) => name !== 'firefox-esr')]);
  return runTests('fleet', ['--project=fleet', ...process.argv.slice(2)]);
});
