/**
 * The definitions of all commands: arguments, options and texts, without what the commands do. They are loaded at each
 * start, so they import nothing else.
 */

import { Argument } from 'commander';
import { defineChecking } from './checking.ts';
import { defineCopying } from './copying.ts';
import { Definition } from './definition.ts';
import { defineKeeping } from './keeping.ts';
import { defineRunning } from './running.ts';

/**
 * Returns the definitions. The commands have no actions yet.
 * @param called the only command that gets its options, for a quick start; default: all get theirs
 */
export function definitions(version: string, called?: string): Definition {
  const program = new Definition('copyondemand');
  program.called = called;
  program
    .description('Copies remote disk images while they are in use, safely through any crash.')
    .version(version)
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, 'copyondemand: ')) });
  defineCopying(program);
  defineRunning(program);
  defineKeeping(program);
  defineChecking(program);

  program
    .command('demo')
    .summary('copy, crash and resume a sample image')
    .example('copyondemand demo')
    .description('Copies, crashes, resumes and verifies a sample image in a temporary directory.');

  program
    .command('explain')
    .summary('say what an error code means')
    .example('copyondemand explain COD_LOCKED')
    .description('Prints what an error code means and what to do. Without CODE it lists all codes.')
    .argument('[code]', 'for example COD_LOCKED or locked');

  program
    .command('completion')
    .summary('print a completion script for a shell')
    .example('source <(copyondemand completion bash)')
    .description('Prints a script that completes commands, options and file names of copyondemand in a shell.')
    .addArgument(new Argument('<shell>', 'the shell').choices(['bash', 'zsh', 'fish']));

  program.command('demo-worker', { hidden: true }).argument('<url>').argument('<target>');

  return program;
}
