/** Opening a device: a new copy, or one that goes on. */

import { geometry } from '../core/geometry.ts';
import { CodError, isCodError } from '../errors.ts';
import type { File, FileSystem } from '../fs/file-system.ts';
import { Journal } from '../log/journal.ts';
import type { RecoveredState } from '../log/recovered-state.ts';
import { recover } from '../log/recovery.ts';
import { Slots } from '../log/slots.ts';
import type { Clock } from '../platform/clock.ts';
import type { Source } from '../sources/source.ts';
import { Core } from '../wasm/core.ts';
import { CopyOnDemandDevice, type LocalDevice } from './device.ts';
import type { HydrateOptions } from './types.ts';

const DEFAULT_BLOCK_BYTES = 4096;
const DEFAULT_CHECKPOINT_INTERVAL_MS = 10_000;

/** What a device takes from its surroundings; hand in a simulated one for deterministic tests. */
export interface Environment {
  readonly clock: Clock;
  /** Fills the bytes at random; used once, to name a copy. */
  readonly randomBytes: (into: Uint8Array) => void;
}

/** How a device is opened. */
export interface OpenDeviceOptions {
  /** Where the image comes from. Stays the caller's: closing the device does not close it. */
  readonly source: Source;
  readonly fileSystem: FileSystem;
  /** The copy's name in the file system; metadata lies beside it. */
  readonly target: string;
  /** The background copy. Default: on. */
  readonly hydrate?: false | HydrateOptions;
  /** Called with each read of a user that is about to be served, not with those of the background copy; it must not throw. Made for a {@link ReadRecorder}. */
  readonly onRead?: (offset: number, length: number) => void;
  /** 4096 or a larger power of two; a copy that goes on keeps the one it began with. Default: 4096. */
  readonly blockSize?: number;
  /** At the latest so long after a change it is made durable. Default: 10,000. */
  readonly checkpointIntervalMs?: number;
  /** Gives up opening. */
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

/** A resume must be of the same content: the target already has a part of it. */
function checkSource(state: RecoveredState, source: Source): void {
  if (state.geometry.size !== source.size) {
    throw new CodError(
      'COD_SIZE_MISMATCH',
      `the copy is of ${state.geometry.size} bytes, the source has ${source.size}`,
      {
        details: { size: state.geometry.size, sourceSize: source.size },
      },
    );
  }
  if (state.identity !== undefined && state.identity !== source.identity) {
    throw new CodError(
      'COD_SOURCE_CHANGED',
      `the copy was begun from ${state.identity}, the source is now ${source.identity ?? 'without identity'}`,
      {
        details: { identity: state.identity, sourceIdentity: source.identity },
      },
    );
  }
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
  await file.truncate(size);
  return file;
}

/** The target of a copy that goes on; made, if a crash came before it was. */
async function resumeTarget(fileSystem: FileSystem, target: string, state: RecoveredState): Promise<File> {
  const { size } = state.geometry;
  const nothingCopied = state.map.count === 0 && state.dirty.blockCount === 0;
  const file = await openExisting(fileSystem, target);
  const found = await file?.size();
  if (file !== undefined && found === size) return file;
  if (nothingCopied && (found === undefined || found === 0)) {
    await file?.close();
    return makeTarget(fileSystem, target, size);
  }
  await file?.close();
  if (found === undefined) {
    throw new CodError(
      'COD_CORRUPT',
      `${target} is missing, and its metadata says that ${state.map.count} blocks were copied into it`,
    );
  }
  throw new CodError(
    found < size ? 'COD_CORRUPT' : 'COD_SIZE_MISMATCH',
    `${target} has ${found} bytes instead of ${size}: somebody changed it`,
    {
      details: { bytes: found, size },
    },
  );
}

/**
 * Opens the copy of a source: begins it, or goes on where it was, whatever happened in between.
 *
 * @throws {@link CodError} COD_EXISTS if the target exists and is nobody's copy; COD_LOCKED if somebody has it; COD_SIZE_MISMATCH or COD_SOURCE_CHANGED if it is a copy of something
 *   else; COD_CORRUPT, COD_VERSION; what the file system says. `TypeError`, `RangeError` for wrong options.
 */
export async function openDeviceIn(environment: Environment, options: OpenDeviceOptions): Promise<LocalDevice> {
  checkOptions(options);
  const { source, fileSystem, target, signal } = options;
  if (source.size === 0) throw new CodError('COD_SIZE_MISMATCH', 'the source is empty: there is nothing to copy');
  const shape = geometry({ size: source.size, blockSize: options.blockSize ?? DEFAULT_BLOCK_BYTES });
  const undo: (() => Promise<void>)[] = [];
  try {
    signal?.throwIfAborted();
    const unlock = (await fileSystem.lock?.(target)) ?? (async () => undefined);
    undo.push(unlock);
    const core = Core.create();
    const slots = new Slots(fileSystem, target);
    undo.push(() => slots.close());
    const state = await recover(core, slots, async () => source.size);
    undo.push(async () => state?.map.dispose());
    signal?.throwIfAborted();
    const session = new Uint8Array(16);
    environment.randomBytes(session);
    const journalOptions = {
      core,
      clock: environment.clock,
      slots,
      identity: source.identity,
      checkpointIntervalMs: options.checkpointIntervalMs ?? DEFAULT_CHECKPOINT_INTERVAL_MS,
    };
    let file: File | undefined;
    undo.push(async () => file?.close());
    let journal: Journal;
    if (state === undefined) {
      file = await openExisting(fileSystem, target);
      if (file !== undefined) {
        throw new CodError(
          'COD_EXISTS',
          `${target} exists and has no metadata, so it is nobody's copy: remove it, or name another target`,
        );
      }
      journal = await Journal.create(
        journalOptions,
        shape,
        session,
        async () => (file = await makeTarget(fileSystem, target, shape.size)),
      );
    } else {
      checkSource(state, source);
      const found = state;
      journal = await Journal.resume(
        journalOptions,
        found,
        session,
        async () => (file = await resumeTarget(fileSystem, target, found)),
      );
    }
    signal?.throwIfAborted();
    return new CopyOnDemandDevice({
      clock: environment.clock,
      source,
      journal,
      target: file!,
      blank: state === undefined,
      hydrate: options.hydrate ?? {},
      onRead: options.onRead,
      unlock,
    });
  } catch (error) {
    for (const step of undo.reverse()) await step().catch(() => undefined);
    throw error;
  }
}
