/** Options and texts that several commands share. */

import { InvalidArgumentError, Option } from 'commander';
import { UsageError } from '../failure.ts';
import { parseGroupName, parseInteger, parseRateOrNone, parseSha256 } from '../units.ts';
import type { Definition, Note } from './definition.ts';

export const SIZES: Note = { title: 'Sizes', text: 'bytes, or with k, M, G, T (powers of 1024).' };
export const RATES: Note = {
  title: 'Rates',
  text: 'bytes per second, with k, M, G, T (powers of 1024) or kbit, mbit, gbit; or `unlimited`.',
};
export const SOURCES: Note = {
  title: 'Sources',
  text: [
    ['PATH', 'a file or a block device'],
    ['http://HOST/PATH, https://HOST/PATH', 'a server that sends ranges'],
    ['s3://BUCKET/KEY', 'an object; credentials as in tools of AWS'],
    ['nbd://HOST[:PORT]/EXPORT', 'an NBD export; nbds:// with TLS'],
    ['nbd+unix:///EXPORT?socket=PATH', 'the same on a unix socket; nbds+unix://'],
  ],
};
export const SOURCE: string = 'a path, or an http, https, s3, nbd, nbds or nbd+unix URL';
export const TARGET: string = 'a path that does not exist yet, or a copy to resume';

/** The option of commands that own a copy. */
export const TAKE_OVER: readonly [flags: string, description: string] = [
  '--take-over',
  'replace an owner on another machine after 10 s without its heartbeat, not 30 s',
];

/** An option whose values add up, in their order. */
export class Repeatable extends Option {
  constructor(flags: string, description: string) {
    super(flags, description);
    this.argParser((text: string, before: readonly string[] = []) => [...before, text]);
  }
}

/** Adapts a parser, so that commander names the option in its error. */
export function argument<T>(parse: (text: string) => T): (text: string) => T {
  return (text) => {
    try {
      return parse(text);
    } catch (error) {
      if (error instanceof UsageError) throw new InvalidArgumentError(error.message);
      throw error;
    }
  };
}

/** Adds the option that says where the metadata is. */
export function withMetadata(command: Definition): Definition {
  return command.option(
    '--metadata <prefix>',
    'the metadata is in files whose names begin with this path (default: TARGET)',
  );
}

/** Adds the options that say where the copy is that a process owns. */
export function withControl<T extends Definition>(command: T): T {
  return withMetadata(command).option(
    '--control <socket>',
    'ask at the control socket of `serve --config`: TARGET is the name of a disk',
  ) as T;
}

/** Adds the options of the background copy and of the output. */
export function withCopyOptions(command: Definition): Definition {
  return withMetadata(command)
    .option(
      '--rate <rate>',
      'limit the copy to a rate such as 20M, or `unlimited` (the default)',
      argument(parseRateOrNone),
    )
    .option('--rate-file <file>', 'read a rate or `unlimited` from this file every second')
    .option('--rate-group <name>', 'share the rate in this group of local copies', argument(parseGroupName))
    .option('--order <file>', 'copy the extents of this order file first')
    .option('--manifest <file>', 'use no byte of SOURCE that does not match this manifest')
    .option('--manifest-root <hex>', 'the manifest must have this root', argument(parseSha256))
    .option('--seed <file>', 'take what matches the manifest from this older image')
    .option('--same-source', 'accept a source of another identity as the same content')
    .option(...TAKE_OVER)
    .option('--grow', 'TARGET is a block device: the copy has its size, with zeros behind the image')
    .option('--overwrite', 'TARGET is a block device: replace what it seems to hold')
    .option('--json', 'print events as JSON lines on stdout, and no progress')
    .option('-v, --verbose', 'print each event on stderr')
    .option('--log <file>', 'append each event to this file')
    .option('--quiet', 'print only errors and warnings on stderr');
}

/** Adds the options that say how the image is read and requested. */
export function withSourceOptions(command: Definition): Definition {
  return (
    command
      .addOption(
        new Option('--format <format>', 'read SOURCE in this format (default: as its bytes tell)').choices([
          'raw',
          'qcow2',
        ]),
      )
      // The order is that in which the images need the files.
      .addOption(
        new Repeatable(
          '--backing <file>',
          'a qcow2 needs this backing file or URL, or `allow`: those it names (repeatable)',
        ),
      )
      .addOption(
        new Repeatable('--header <line>', "send this HTTP header, 'Name: value', or those in @FILE (repeatable)"),
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
      )
  );
}
