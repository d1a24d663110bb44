/** The commands that ask the process that owns a copy. */

import { parseRateOrNone } from '../units.ts';
import type { Definition } from './definition.ts';
import { argument, RATES, withControl, withMetadata } from './options.ts';

/** Adds the commands about running copies to the program. */
export function defineRunning(program: Definition): void {
  withControl(program.command('status'))
    .summary('show what the owner of a copy does')
    .example('copyondemand status vm.raw --watch', 'copyondemand status --control /run/copyondemand/control.sock')
    .description(
      'Asks the process that owns the copy at TARGET. Without an owner: what its metadata says.\n' +
        'With --control and without TARGET: all disks of that process.',
    )
    .argument('[target]', 'the path of a copy')
    .option('--json', 'print one JSON object on stdout')
    .option('--watch', 'print it each second, until no process owns the copy; on a terminal, draw a screen');

  const steering: readonly (readonly [command: string, summary: string])[] = [
    ['pause', 'pause a background copy'],
    ['resume', 'continue a background copy that was paused'],
  ];
  for (const [command, summary] of steering) {
    withControl(program.command(command))
      .summary(summary)
      .example(`copyondemand ${command} vm.raw`)
      .description(
        `Asks the process that owns the copy at TARGET to ${command} its background copy. Clients are not affected.`,
      )
      .argument('<target>', 'the path of a copy')
      .option('--json', 'print one JSON object on stdout');
  }

  withControl(program.command('set-rate'))
    .summary('change the rate of a background copy')
    .example('copyondemand set-rate vm.raw 20M', 'copyondemand set-rate vm.raw unlimited')
    .description(
      'Asks the process that owns the copy at TARGET to copy at RATE from now on.\n' +
        'In a rate group, this process then asks for RATE for all members. A rate file counts more.',
    )
    .argument('<target>', 'the path of a copy')
    .argument('<rate>', 'a rate such as 20M, or `unlimited`', argument(parseRateOrNone))
    .option('--json', 'print one JSON object on stdout')
    .note(RATES);

  withMetadata(program.command('snapshot'))
    .summary('copy a copy as it is now, also while it is in use')
    .example('copyondemand snapshot vm.raw vm-backup.raw')
    .description(
      'Makes TO a consistent copy of the copy at TARGET, with its metadata, in the same directory.\n' +
        'The process that owns the copy does it while it serves. Without an owner, this process does it.\n' +
        'File systems with reflinks (xfs, btrfs) share the bytes. Otherwise they are copied.',
    )
    .argument('<target>', 'the path of a copy')
    .argument('<to>', 'a path in the same directory that does not exist yet')
    .option('--json', 'print one JSON object on stdout');
}
