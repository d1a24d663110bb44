/** `npm run test:crash [-- OPTIONS]`: runs the crash campaign. test/crash/main.ts documents the options. */
import { join } from 'node:path';
import { ensureBuilt, ensureInstalled, root, script } from './lib/steps.mjs';

await script(async () => {
  await ensureInstalled();
  await ensureBuilt();
  process.chdir(root);
  const { runTs } = await import('./run-ts.mjs');
  const { main } = await runTs(join(root, 'test', 'crash', 'main.ts'));
  return main(process.argv.slice(2));
});
