/** Opening a device: a new copy, or one that resumes. */

import { EventStream } from '../async/event-stream.ts';
import { withSignal } from '../async/with-signal.ts';
import { CodError, isCodError } from '../errors.ts';
import type { File, FileSystem } from '../fs/file-system.ts';
import { readFile, readNamed, writeFile } from '../fs/inline-file.ts';
import { type OpenLog, type RecoveredLog, recoverLogOf } from '../log/intent-log.ts';
import { UNFINISHED } from '../log/snapshot-metadata.ts';
import type { Environment } from '../platform/clock.ts';
import type { InlineSource, Source } from '../sources/source.ts';
import { prepareDevice } from './block-device-target.ts';
import { CopyOnDemandDevice } from './device.ts';
import type { Diagnostics } from './diagnostics.ts';
import type { Room } from './hydrator.ts';
import { Origin, type OriginCopy } from './origin.ts';
import type { Patience } from './patience.ts';
import { describe } from './retries.ts';
import type { DeviceEvent, HydrateOptions, InlineDevice } from './types.ts';

/** Options of `openDevice`. */
export interface OpenDeviceOptions {
  /**
   * The origin of the image, 1 byte or more, or a function that opens it. A new copy needs it once; a copy that exists
   * opens without it.
   *
   * - A source object belongs to the caller: closing the device does not close it.
   * - The function is called when the source is needed, and again after a request has failed, until it succeeds. What
   *   it returns belongs to the device. An incomplete copy is usable at once, whatever the function does.
   * - A source that holds another image than the copy is not used: see the event `source-changed`.
   *
   * Default: none. Reads of what is missing reject with COD_SOURCE_IO then.
   */
  readonly source?: Source | (() => Promise<Source>) | undefined;
  /** Where the copy is stored. One object may serve any number of copies. */
  readonly fileSystem: FileSystem;
  /**
   * Name of the copy in the file system. Its metadata is beside it: `<target>.bak`, `<target>.bak.1`, `<target>.wil`,
   * `<target>.wil.1`. A symbolic link is followed if it leads to a file.
   *
   * A block device that is at least as long as the source can be a target too. It needs `metadata`.
   */
  readonly target: string;
  /**
   * Prefix of the metadata files' names, in the place of `target`. A copy must always be opened with the same prefix.
   * On another volume than the target, it recovers from crashes all the same, but a snapshot of one of both volumes is
   * no copy. Default: `target`.
   */
  readonly metadata?: string | undefined;
  /**
   * Begins a copy on a block device although it seems to hold something, such as a file system or this very image, and
   * replaces that.
   * Default: false.
   */
  readonly overwrite?: boolean;
  /** Options of the background copy. False: no background copy. Default: `{}`. */
  readonly hydrate?: false | HydrateOptions;
  /**
   * Called with offset and length in bytes of each `read` of 1 byte or more, before the read is served. The background
   * copy's reads do not count. Must not throw. Made for a `ReadRecorder`.
   */
  readonly onRead?: (offset: number, length: number) => void;
  /**
   * Opens a copy that exists for reading only. Nothing on the disk is changed and no lock is taken, so a full or
   * read-only disk is no obstacle. What the target misses is read from the source and not kept; there is no background
   * copy. Changes, `checkpoint` and `finish` reject with COD_READ_ONLY, and `hydrateRange` has no effect. No other
   * device may open the copy for writing meanwhile: this one would not see its writes. Default: false.
   */
  readonly readOnly?: boolean;
  /** Bytes of a block: a power of two from 4096 to 2^26. A copy that resumes keeps its block size. Default: 4096. */
  readonly blockSize?: number;
  /**
   * Milliseconds, above 0; Infinity: never. The device makes a change durable by itself this long after the first
   * change that is not durable. Default: 10,000.
   */
  readonly checkpointIntervalMs?: number;
  /**
   * Replaces an owner on another machine when its heartbeat has stood still for 10 s, instead of 30 s. Default: false.
   */
  readonly takeOver?: boolean;
  /**
   * Accepts another identity of the source as the same content, and stores it. The size must be the same. Default:
   * false.
   */
  readonly sameSource?: boolean;
  /** Aborts opening; has no effect on the opened device. */
  readonly signal?: AbortSignal;
  /** Clock and randomness. Default: the machine's. */
  readonly environment?: Environment;
}

const REMOVE = 'remove the copy (`copyondemand remove`, `removeCopy`)';

function checkOptions(options: OpenDeviceOptions): void {
  const { source, hydrate, checkpointIntervalMs, target, metadata } = options;
  if (source !== undefined && typeof source !== 'function' && typeof source?.read !== 'function')
    throw new TypeError('`source` must be a source, or a function that opens one');
  if (typeof target !== 'string' || target === '')
    throw new TypeError('`target` must be a file name, a non-empty string');
  if (metadata !== undefined && (typeof metadata !== 'string' || metadata === ''))
    throw new TypeError('`metadata` must be the beginning of file names, a non-empty string');
  if (checkpointIntervalMs !== undefined && !(checkpointIntervalMs > 0))
    throw new RangeError(`checkpointIntervalMs must be above 0, not ${checkpointIntervalMs}`);
  if (hydrate === undefined || hydrate === false) return;
  const { concurrency, extentBytes, rateBytesPerSecond } = hydrate;
  if (concurrency !== undefined && !(Number.isInteger(concurrency) && concurrency > 0))
    throw new RangeError(`hydrate.concurrency must be an integer above 0, not ${concurrency}`);
  if (extentBytes !== undefined && !(extentBytes > 0))
    throw new RangeError(`hydrate.extentBytes must be above 0, not ${extentBytes}`);
  if (rateBytesPerSecond !== undefined && !(rateBytesPerSecond > 0))
    throw new RangeError(`hydrate.rateBytesPerSecond must be above 0, not ${rateBytesPerSecond}`);
}

function checkOrder({ hydrate }: OpenDeviceOptions, size: number): void {
  if (hydrate === undefined || hydrate === false) return;
  for (const { offset, length } of hydrate.order ?? []) {
    const isInside = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0;
    if (!isInside || offset + length > size)
      throw new RangeError(`hydrate.order: ${length} bytes at ${offset} are not within the source (${size} bytes)`);
  }
}

async function openExisting(
  fileSystem: FileSystem,
  target: string,
  how: { readOnly: boolean; noFollow?: boolean },
): Promise<File | undefined> {
  try {
    return await fileSystem.open(target, how);
  } catch (error) {
    if (isCodError(error, 'COD_NOT_FOUND')) return undefined;
    throw error;
  }
}

/** Makes the target, readable for those who may read the source. Of a source that is away that is not known. */
function makeTarget(fileSystem: FileSystem, target: string, source: InlineSource | undefined): Promise<File> {
  const { mode = 0o666 } = source ?? { mode: 0o600 };
  return fileSystem.open(target, { create: true, exclusive: true, mode: mode & 0o666 });
}

async function resized(file: File, size: number): Promise<File> {
  try {
    await file.truncate(size);
    return file;
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Opens the target of a copy that exists. Makes it if a crash came before it was made. */
async function resumeTarget(
  fileSystem: FileSystem,
  target: string,
  log: RecoveredLog,
  source: InlineSource | undefined,
): Promise<File> {
  const { size, state, readOnly } = log;
  const file = await openExisting(fileSystem, target, { readOnly });
  const found = await file?.size();
  if (file !== undefined && (found === size || (file.deviceContents && found! > size))) return file;
  if (state.isEmpty && !found && !readOnly)
    return resized(file ?? (await makeTarget(fileSystem, target, source)), size);
  await file?.close();
  if (state.isEmpty && !found) throw noCopy(`nothing of ${target} is copied yet`);
  if (found === undefined) {
    throw new CodError(
      'COD_CORRUPT',
      `${target} is missing, but its metadata lists ${state.blocks.count} blocks: ` + `restore the file, or ${REMOVE}`,
    );
  }
  throw new CodError(
    found < size ? 'COD_CORRUPT' : 'COD_SIZE_MISMATCH',
    `${target} has ${found} bytes instead of ${size}: another program changed it; ` + `restore the file, or ${REMOVE}`,
    { details: { bytes: found, size } },
  );
}

function noCopy(why: string): CodError {
  return new CodError('COD_NOT_FOUND', `${why}; only an existing copy can be opened read-only`);
}

/** A target that cannot be opened may be a link that leads nowhere, which must stay as it is. */
async function refuseLink(fileSystem: FileSystem, target: string): Promise<void> {
  try {
    await (await openExisting(fileSystem, target, { readOnly: true, noFollow: true }))?.close();
  } catch (cause) {
    if (!isCodError(cause, 'COD_EXISTS')) throw cause;
    throw new CodError('COD_EXISTS', `${target} is a link that leads nowhere: name another target`, { cause });
  }
}

/** Opens the target: a new one, which must not exist, or the one that the copy has. */
async function openTarget(
  options: OpenDeviceOptions,
  log: RecoveredLog,
  source: InlineSource | undefined,
): Promise<File> {
  const { fileSystem, target } = options;
  if (!log.isNew) {
    if (!log.readOnly) await log.prepare();
    return resumeTarget(fileSystem, target, log, source);
  }
  const existing = await openExisting(fileSystem, target, { readOnly: log.readOnly });
  if (existing?.deviceContents && !log.readOnly) return prepareDevice(existing, log, source!, options);
  await existing?.close();
  if (existing !== undefined) throw noNewCopy(target, log.readOnly);
  await refuseLink(fileSystem, target);
  if (log.readOnly) throw noCopy(`there is no copy at ${target}`);
  await log.prepare();
  return resized(await makeTarget(fileSystem, target, source), log.size);
}

/** The error for a file that is not a copy. */
function noNewCopy(target: string, readOnly: boolean): CodError {
  if (readOnly) return noCopy(`${target} has no metadata: open it as a file`);
  return new CodError('COD_EXISTS', `${target} exists and has no metadata: name another target`, {
    details: { target, isImage: true },
  });
}

/** The error of a call without a source where there is no copy. */
async function missingCopy(fileSystem: FileSystem, target: string): Promise<CodError> {
  const existing = await openExisting(fileSystem, target, { readOnly: true });
  await existing?.close();
  const isImage = existing !== undefined;
  const what = isImage
    ? `${target} has no metadata, so it is an ordinary image and no copy: use it as a file`
    : `there is no copy at ${target}: name the source of a new one`;
  return new CodError('COD_NOT_FOUND', what, { details: { target, isImage } });
}

/** The size of a target, 0 if there is none. */
async function sizeOf(fileSystem: FileSystem, target: string): Promise<number> {
  const file = await openExisting(fileSystem, target, { readOnly: true });
  try {
    return (await file?.size()) ?? 0;
  } finally {
    await file?.close();
  }
}

/**
 * As `openDevice` of `copyondemand`, in `environment`.
 * @param asksFirst asks the source of an incomplete copy before anything changes, and rejects with its error, unless
 * that is COD_SOURCE_IO, which may pass.
 * @param patience a read of missing bytes that fails is repeated. A source that is being opened is waited for as long,
 * at most 30 s at a time. Default: it fails.
 * @param diagnostics publishes what the device does. Default: nothing is published.
 */
export async function openDeviceIn(
  environment: Environment,
  options: OpenDeviceOptions,
  {
    asksFirst = false,
    patience,
    diagnostics,
  }: { asksFirst?: boolean; patience?: Patience | undefined; diagnostics?: Diagnostics } = {},
): Promise<InlineDevice> {
  checkOptions(options);
  const { source, fileSystem, target, signal, takeOver, blockSize, checkpointIntervalMs, readOnly = false } = options;
  const { sameSource = false, metadata = target } = options;
  signal?.throwIfAborted();
  const events = new EventStream<DeviceEvent>((event) => diagnostics?.tell(event));
  const { clock } = environment;
  const origin = new Origin({ clock, events, diagnostics, source, sameSource, patienceMs: patience?.ms });
  let device: CopyOnDemandDevice | undefined;
  let recovered: RecoveredLog | undefined;
  let file: File | undefined;
  try {
    const log = (recovered = await recoverLogOf(
      environment,
      {
        fileSystem,
        name: metadata,
        readOnly,
        content: async () => {
          if (source === undefined) throw await missingCopy(fileSystem, target);
          return origin.first(signal);
        },
        // The target's size is that of the source, unless a program cut it: the source tells.
        size: async () =>
          origin.source?.size ?? ((await sizeOf(fileSystem, target)) || (await origin.first(signal)).size),
        ...(blockSize === undefined ? {} : { blockSize }),
        ...(checkpointIntervalMs === undefined ? {} : { checkpointIntervalMs }),
        ...(signal === undefined ? {} : { signal }),
        ...(takeOver === undefined ? {} : { takeOver }),
        owner: {
          target,
          events: ({ signal }) => events.subscribe(signal),
          get device() {
            return device;
          },
        },
        storage: { read: (into, offset) => readNamed(fileSystem, target, into, offset) },
      },
      {
        checkpoint: (bytes) => events.emit({ type: 'checkpoint', bytes }),
        durable: (...ended) => diagnostics?.durable(...ended),
        poisoned: (error) => {
          events.emit({ type: 'error', ...describe(error) });
          events.emit({ type: 'state', state: 'poisoned' });
          device?.poisoned(error);
        },
      },
    ));
    checkOrder(options, log.size);
    if (log.identity === UNFINISHED)
      throw new CodError('COD_INCOMPLETE', `${target} is ${UNFINISHED}: ${REMOVE}`, { details: { target } });
    let begun: OpenLog | undefined;
    const copy: OriginCopy = {
      size: log.size,
      get identity() {
        return (begun ?? log).identity;
      },
      rename: async (identity) => {
        if (readOnly) return;
        await (begun ?? log).rename(identity);
        // A failure is that of the next checkpoint, too.
        begun?.checkpoint().catch(() => undefined);
      },
    };
    await origin.bind(copy);
    if (asksFirst && !log.state.isComplete) {
      await withSignal(origin.obtain(), signal).catch((error: unknown) => {
        if (!isCodError(error, 'COD_SOURCE_IO')) throw error;
      });
    }
    signal?.throwIfAborted();
    const opened = (file = await openTarget(options, log, origin.source));
    begun = await log.begin({
      read: (into, offset) => readFile(opened, into, offset),
      write: (from, offset) => writeFile(opened, from, offset),
      sync: () => opened.sync(),
    });
    signal?.throwIfAborted();
    device = new CopyOnDemandDevice({
      environment,
      origin,
      log: begun,
      target: opened,
      isBlank: log.isNew && opened.deviceContents === undefined,
      restIsZero: log.restIsZero,
      hydrate: readOnly ? false : (options.hydrate ?? {}),
      onRead: options.onRead,
      events,
      place: { environment, fileSystem, name: target, metadata },
      room: () => roomOf(fileSystem, target),
      patience,
    });
    diagnostics?.tell({ type: 'opened', device });
    return device;
  } catch (error) {
    // The log first: it may sync the target.
    await recovered?.close().catch(() => undefined);
    await file?.close().catch(() => undefined);
    await origin.close(error);
    throw error;
  }
}

/** The room on the disk of a target, if its file system knows it. */
async function roomOf(fileSystem: FileSystem, target: string): Promise<Room | undefined> {
  try {
    const free = await fileSystem.freeBytes?.(target);
    if (free === undefined) return undefined;
    const total = (await fileSystem.volumeBytes?.(target)) ?? 0;
    return { free, total, allocated: (await fileSystem.allocatedBytes?.(target)) ?? 0 };
  } catch {
    return undefined;
  }
}
