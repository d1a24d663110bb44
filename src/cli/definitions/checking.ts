/** The commands that compare bytes with digests. */

import { parseInteger, parseRateOrNone, parseSha256 } from '../units.ts';
import type { Definition } from './definition.ts';
import { argument, RATES, SOURCE, SOURCES, withMetadata, withSourceOptions } from './options.ts';

/** Adds `manifest` and `verify` to the program. */
export function defineChecking(program: Definition): void {
  withSourceOptions(program.command('manifest'))
    .summary('write the digests of an image to a file')
    .description(
      'Writes a digest for each 64 KiB of the image in SOURCE to FILE, and prints their root.\n' +
        'With --manifest FILE, `copy` and `serve` use no byte that does not match, and `verify` compares a copy.',
    )
    .argument('<source>', SOURCE)
    .argument('<file>', 'the path of the manifest; an older manifest there is replaced')
    .option('--json', 'print events as JSON lines on stdout, and no progress')
    .option('--quiet', 'print only the root, and errors on stderr')
    .example('copyondemand manifest https://example.com/image.raw image.manifest')
    .note(SOURCES);

  withSourceOptions(withMetadata(program.command('verify')))
    .summary('compare a copy with its source or a manifest')
    .description(
      'Compares what was copied to TARGET and not modified since: with SOURCE, or with --manifest FILE.\n' +
        'Prints offset and length of each extent that differs. Changes nothing; the copy may be in use.',
    )
    .usage('[options] [source] <target>')
    .argument('<source>', SOURCE)
    .argument('[target]', 'the path of a copy, or of a finished copy')
    .option('--manifest <file>', 'compare with this manifest; with SOURCE: use no byte that does not match it')
    .option('--manifest-root <hex>', 'the manifest must have this root', argument(parseSha256))
    .option(
      '--rate <rate>',
      'read at most at a rate such as 20M, or `unlimited` (the default)',
      argument(parseRateOrNone),
    )
    .option(
      '--from <offset>',
      'continue an interrupted run here',
      argument((text) => parseInteger(text, { min: 0, max: Number.MAX_SAFE_INTEGER })),
    )
    .option('--json', 'print events as JSON lines on stdout, and no progress')
    .option('--quiet', 'print only what differs, and errors on stderr')
    .example(
      'copyondemand verify https://example.com/image.raw disk.raw',
      'copyondemand verify disk.raw --manifest image.manifest --rate 50M',
    )
    .note(SOURCES, RATES);
}
