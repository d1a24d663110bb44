/** Whom a command asks about a running copy: the owner of TARGET, or a process with many disks. */

import { type CopyControl, controlOf, controlOfDisk } from '../control/client.ts';
import { UsageError } from './failure.ts';

export interface ControlFlags {
  /** Prefix of the names of the metadata. */
  readonly metadata?: string;
  /** Path of a control socket. TARGET is then the name of a disk. */
  readonly control?: string;
}

/** @throws {@link UsageError} if options exclude each other */
export function checkControlFlags({ metadata, control }: ControlFlags): void {
  if (control !== undefined && metadata !== undefined) throw new UsageError('use either --control or --metadata');
}

/** @throws as {@link checkControlFlags} */
export function controlFor(target: string, flags: ControlFlags): CopyControl {
  checkControlFlags(flags);
  const { metadata, control } = flags;
  return control === undefined ? controlOf(target, { metadata }) : controlOfDisk(control, target);
}
