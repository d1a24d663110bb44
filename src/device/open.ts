/** Opening a device: a new copy, or one that resumes. */

import { EventStream } from '../async/event-stream.ts';
import { CodError, isCodError } from '../errors.ts';
import type { File, FileSystem } from '../fs/file-system.ts';
import { type RecoveredLog, recoverLog } from '../log/intent-log.ts';
import type { Environment } from '../platform/clock.ts';
import type { Source } from '../sources/source.ts';
import { CopyOnDemandDevice, errorEvent } from './device.ts';
import type { DeviceEvent, HydrateOptions, InlineDevice } from './types.ts';

/** How a device is opened. */
export interface OpenDeviceOptions {
  /** Where the image comes from. Stays the caller's: closing the device does not close it. */
  readonly source: Source;
  readonly fileSystem: FileSystem;
  /** Name of the copy in the file system. Its metadata lies beside it. */
  readonly target: string;
  /** The background copy. Default: on. */
  readonly hydrate?: false | HydrateOptions;
  /**
   * Called with each read of a user before it is served, never with reads of the background copy. Must not throw. Made
   * for a {@link ReadRecorder}.
   */
  readonly onRead?: (offset: number, length: number) => void;
  /** Bytes of a block: 4096 or a larger power of two. A copy that resumes keeps its block size. Default: 4096. */
  readonly blockSize?: number;
  /** A change becomes durable without a flush after this many milliseconds at the latest. Default: 10,000. */
  readonly checkpointIntervalMs?: number;
  /** Aborts the opening. */
  readonly signal?: AbortSignal;
  /** Default: the system's clock and randomness. */
  readonly environment?: Environment;
}

function checkOptions(options: OpenDeviceOptions): void {
  const { source, hydrate, checkpointIntervalMs, target } = options;
  if (typeof target !== 'string' || target === '') throw new TypeError('`target` must be the name of a file');
  if (checkpointIntervalMs !== undefined && !(checkpointIntervalMs > 0))
    throw new RangeError(`checkpointIntervalMs: ${checkpointIntervalMs}`);
  if (hydrate === undefined || hydrate === false) return;
  const { concurrency, extentBytes, rateBytesPerSecond, order } = hydrate;
  if (concurrency !== undefined && !(Number.isInteger(concurrency) && concurrency > 0))
    throw new RangeError(`hydrate.concurrency: ${concurrency}`);
  if (extentBytes !== undefined && !(extentBytes > 0)) throw new RangeError(`hydrate.extentBytes: ${extentBytes}`);
  if (rateBytesPerSecond !== undefined && !(rateBytesPerSecond > 0))
    throw new RangeError(`hydrate.rateBytesPerSecond: ${rateBytesPerSecond}`);
  for (const { offset, length } of order ?? []) {
    if (
      !Number.isSafeInteger(offset) ||
      !Number.isSafeInteger(length) ||
      offset < 0 ||
      length < 0 ||
      offset + length > source.size
    )
      throw new RangeError(`hydrate.order: bytes ${offset} + ${length} are outside the source of ${source.size} bytes`);
  }
}

/** A copy resumes from the same content only: the target holds a part of it. */
function checkSource(log: RecoveredLog, source: Source): void {
  if (log.size !== source.size) {
    throw new CodError('COD_SIZE_MISMATCH', `the copy is of ${log.size} bytes, the source has ${source.size}`, {
      details: { size: log.size, sourceSize: source.size },
    });
  }
  if (log.identity === undefined || log.identity === source.identity) return;
  throw new CodError(
    'COD_SOURCE_CHANGED',
    `the copy was begun from ${log.identity}, the source is now ${source.identity ?? 'without identity'}`,
    { details: { identity: log.identity, sourceIdentity: source.identity } },
  );
}

async function openExisting(fileSystem: FileSystem, target: string): Promise<File | undefined> {
  try {
    return await fileSystem.open(target);
  } catch (error) {
    if (isCodError(error, 'COD_NOT_FOUND')) return undefined;
    throw error;
  }
}

async function makeTarget(fileSystem: FileSystem, target: string, size: number): Promise<File> {
  const file = await fileSystem.open(target, { create: true });
  try {
    await file.truncate(size);
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Opens the target of a copy that exists. Makes it if a crash came before it was made. */
async function resumeTarget(fileSystem: FileSystem, target: string, log: RecoveredLog): Promise<File> {
  const { size, state } = log;
  const file = await openExisting(fileSystem, target);
  const found = await file?.size();
  if (file !== undefined && found === size) return file;
  await file?.close();
  if (state.isEmpty && (found === undefined || found === 0)) return makeTarget(fileSystem, target, size);
  if (found === undefined) {
    throw new CodError(
      'COD_CORRUPT',
      `${target} is missing, but its metadata says that ${state.blocks.count} blocks were copied to it`,
    );
  }
  throw new CodError(
    found < size ? 'COD_CORRUPT' : 'COD_SIZE_MISMATCH',
    `${target} has ${found} bytes instead of ${size}: another program changed it`,
    { details: { bytes: found, size } },
  );
}

/** Opens the target: a new one, which must not exist, or the one that the copy has. */
async function openTarget(fileSystem: FileSystem, target: string, log: RecoveredLog): Promise<File> {
  if (!log.isNew) {
    await log.prepare();
    return resumeTarget(fileSystem, target, log);
  }
  const existing = await openExisting(fileSystem, target);
  if (existing !== undefined) {
    await existing.close();
    throw new CodError('COD_EXISTS', `${target} exists and has no metadata, so it is not a copy: name another target`);
  }
  await log.prepare();
  return makeTarget(fileSystem, target, log.size);
}

/**
 * Opens the copy of a source: begins a new copy, or resumes it after any interruption.
 *
 * @throws {@link CodError} COD_EXISTS if the target exists and is no copy; COD_LOCKED if it has an owner;
 * COD_SIZE_MISMATCH or COD_SOURCE_CHANGED if it is a copy of something else; COD_CORRUPT, COD_VERSION; the errors of
 * the file system. `TypeError`, `RangeError` for wrong options.
 */
export async function openDeviceIn(environment: Environment, options: OpenDeviceOptions): Promise<InlineDevice> {
  checkOptions(options);
  const { source, fileSystem, target, signal, blockSize, checkpointIntervalMs } = options;
  if (source.size === 0) throw new CodError('COD_SIZE_MISMATCH', 'the source is empty: there is nothing to copy');
  signal?.throwIfAborted();
  const events = new EventStream<DeviceEvent>();
  const recovered = await recoverLog(
    environment,
    {
      fileSystem,
      name: target,
      size: source.size,
      ...(source.identity === undefined ? {} : { identity: source.identity }),
      ...(blockSize === undefined ? {} : { blockSize }),
      ...(checkpointIntervalMs === undefined ? {} : { checkpointIntervalMs }),
    },
    {
      checkpoint: (bytes) => events.emit({ type: 'checkpoint', bytes }),
      poisoned: (error) => {
        events.emit(errorEvent(error));
        events.emit({ type: 'state', state: 'poisoned' });
      },
    },
  );
  let file: File | undefined;
  try {
    if (!recovered.isNew) checkSource(recovered, source);
    signal?.throwIfAborted();
    const opened = (file = await openTarget(fileSystem, target, recovered));
    const log = await recovered.begin({
      read: (into, offset) => opened.read(into, offset),
      sync: () => opened.sync(),
    });
    signal?.throwIfAborted();
    return new CopyOnDemandDevice({
      clock: environment.clock,
      source,
      log,
      target: opened,
      isBlank: recovered.isNew,
      hydrate: options.hydrate ?? {},
      onRead: options.onRead,
      events,
    });
  } catch (error) {
    // The log first: it may sync the target.
    await recovered.close().catch(() => undefined);
    await file?.close().catch(() => undefined);
    throw error;
  }
}
