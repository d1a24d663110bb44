/** `copyondemand snapshot`: a consistent copy of a copy, made by the process that owns it, or else by this one. */

import { realpathSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { withSignal } from '../async/with-signal.ts';
import { askOwner } from '../control/client.ts';
import { openDeviceIn } from '../device/open.ts';
import type { Device } from '../device/types.ts';
import { CodError, isCodError } from '../errors.ts';
import { nodeFileSystem } from '../fs/node.ts';
import { systemEnvironment } from '../platform/environment.ts';
import { ioError } from '../platform/errno.ts';
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
    const ask = (): Promise<Record<string, unknown> | undefined> =>
      withSignal(askOwner(metadata ?? target, 'snapshot', { directory, name: basename(to) }), signal);
    let owner = await ask();
    try {
      if (owner === undefined) await takeHere({ target, metadata }, basename(to), signal);
    } catch (error) {
      // Another process may have become the owner meanwhile.
      owner = isCodError(error, 'COD_LOCKED') ? await ask() : undefined;
      if (owner === undefined) throw error;
    }
    emit('done', { target, to, pid: owner?.['pid'] ?? null });
    if (!json) process.stderr.write(`${to}: a snapshot of ${target}\n`);
  } catch (error) {
    emitError(emit, error);
    throw error;
  } finally {
    interruption.stop();
  }
}

/** Answers the command on the owner's side: takes a snapshot of `device`, whose copy is at `target`. */
export async function answerSnapshot(
  device: Device,
  target: string,
  { directory, name }: Readonly<Record<string, unknown>>,
): Promise<object> {
  // Only in this directory: another one may be closed to the client.
  if (typeof name !== 'string' || name !== basename(name) || directory !== directoryOf(target)) {
    const message = `a snapshot of ${target} must be in ${directoryOf(target)}`;
    throw new CodError('COD_UNSUPPORTED', message, { details: { target } });
  }
  await device.snapshot(beside(target, name));
  return { target, pid: process.pid };
}

/** The path of a file in the directory of `target`, written as `target` is. */
function beside(target: string, name: string): string {
  return target.slice(0, target.length - basename(target).length) + name;
}

function directoryOf(path: string): string {
  try {
    return realpathSync(dirname(path));
  } catch (cause) {
    throw ioError(`find the directory of ${path}`, cause, { path });
  }
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
