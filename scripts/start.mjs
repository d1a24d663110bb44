/**
 * `npm start [-- COMMAND …]`: installs and builds what is missing, then runs the command `copyondemand`, by default its
 * demo. The command runs in this process, so that it owns the signals, the terminal and the exit code.
 */
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ensureBuilt, ensureInstalled, root, script } from './lib/steps.mjs';

await script(async () => {
  await ensureInstalled();
  await ensureBuilt();
});
if (process.exitCode === 0) {
  process.exitCode = undefined;
  const command = join(root, 'dist', 'cli', 'main.js');
  const args = process.argv.slice(2);
  process.argv.splice(1, Infinity, command, ...(args.length > 0 ? args : ['demo']));
  // npm changes to the package's folder. Paths in the arguments are relative to the user's folder.
  if (process.env['INIT_CWD']) process.chdir(process.env['INIT_CWD']);
  await import(pathToFileURL(command).href);
}
