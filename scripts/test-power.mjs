/**
 * `npm run test:power [-- ARGUMENTS OF VITEST]`: cuts the power under a copy on ext4, xfs and btrfs, 300 times each.
 * Takes about half an hour, and needs root and loop devices.
 *
 * COD_POWER_CUTS sets the number of cuts, and COD_POWER_SEED repeats a run.
 */
import { ensureBuilt, ensureInstalled, script } from './lib/steps.mjs';
import { ensureSystemPackages } from './lib/system-packages.mjs';
import { runTests } from './lib/vitest.mjs';

await script(async () => {
  await ensureInstalled();
  await ensureBuilt();
  await ensureSystemPackages(['e2fsprogs', 'xfsprogs', 'btrfs-progs']);
  const env = { COD_POWER_CUTS: '300', ...process.env };
  return runTests('power', ['--project=power', ...process.argv.slice(2)], { env });
});
