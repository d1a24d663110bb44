/** The commands about a copy that exists. */

import { parseInteger, parseSize } from '../units.ts';
import type { Definition } from './definition.ts';
import { argument, SIZES, TAKE_OVER, withMetadata } from './options.ts';

/** Adds the commands about copies that exist to the program. */
export function defineKeeping(program: Definition): void {
  withMetadata(program.command('inspect'))
    .summary('show the state of a copy')
    .example('copyondemand inspect vm.raw --map')
    .description('Shows the state of the copy at TARGET, from its metadata. Changes nothing.')
    .argument('<target>', 'the path of a copy')
    .option('--json', 'print one JSON object on stdout')
    .option('--map', 'draw a map of the copied blocks')
    .option('--size <size>', 'assume this image size if TARGET is missing (format 1)', argument(parseSize))
    .note(SIZES);

  withMetadata(program.command('finish'))
    .summary('make a complete copy an ordinary file')
    .example('copyondemand finish disk.raw')
    .description('Removes the metadata of the complete copy at TARGET. Needs no source, and may be repeated.')
    .argument('<target>', 'the path of a complete copy')
    .option(...TAKE_OVER)
    .option('--json', 'print one JSON object on stdout')
    .option('--quiet', 'print only errors on stderr');

  withMetadata(program.command('changes'))
    .summary('list what users modified')
    .example(
      'copyondemand changes vm.raw --json',
      'copyondemand changes vm.tuesday --since vm.monday --output tuesday.qcow2',
    )
    .description(
      'Lists the extents of TARGET that users modified since they were copied, in whole blocks.\n' +
        'With --since, those in which TARGET differs from an earlier snapshot.\n' +
        'Each line has offset and length in bytes. Changes nothing; the copy may be in use.\n' +
        'With --output, the extents become a qcow2 image over the snapshot. TARGET is not in use then.',
    )
    .argument('<target>', 'the path of a copy')
    .option('--since <snapshot>', 'compare with this snapshot of TARGET, or with a complete image')
    .option('--output <file>', 'write the extents to this new qcow2 image')
    .option('--backing-file <name>', 'the backing file of that image (default: the name of the snapshot)')
    .option('--json', 'print one JSON object for each extent, and one at the end');

  withMetadata(program.command('remove'))
    .summary('abandon a copy: remove it with its metadata')
    .example('copyondemand remove disk.raw --yes')
    .description(
      'Removes the copy at TARGET and its metadata, and nothing else.\n' +
        'Says what would be lost, and asks. What users wrote exists only in the copy.\n' +
        'A file without metadata, such as a complete image, is not removed.',
    )
    .argument('<target>', 'the path of a copy')
    .option('--yes', 'do not ask')
    .option(...TAKE_OVER)
    .option('--json', 'print one JSON object on stdout');

  withMetadata(program.command('repair'))
    .summary('repair damaged metadata of a copy')
    .example('copyondemand repair disk.raw', 'copyondemand repair disk.raw --yes')
    .description(
      'Says what can be saved from the damaged metadata of the copy at TARGET, and what would be lost.\n' +
        'With --yes it does so. The old metadata is kept in files that end with .old.',
    )
    .argument('<target>', 'the path of a copy')
    .option('--yes', 'repair it')
    .option('--json', 'print one JSON object on stdout');

  withMetadata(program.command('export'))
    .summary('convert the metadata of a copy for an older program')
    .example('copyondemand export disk.raw --format 1')
    .description(
      'Converts the metadata of the copy at TARGET to format 1, that of datto/copyondemand.\n' +
        'The copy must have been closed cleanly. Only TARGET.bak is left.\n' +
        'After a crash the same command continues. The next `copy` or `serve` converts it back.',
    )
    .argument('<target>', 'the path of a copy')
    .usage('[options] --format 1 <target>')
    .option(
      '--format <n>',
      'the format: 1, which is required',
      argument((text) => parseInteger(text, { min: 1, max: 1 })),
    );
}
