#!/usr/bin/env node
/**
 * The command `copyondemand`: maps arguments to commands, and errors to exit codes. A command is loaded when it is
 * called.
 */

import { readFileSync } from 'node:fs';
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import type { CopyFlags } from './copy.ts';
import { EXIT, failureLine, failureOf, UsageError } from './failure.ts';
import type { InspectFlags } from './inspect.ts';
import type { ServeFlags } from './serve.ts';
import { parseGroupName, parseInteger, parseRate, parseSha256, parseSize } from './units.ts';

const UNITS =
  'Sizes and rates: a number of bytes (per second), or with k, M, G, T (powers of 1024);\nrates also in kbit, mbit, gbit (powers of 1000 bits).';
const EXIT_CODES = 'Exit codes: 0 done; 1 failed; 2 wrong usage; 130 interrupted, the same command goes on.';

/** Adapts a parser, so that commander names the option in its error. */
function argument<T>(parse: (text: string) => T): (text: string) => T {
  return (text) => {
    try {
      return parse(text);
    } catch (error) {
      if (error instanceof UsageError) throw new InvalidArgumentError(error.message);
      throw error;
    }
  };
}

function version(): string {
  const manifest = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
    version: string;
  };
  return manifest.version;
}

/** Adds the options that apply to sources over a network. */
function withNetworkOptions(command: Command): Command {
  return command
    .addOption(
      new Option('--header <line>', "over HTTP: send 'Name: value' with each request (repeatable)").argParser(
        (line: string, lines?: string[]) => [...(lines ?? []), line],
      ),
    )
    .option('--user <name:password>', 'over HTTP: basic authentication')
    .option('--stream-whole', 'over HTTP: accept a server without ranges')
    .option(
      '--retries <n>',
      'over a network: how often in a row to try again before giving up',
      argument((text) => parseInteger(text, { min: 0, max: 1000 })),
    )
    .option(
      '--timeout <seconds>',
      'over a network: ask again when nothing comes for so long (default: 15)',
      argument((text) => parseInteger(text, { min: 1, max: 86_400 })),
    );
}

function program(): Command {
  const program = new Command('copyondemand')
    .description('Copies disk images that lie far away, crash-safely, while they are used.')
    .version(version())
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, 'copyondemand: ')) })
    .addHelpText('after', `\n${EXIT_CODES}`);

  const copy = program
    .command('copy')
    .summary('copy an image; the same command again resumes')
    .description(
      'Copies SOURCE, a path or a URL (http://, https://, nbd://, nbd+unix://), to TARGET. Whatever interrupts it, the same command again goes on where it was;\n' +
        'for that there is metadata beside TARGET, which is removed once the copy is complete and verified.',
    )
    .argument('<source>', 'a path, or a URL with http://, https://, nbd:// or nbd+unix://')
    .argument('<target>', 'a path where nothing is yet, or the copy to go on with')
    .option('--rate <rate>', 'take at most so much from the source, as 20M or 250mbit', argument(parseRate))
    .option(
      '--rate-file <file>',
      'take the rate from this file, which may be changed at any time; `unlimited` lifts it',
    )
    .option(
      '--rate-group <name>',
      'share the rate with the other copies of this group on this machine',
      argument(parseGroupName),
    )
    .option('--sha256 <hex>', 'verify that the copy has this digest', argument(parseSha256))
    .option(
      '--concurrency <n>',
      'requests at a time (default: as many as make it faster)',
      argument((text) => parseInteger(text, { min: 1, max: 64 })),
    )
    .option('--order <file>', 'copy first what is in this file, in its order')
    .option('--json', 'events on stdout, one JSON object a line, instead of progress on stderr')
    .option('--quiet', 'nothing on stderr but errors');
  withNetworkOptions(copy)
    .addHelpText('after', `\n${UNITS}\n${EXIT_CODES}`)
    .action(async (source: string, target: string, flags: CopyFlags) =>
      (await import('./copy.ts')).copy(source, target, flags),
    );

  const serve = program
    .command('serve')
    .summary('use an image over NBD while it is copied')
    .description(
      'Serves SOURCE as it is copied to TARGET: a virtual machine, the kernel or any other NBD client can read and write it at once.\n' +
        'Whatever interrupts it, the same command again goes on where it was. Metadata beside TARGET stays, also when the copy is complete.\n' +
        'Prints "listening on URI" when clients can connect. SIGTERM and SIGINT: finishes what is in work, takes a checkpoint, exits 0.',
    )
    .argument('<source>', 'a path, or a URL with http://, https://, nbd:// or nbd+unix://')
    .argument('<target>', 'a path where nothing is yet, or the copy to go on with')
    .option('--socket <path>', 'listen at a unix socket, for this user only')
    .option('--host <address>', 'listen at this address over TCP (default: 127.0.0.1)')
    .option(
      '--port <n>',
      'listen at this TCP port (default: 10809; 0: any)',
      argument((text) => parseInteger(text, { min: 0, max: 65_535 })),
    )
    .option('--export <name>', 'the name of the export (default: the empty one)')
    .option('--read-only', 'refuse to change anything')
    .option('--no-hydrate', 'copy only what is read')
    .option('--rate <rate>', 'copy in the background at most so fast, as 20M or 250mbit', argument(parseRate))
    .option(
      '--rate-file <file>',
      'take the rate from this file, which may be changed at any time; `unlimited` lifts it',
    )
    .option(
      '--rate-group <name>',
      'share the rate with the other copies of this group on this machine',
      argument(parseGroupName),
    )
    .option('--tls-cert <file>', 'TLS, and nothing without it: the certificate, as PEM')
    .option('--tls-key <file>', 'its private key, as PEM')
    .option('--tls-ca <file>', "the authority of the clients' certificates, as PEM: a client must have one")
    .option('--order <file>', 'copy first what is in this file, in its order')
    .option('--record-order <file>', 'record into this file what is read, in its order; for --order, another time')
    .option('--json', 'events on stdout, one JSON object a line, instead of progress on stderr')
    .option('--quiet', 'nothing on stderr but errors');
  withNetworkOptions(serve)
    .addHelpText('after', `\n${UNITS}\n${EXIT_CODES}`)
    .action(async (source: string, target: string, flags: ServeFlags) =>
      (await import('./serve.ts')).serve(source, target, flags),
    );

  program
    .command('inspect')
    .summary('what the metadata of a copy says')
    .description('Shows how far the copy at TARGET is, from the metadata beside it. Changes nothing.')
    .argument('<target>', 'the copy')
    .option('--json', 'one JSON object on stdout')
    .option('--map', 'draw the map of what is copied')
    .option(
      '--size <size>',
      'the size of the image, where TARGET is not there and its metadata does not tell it',
      argument(parseSize),
    )
    .addHelpText('after', `\n${UNITS}`)
    .action(async (target: string, flags: InspectFlags) => (await import('./inspect.ts')).inspect(target, flags));

  program
    .command('demo')
    .summary('the whole story on this machine, in 20 seconds')
    .description(
      'Uses, copies, kills and resumes a sample image in a temporary directory, and verifies what comes out.',
    )
    .action(async () => (await import('./demo.ts')).demo());

  program
    .command('demo-worker', { hidden: true })
    .argument('<url>')
    .argument('<target>')
    .action(async (url: string, target: string) => (await import('./demo/worker.ts')).runWorker(url, target));

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
  try {
    if (process.argv.length <= 2)
      throw new UsageError('which command? copy, serve, inspect or demo; `copyondemand --help` tells more');
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
