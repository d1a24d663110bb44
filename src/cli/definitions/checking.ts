/** The commands that compare bytes with digests. */

import type { Definition } from './definition.ts';
import { SOURCE, SOURCES, withSourceOptions } from './options.ts';

/** Adds `manifest` to the program. */
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
}
