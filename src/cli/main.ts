#!/usr/bin/env node

/** The command `copyondemand`: maps arguments to commands, and errors to exit codes. */

import { type Command, CommanderError } from 'commander';
import { ACTIONS } from './actions.ts';
import { definitions } from './definitions/program.ts';
import { readEnvironment, wantsJson } from './environment.ts';
import { EXIT, emitError, failureLine, failureOf, UsageError } from './failure.ts';
import { jsonLines } from './json-lines.ts';
import { tell } from './log/told.ts';
import { version } from './version.ts';

/** Returns the definitions with their actions. For a quick start only the called command has options. */
function program(called: string | undefined): Command {
  // Help lists the commands with their options.
  const needsAll = called === undefined || called === 'help' || (called.startsWith('-') && called !== '--version');
  const program = definitions(version(), needsAll ? undefined : called);
  for (const command of program.commands) command.action(ACTIONS[command.name()]!);
  readEnvironment(program, process.env);
  return program;
}

/** Ignores a reader that closes the pipe, as in `inspect | head`. Any other error ends the process. */
function onOutputError(error: NodeJS.ErrnoException): void {
  if (error.code === 'EPIPE') return;
  tell('error', failureLine(failureOf(error)));
  process.exit(EXIT.failed);
}

/** Runs the command and returns its exit code. */
async function main(): Promise<number> {
  process.stdout.on('error', onOutputError);
  // Without a listener Node opens its debugger to every user of the machine.
  if (process.platform !== 'win32') process.on('SIGUSR1', () => undefined);
  const args = process.argv.slice(2);
  const commands = program(args[0]);
  try {
    if (args.every((arg) => arg === '--json'))
      throw new UsageError('missing command: see `copyondemand --help`, or try `copyondemand demo`');
    await commands.parseAsync();
    return EXIT.done;
  } catch (error) {
    const isTold = error instanceof CommanderError;
    if (isTold && error.exitCode === 0) return EXIT.done;
    const reported = isTold ? new UsageError(error.message.replace(/^error: /, '')) : error;
    emitError(jsonLines(process.stdout, { enabled: wantsJson(commands, args, process.env) }), reported);
    const failure = failureOf(reported);
    if (!isTold) tell('error', failureLine(failure));
    return failure.exitCode;
  }
}

const exitCode = await main();
// After a signal nothing may keep the process alive, such as an abandoned request.
if (exitCode === EXIT.interrupted) process.exit(exitCode);
process.exitCode = exitCode;
