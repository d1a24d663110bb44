#!/usr/bin/env node
/**
 * The command `copyondemand`: maps arguments to commands, and errors to exit codes. A command is loaded when it is
 * called.
 */

import { readFileSync } from 'node:fs';
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import type { ChangesFlags } from './changes.ts';
import type { CopyFlags } from './copy.ts';
import type { ExportFlags } from './export.ts';
import { EXIT, failureLine, failureOf, UsageError } from './failure.ts';
import type { FinishFlags } from './finish.ts';
import type { InspectFlags } from './inspect.ts';
import type { RemoveFlags } from './remove.ts';
import type { RepairFlags } from './repair.ts';
import type { ServeFlags } from './serve.ts';
import type { SnapshotFlags } from './snapshot.ts';
import type { StatusFlags } from './status.ts';
import type { Steering, SteeringFlags } from './steering.ts';
import { parseGroupName, parseInteger, parseRateOrNone, parseSha256, parseSize } from './units.ts';

const SIZES = 'Sizes: bytes, or with k, M, G, T (powers of 1024).';
const RATES = 'Rates: bytes per second, with k, M, G, T (powers of 1024) or kbit, mbit, gbit.';
const EXIT_CODES = 'Exit codes: 0 done; 1 failed; 2 wrong usage; 130 interrupted, can be resumed.';
const SOURCE = 'a path, or an http, https, s3, nbd, nbds or nbd+unix URL';
const TARGET = 'a path that does not exist yet, or a copy to resume';

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

function limitOf(rate: number | 'unlimited'): number | undefined {
  return rate === 'unlimited' ? undefined : rate;
}

function version(): string {
  const manifest = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
    version: string;
  };
  return manifest.version;
}

/** Adds the option that says where the metadata is. */
function withMetadata(command: Command): Command {
  return command.option(
    '--metadata <prefix>',
    'the metadata is in files whose names begin with this path (default: TARGET)',
  );
}

/** Adds the options of the background copy and of the output. */
function withCopyOptions(command: Command): Command {
  return withMetadata(command)
    .option(
      '--rate <rate>',
      'limit the copy to a rate such as 20M (default: unlimited)',
      argument((text) => limitOf(parseRateOrNone(text))),
    )
    .option('--rate-file <file>', 'read a rate or `unlimited` from this file every second')
    .option('--rate-group <name>', 'share the rate in this group of local copies', argument(parseGroupName))
    .option('--order <file>', 'copy the extents of this order file first')
    .option('--same-source', 'accept a source of another identity as the same content')
    .option('--take-over', 'replace an owner on another machine after 10 s without its heartbeat, not 30 s')
    .option('--grow', 'TARGET is a block device: the copy has its size, with zeros behind the image')
    .option('--overwrite', 'TARGET is a block device: replace what it seems to hold')
    .option('--json', 'print events as JSON lines on stdout, and no progress')
    .option('--quiet', 'print only errors and warnings on stderr');
}

/** Adds the options that say how the image is read and requested. */
function withSourceOptions(command: Command): Command {
  return command
    .addOption(
      new Option('--format <format>', 'read SOURCE in this format (default: as its bytes tell)').choices([
        'raw',
        'qcow2',
      ]),
    )
    .addOption(
      new Option('--backing <file>', 'a qcow2 needs this backing file or URL, or `allow`: those it names (repeatable)')
        // The order is that in which the images need the files.
        .argParser((file: string, files?: string[]) => [...(files ?? []), file]),
    )
    .addOption(
      new Option('--header <line>', "send this HTTP header, 'Name: value', or those in @FILE (repeatable)").argParser(
        (line: string, lines?: string[]) => [...(lines ?? []), line],
      ),
    )
    .option('--user <name:password>', 'send basic authentication over HTTP')
    .option('--user-file <file>', 'read name:password from this file')
    .option('--netrc', 'read them from ~/.netrc')
    .option('--cacert <file>', 'trust only these certificate authorities (default: SSL_CERT_FILE, or those of Node)')
    .option('--cert <file>', 'present this client certificate (PEM)')
    .option('--key <file>', 'use this private key for --cert (PEM)')
    .option('--insecure', 'do not verify the certificate of the server')
    .option('--stream-whole', 'accept an HTTP server without ranges')
    .option('--endpoint-url <url>', 'the server of s3:// (default: AWS_ENDPOINT_URL, or AWS)')
    .option('--no-sign-request', 'send no AWS credentials, for a public object in S3')
    .option(
      '--retries <n>',
      'retry a request n times (default: 19, 4 while opening)',
      argument((text) => parseInteger(text, { min: 0, max: 1000 })),
    )
    .option(
      '--timeout <seconds>',
      'retry after this time without data (default: 15); a client of `serve` waits for it (default: 30)',
      argument((text) => parseInteger(text, { min: 1, max: 86_400 })),
    );
}

function program(): Command {
  const program = new Command('copyondemand')
    .description('Copies remote disk images while they are in use, safely through any crash.')
    .version(version())
    .exitOverride()
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, 'copyondemand: ')) })
    .addHelpText('after', `\n${EXIT_CODES}`);

  const copy = program
    .command('copy')
    .summary('copy an image; the same command resumes')
    .description(
      'Copies SOURCE to TARGET. After an interruption, the same command resumes.\n' +
        'Metadata beside TARGET holds the progress. A complete, verified copy has none.',
    )
    .argument('<source>', SOURCE)
    .argument('<target>', TARGET)
    .option('--sha256 <hex>', 'verify the SHA-256 digest of the complete copy', argument(parseSha256))
    .option(
      '--concurrency <n>',
      'send at most n requests at a time (default: adaptive)',
      argument((text) => parseInteger(text, { min: 1, max: 64 })),
    );
  withSourceOptions(withCopyOptions(copy))
    .addHelpText('after', `\n${RATES}\n${EXIT_CODES}`)
    .action(async (source: string, target: string, flags: CopyFlags) =>
      (await import('./copy.ts')).copy(source, target, flags),
    );

  const serve = program
    .command('serve')
    .summary('serve an image over NBD while it is copied')
    .description(
      'Serves SOURCE over NBD while it is copied to TARGET. Clients may read and write.\n' +
        'Without SOURCE: serves a copy that exists. A complete copy needs no source.\n' +
        'After an interruption, the same command resumes. Metadata stays beside TARGET.\n' +
        'Prints "listening on URI" when clients can connect.\n' +
        'SIGTERM or SIGINT completes requests in flight, takes a checkpoint and exits 0.',
    )
    .usage('[options] [source] <target>')
    .argument('<source>', SOURCE)
    .argument('[target]', TARGET)
    .option('--socket <path>', 'listen on a unix socket that only this user can open')
    .option('--host <address>', 'listen on this TCP address (default: 127.0.0.1)')
    .option(
      '--port <n>',
      'listen on this TCP port, 0: any (default: 10809)',
      argument((text) => parseInteger(text, { min: 0, max: 65_535 })),
    )
    .option('--export <name>', 'name the export (default: the empty name)')
    .option('--read-only', 'serve an existing copy, and change nothing on the disk')
    .option('--no-hydrate', 'copy only the blocks that clients read')
    .option('--tls-cert <file>', 'require TLS, with this certificate (PEM)')
    .option('--tls-key <file>', 'use this private key for --tls-cert (PEM)')
    .option('--tls-ca <file>', 'require client certificates of this CA (PEM)')
    .option('--record-order <file>', 'record the order of reads in this file, for --order');
  withSourceOptions(withCopyOptions(serve))
    .addHelpText('after', `\n${RATES}\n${EXIT_CODES}`)
    .action(async (source: string, target: string | undefined, flags: ServeFlags) => {
      const { serve } = await import('./serve.ts');
      await (target === undefined ? serve(undefined, source, flags) : serve(source, target, flags));
    });

  withMetadata(program.command('status'))
    .summary('show what the owner of a copy does')
    .description('Asks the process that owns the copy at TARGET. Without an owner: what its metadata says.')
    .argument('<target>', 'the path of a copy')
    .option('--json', 'print one JSON object on stdout')
    .option('--watch', 'print it again each second, until no process owns the copy')
    .addHelpText('after', `\n${EXIT_CODES}`)
    .action(async (target: string, flags: StatusFlags) => (await import('./status.ts')).status(target, flags));

  const steering: readonly (readonly [command: Steering, summary: string])[] = [
    ['pause', 'pause a background copy'],
    ['resume', 'continue a background copy that was paused'],
  ];
  for (const [command, summary] of steering) {
    withMetadata(program.command(command))
      .summary(summary)
      .description(
        `Asks the process that owns the copy at TARGET to ${command} its background copy. Clients are not affected.`,
      )
      .argument('<target>', 'the path of a copy')
      .option('--json', 'print one JSON object on stdout')
      .addHelpText('after', `\n${EXIT_CODES}`)
      .action(async (target: string, flags: SteeringFlags) =>
        (await import('./steering.ts')).steer(command, target, flags),
      );
  }

  withMetadata(program.command('set-rate'))
    .summary('change the rate of a background copy')
    .description(
      'Asks the process that owns the copy at TARGET to copy at RATE from now on.\n' +
        'In a rate group, this process then asks for RATE for all members. A rate file counts more.',
    )
    .argument('<target>', 'the path of a copy')
    .argument('<rate>', 'a rate such as 20M, or `unlimited`', argument(parseRateOrNone))
    .option('--json', 'print one JSON object on stdout')
    .addHelpText('after', `\n${RATES}\n${EXIT_CODES}`)
    .action(async (target: string, rate: number | 'unlimited', flags: SteeringFlags) =>
      (await import('./steering.ts')).steer('set-rate', target, flags, limitOf(rate)),
    );

  withMetadata(program.command('snapshot'))
    .summary('copy a copy as it is now, also while it is in use')
    .description(
      'Makes TO a consistent copy of the copy at TARGET, with its metadata, in the same directory.\n' +
        'The process that owns the copy does it while it serves. Without an owner, this process does it.\n' +
        'File systems with reflinks (xfs, btrfs) share the bytes. Otherwise they are copied.',
    )
    .argument('<target>', 'the path of a copy')
    .argument('<to>', 'a path in the same directory that does not exist yet')
    .option('--json', 'print one JSON object on stdout')
    .addHelpText('after', `\n${EXIT_CODES}`)
    .action(async (target: string, to: string, flags: SnapshotFlags) =>
      (await import('./snapshot.ts')).snapshot(target, to, flags),
    );

  withMetadata(program.command('inspect'))
    .summary('show the state of a copy')
    .description('Shows the state of the copy at TARGET, from its metadata. Changes nothing.')
    .argument('<target>', 'the path of a copy')
    .option('--json', 'print one JSON object on stdout')
    .option('--map', 'draw a map of the copied blocks')
    .option('--size <size>', 'assume this image size if TARGET is missing (format 1)', argument(parseSize))
    .addHelpText('after', `\n${SIZES}`)
    .action(async (target: string, flags: InspectFlags) => (await import('./inspect.ts')).inspect(target, flags));

  withMetadata(program.command('finish'))
    .summary('make a complete copy an ordinary file')
    .description('Removes the metadata of the complete copy at TARGET. Needs no source, and may be repeated.')
    .argument('<target>', 'the path of a complete copy')
    .option('--take-over', 'replace an owner on another machine after 10 s without its heartbeat, not 30 s')
    .option('--json', 'print one JSON object on stdout')
    .option('--quiet', 'print only errors on stderr')
    .addHelpText('after', `\n${EXIT_CODES}`)
    .action(async (target: string, flags: FinishFlags) => (await import('./finish.ts')).finish(target, flags));

  withMetadata(program.command('changes'))
    .summary('list what users modified')
    .description(
      'Lists the extents of TARGET that users modified since they were copied, in whole blocks.\n' +
        'Each line has offset and length in bytes. Changes nothing; the copy may be in use.',
    )
    .argument('<target>', 'the path of a copy')
    .option('--json', 'print one JSON object for each extent, and one at the end')
    .addHelpText('after', `\n${EXIT_CODES}`)
    .action(async (target: string, flags: ChangesFlags) => (await import('./changes.ts')).changes(target, flags));

  withMetadata(program.command('remove'))
    .summary('abandon a copy: remove it with its metadata')
    .description(
      'Removes the copy at TARGET and its metadata, and nothing else.\n' +
        'Says what would be lost, and asks. What users wrote exists only in the copy.\n' +
        'A file without metadata, such as a complete image, is not removed.',
    )
    .argument('<target>', 'the path of a copy')
    .option('--yes', 'do not ask')
    .option('--take-over', 'replace an owner on another machine after 10 s without its heartbeat, not 30 s')
    .option('--json', 'print one JSON object on stdout')
    .addHelpText('after', `\n${EXIT_CODES}`)
    .action(async (target: string, flags: RemoveFlags) => (await import('./remove.ts')).remove(target, flags));

  withMetadata(program.command('repair'))
    .summary('repair damaged metadata of a copy')
    .description(
      'Says what can be saved from the damaged metadata of the copy at TARGET, and what would be lost.\n' +
        'With --yes it does so. The old metadata is kept in files that end with .old.',
    )
    .argument('<target>', 'the path of a copy')
    .option('--yes', 'repair it')
    .option('--json', 'print one JSON object on stdout')
    .addHelpText('after', `\n${EXIT_CODES}`)
    .action(async (target: string, flags: RepairFlags) => (await import('./repair.ts')).repair(target, flags));

  withMetadata(program.command('export'))
    .summary('convert the metadata of a copy for an older program')
    .description(
      'Converts the metadata of the copy at TARGET to format 1, that of datto/copyondemand.\n' +
        'The copy must have been closed cleanly. Only TARGET.bak is left.\n' +
        'After a crash the same command continues. The next `copy` or `serve` converts it back.',
    )
    .argument('<target>', 'the path of a copy')
    .requiredOption(
      '--format <n>',
      'the format: 1',
      argument((text) => parseInteger(text, { min: 1, max: 1 })),
    )
    .addHelpText('after', `\n${EXIT_CODES}`)
    .action(async (target: string, flags: ExportFlags) => (await import('./export.ts')).exportCopy(target, flags));

  program
    .command('demo')
    .summary('copy, crash and resume a sample image')
    .description('Copies, crashes, resumes and verifies a sample image in a temporary directory.')
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
