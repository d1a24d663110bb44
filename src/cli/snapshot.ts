/** `copyondemand snapshot`: a consistent copy of a copy, made by the process that owns it, or else by this one. */

import { basename } from 'node:path';
import { withSignal } from '../async/with-signal.ts';
import { type CopyControl, controlOf, isUnowned } from '../control/client.ts';
import { nodeFileSystem } from '../control/node-file-system.ts';
import { directoryOf } from '../control/paths.ts';
import { openDeviceIn } from '../device/open.ts';
import { isCodError } from '../errors.ts';
import { systemEnvironment } from '../platform/environment.ts';
import { emitError, UsageError } from './failure.ts';
import { listenForInterruption } from './interruption.ts';
import { jsonLines } from './json-lines.ts';

/** Parsed options of the command. */
export interface SnapshotFlags {
  readonly json?: boolean;
  /** Prefix of the names of the metadata of TARGET. */
  readonly metadata?: string;
}

/**
 * Takes a snapshot of the copy at TARGET.
 * @throws {@link UsageError} if TO is not another name in the same directory; COD_NOT_FOUND if TARGET is not a copy;
 * the errors of `Device.snapshot`.
 */
export async function snapshot(target: string, to: string, { json = false, metadata }: SnapshotFlags): Promise<void> {
  const emit = jsonLines(process.stdout, { enabled: json });
  const interruption = listenForInterruption();
  const { signal } = interruption;
  try {
    if (target === '' || to === '') throw new UsageError('give the paths of a copy and of its snapshot');
    const directory = directoryOf(target);
    if (directoryOf(to) !== directory || basename(to) === basename(target))
      throw new UsageError(`TO must be another name in the directory of TARGET, ${directory}`);
    const control = controlOf(target, { metadata, signal });
    let pid = await takenByOwner(control, to);
    try {
      if (pid === null) await takeHere({ target, metadata }, basename(to), signal);
    } catch (error) {
      // Another process may have become the owner meanwhile.
      pid = isCodError(error, 'COD_LOCKED') ? await takenByOwner(control, to) : null;
      if (pid === null) throw error;
    }
    emit('done', { target, to, pid });
    if (!json) process.stderr.write(`${to}: a snapshot of ${target}\n`);
  } catch (error) {
    emitError(emit, error);
    throw error;
  } finally {
    interruption.stop();
  }
}

/** Returns the process id of the owner; null: no process owns the copy. */
async function takenByOwner(control: CopyControl, to: string): Promise<number | null> {
  try {
    return (await control.snapshot(to)).pid;
  } catch (error) {
    if (isUnowned(error)) return null;
    throw error;
  }
}

/** The path of a file in the directory of `target`, written as `target` is. */
function beside(target: string, name: string): string {
  return target.slice(0, target.length - basename(target).length) + name;
}

/** Opens the copy, which has no owner, without its source, and takes the snapshot. */
async function takeHere(
  { target, metadata }: { target: string; metadata: string | undefined },
  name: string,
  signal: AbortSignal,
): Promise<void> {
  const fileSystem = nodeFileSystem();
  const device = await openDeviceIn(systemEnvironment, {
    fileSystem,
    target,
    metadata,
    hydrate: false,
    signal,
  });
  try {
    await withSignal(device.snapshot(beside(target, name)), signal);
  } finally {
    await device.close();
  }
}
