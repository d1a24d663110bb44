/** `npm run check [-- NAME …]`: runs all static checks, or the named ones. A failure does not stop the others. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { capture, ensureBuilt, ensureInstalled, root, StepError, say, script } from './lib/steps.mjs';

/**
 * Each check's command: `node`, or a program of node_modules.
 * @type {Record<string, [command: string, ...args: string[]]>}
 */
const checks = {
  biome: ['biome', 'ci', '--colors=off', '--error-on-warnings', '.'],
  knip: ['knip', '--no-progress'],
  publint: ['publint', '--strict', '--pack', 'npm'],
  // The package supports ES modules only: neither `require` nor the resolution of Node 10.
  attw: ['attw', '--pack', '.', '--profile', 'esm-only', '--no-emoji'],
  size: ['size-limit'],
  imports: ['node', join(root, 'scripts', 'import-map.mjs'), '--check'],
  tidy: ['node', join(root, 'scripts', 'tidy.mjs')],
  'reading-ease': ['node', join(root, 'scripts', 'reading-ease.mjs')],
};
for (const name of readdirSync(root)) {
  if (/^tsconfig.*\.json$/.test(name) && name !== 'tsconfig.base.json')
    checks[name.replace('.json', '')] = ['tsc', '-p', name];
}

await script(async () => {
  const names = process.argv.slice(2);
  const unknown = names.filter((name) => !(name in checks));
  if (unknown.length > 0)
    throw new StepError(`unknown check ${unknown.join(', ')}: use ${Object.keys(checks).join(', ')}`, '', 2);
  await ensureInstalled();
  await ensureBuilt();
  let failed = 0;
  for (const [name, [command, ...args]] of Object.entries(checks)) {
    if (names.length > 0 && !names.includes(name)) continue;
    try {
      await capture(command === 'node' ? process.execPath : `${root}node_modules/.bin/${command}`, args);
      say(`${name}: ok`);
    } catch (error) {
      if (!(error instanceof StepError)) throw error;
      failed += 1;
      say(`${name}: failed\n${error.output || error.message}`);
    }
  }
  return failed > 0 ? 1 : 0;
});
