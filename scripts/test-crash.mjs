/** `npm run test:crash [-- OPTIONS]`: the crash campaign (test/crash/main.ts says which options). */
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
