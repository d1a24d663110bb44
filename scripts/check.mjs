/**
 * `npm run check [-- NAME …]`: everything that judges the code without running it. All of it runs, also after a failure; names select.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { capture, ensureBuilt, ensureInstalled, root, StepError, say, script } from './lib/steps.mjs';

/** Programs of node_modules, and scripts. @type {Record<string, [command: string, ...args: string[]]>} */
const checks = {
  biome: ['biome', 'ci', '--colors=off', '--error-on-warnings', '.'],
  knip: ['knip', '--no-progress'],
  publint: ['publint', '--strict', '--pack', 'npm'],
  // Only ES modules are promised: neither `require` nor the resolution of Node 10 is.
  attw: ['attw', '--pack', '.', '--profile', 'esm-only', '--no-emoji'],
  size: ['size-limit'],
  imports: ['node', join(root, 'scripts', 'import-map.mjs'), '--check'],
};
for (const name of readdirSync(root)) {
  if (/^tsconfig.*\.json$/.test(name) && name !== 'tsconfig.base.json')
    checks[name.replace('.json', '')] = ['tsc', '-p', name];
}

await script(async () => {
  const names = process.argv.slice(2);
  const unknown = names.filter((name) => !(name in checks));
  if (unknown.length > 0)
    throw new StepError(`no such check: ${unknown.join(', ')}; there are ${Object.keys(checks).join(', ')}`, '', 2);
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
