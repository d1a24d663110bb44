#!/usr/bin/env node
/** The command `copyondemand`: maps arguments to commands, and errors to exit codes. */

import { readFileSync } from 'node:fs';
import { type Command, CommanderError } from 'commander';
import { ACTIONS } from './actions.ts';
import { definitions } from './definitions/program.ts';
import { EXIT, failureLine, failureOf, UsageError } from './failure.ts';

function version(): string {
  const manifest = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
    version: string;
  };
  return manifest.version;
}

/** Returns the definitions with their actions. */
function program(): Command {
  const program = definitions(version());
  for (const command of program.commands) command.action(ACTIONS[command.name()]!);
  return program;
}

/** Ignores a reader that closes the pipe, as in `inspect | head`. Any other error ends the process. */
function onOutputError(error: NodeJS.ErrnoException): void {
  if (error.code === 'EPIPE') return;
  process.stderr.write(failureLine(failureOf(error)));
  process.exit(EXIT.failed);
}

/** Runs the command and returns its exit code. */
async function main(): Promise<number> {
  process.stdout.on('error', onOutputError);
  // Without a listener Node opens its debugger to every user of the machine.
  if (process.platform !== 'win32') process.on('SIGUSR1', () => undefined);
  try {
    if (process.argv.length <= 2)
      throw new UsageError('missing command: see `copyondemand --help`, or try `copyondemand demo`');
    await program().parseAsync();
    return EXIT.done;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.done : EXIT.usage;
    const failure = failureOf(error);
    process.stderr.write(failureLine(failure));
    return failure.exitCode;
  }
}

const exitCode = await main();
// After a signal nothing may keep the process alive, such as an abandoned request.
if (exitCode === EXIT.interrupted) process.exit(exitCode);
process.exitCode = exitCode;
