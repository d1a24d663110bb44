/** The commands that copy from a source. */

import { parseMetricsAddress } from '../metrics/address.ts';
import { parseInteger, parseSha256, parseSha512 } from '../units.ts';
import type { Definition } from './definition.ts';
import { argument, RATES, SOURCE, SOURCES, TARGET, withCopyOptions, withSourceOptions } from './options.ts';

/** Adds `copy` and `serve` to the program. */
export function defineCopying(program: Definition): void {
  const copy = program
    .command('copy')
    .summary('copy an image; the same command resumes')
    .example(
      'copyondemand copy https://example.com/image.qcow2 disk.raw',
      'copyondemand copy s3://bucket/image.raw disk.raw --rate 20M',
      "copyondemand copy 'nbd+unix:///?socket=/run/nbd.sock' disk.raw --json",
      'copyondemand copy image.raw /dev/vg/disk --metadata /var/lib/disk',
    )
    .description(
      'Copies SOURCE to TARGET. After an interruption, the same command resumes.\n' +
        'Metadata beside TARGET holds the progress. A complete, verified copy has none.',
    )
    .argument('<source>', SOURCE)
    .argument('<target>', TARGET)
    .option('--sha256 <hex>', 'verify the SHA-256 digest of the complete copy', argument(parseSha256))
    .option('--sha512 <hex>', 'verify its SHA-512 digest', argument(parseSha512))
    .option('--checksums <file>', 'verify the digest that this file or URL has for SOURCE, such as SHA256SUMS')
    .option(
      '--concurrency <n>',
      'send at most n requests at a time (default: adaptive)',
      argument((text) => parseInteger(text, { min: 1, max: 64 })),
    );
  withSourceOptions(withCopyOptions(copy)).note(SOURCES, RATES);

  const serve = program
    .command('serve')
    .summary('serve an image over NBD while it is copied')
    .example(
      'copyondemand serve https://example.com/image.raw vm.raw --socket vm.sock',
      'copyondemand serve vm.raw --read-only --port 0',
      'copyondemand serve nbds://host/disk vm.raw --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem',
    )
    .description(
      'Serves SOURCE over NBD while it is copied to TARGET. Clients may read and write.\n' +
        'Without SOURCE: serves a copy that exists. A complete copy needs no source.\n' +
        'After an interruption, the same command resumes. Metadata stays beside TARGET.\n' +
        'Prints "listening on URI" when clients can connect.\n' +
        'SIGTERM or SIGINT completes requests in flight, takes a checkpoint and exits 0.',
    )
    .usage('[options] [source] <target>')
    .argument('[source]', SOURCE)
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
    .option('--config <file>', 'serve the disks of this file, without SOURCE and TARGET; SIGHUP reads it again')
    .option('--record-order <file>', 'record the order of reads in this file, for --order')
    .option(
      '--metrics <address>',
      'serve Prometheus metrics at this HOST:PORT, or PORT of 127.0.0.1',
      argument(parseMetricsAddress),
    );
  withSourceOptions(withCopyOptions(serve)).note(SOURCES, RATES);
}
