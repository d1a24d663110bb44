/**
 * Snapshots: a consistent copy of target and metadata under another name, while the device is in use.
 *
 *   claim the name → take what the target holds → take again what users changed meanwhile, at most three times
 *     → gate closed: the rest, and the clone → gate open → sync → checkpoint
 *
 * Where the file system can clone a file, bytes are taken by the clone and the steps before only collect the state.
 *
 * Invariants (docs/RECOVERY.md, "A snapshot"):
 * - The state of the snapshot says at most what its target holds. Blocks that the source has filled meanwhile may be
 *   missing there: they are copied again.
 * - What a user has changed is noted after the change is recorded, and before its lock is released.
 * - The gate is a shared lock on all blocks: it waits for changes in flight, and new changes wait for it. Reads do not,
 *   except of blocks for which a write waits.
 */

import { Mutex } from '../async/mutex.ts';
import { inTurns } from '../async/turns.ts';
import { BlockMap } from '../core/block-map.ts';
import type { CopyState } from '../core/copy-state.ts';
import { newBytes } from '../core/new-bytes.ts';
import { CodError, isCodError } from '../errors.ts';
import type { File, FileSystem } from '../fs/file-system.ts';
import { isNameOf, SnapshotMetadata } from '../log/snapshot-metadata.ts';
import type { Environment } from '../platform/clock.ts';
import { isZero } from '../platform/zeros.ts';
import type { Target } from './target.ts';

/** Bytes that are read and written at a time. */
const CHUNK_BYTES = 2 ** 20;
/** Bytes of dirty blocks that are looked at before the event loop turns: at most 2048 parts. */
const DIRTY_CHUNK_BYTES = 2 ** 17;
/** Runs of one state that are looked up at a time. */
const RUNS = 16;
/** Short steps share a turn of the event loop: a turn costs more than copying a block. */
const STEP_MS = 1;
/** Zeros are left out in units of this many bytes, so that holes stay holes. */
const ZERO_UNIT_BYTES = 65_536;
/** The target is synced after this many bytes, so that the disk writes while the copy continues. */
const SYNC_BYTES = 2 ** 26;
/** The gate is closed when no more than this is left to copy, or after so many rounds. */
const REST_BYTES = 2 ** 22;
const MAX_ROUNDS = 4;

/** Where the device and its snapshots are. */
export interface SnapshotPlace {
  readonly environment: Environment;
  readonly fileSystem: FileSystem;
  /** Name of the device's target. */
  readonly name: string;
  /** Prefix of the names of the device's metadata. */
  readonly metadata: string;
}

/** Takes the snapshots of one device, one after another. */
export class Snapshots {
  readonly #place: SnapshotPlace;
  readonly #target: Target;
  readonly #turns = new Mutex();
  #canClone: boolean;

  constructor(place: SnapshotPlace, target: Target) {
    this.#place = place;
    this.#target = target;
    this.#canClone = place.fileSystem.clone !== undefined;
  }

  /** As `snapshot` of a device. An abort leaves nothing of the snapshot. */
  async take(to: string, signal: AbortSignal): Promise<void> {
    checkName(this.#place, to);
    if (this.#target.isDevice)
      throw new CodError('COD_UNSUPPORTED', `${this.#place.name} is a block device: take a snapshot of its volume`);
    this.#target.assertWritable();
    await this.#turns.run(() => this.#take(to, signal));
  }

  async #take(to: string, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const { environment, fileSystem } = this.#place;
    const target = this.#target;
    const { geometry } = target.state;
    const metadata = await SnapshotMetadata.claim({ environment, fileSystem, name: to, geometry }, signal);
    const file = new SnapshotFile(fileSystem, to);
    try {
      const changed = await BlockMap.open(geometry);
      const work = new Collection({ environment, target, state: metadata.state, changed, signal });
      try {
        await this.#makeTarget(work, file);
      } finally {
        work.end();
      }
      await metadata.commit(target.log.identity, () => file.sync());
    } catch (error) {
      await metadata.abandon(() => file.remove());
      throw error;
    } finally {
      await file.close();
      await metadata.close();
    }
  }

  async #makeTarget(work: Collection, file: SnapshotFile): Promise<void> {
    if (this.#canClone) {
      try {
        await work.run(() => file.clone(this.#place.name));
        return;
      } catch (error) {
        if (!isCodError(error, 'COD_UNSUPPORTED')) throw error;
        this.#canClone = false;
      }
    }
    work.copyTo(await file.create(work.size));
    await work.run();
  }
}

/**
 * @throws `TypeError` if `to` is no name; `RangeError` if it is in another directory, or is a name of the device's own.
 */
function checkName({ name: target, metadata }: SnapshotPlace, to: string): void {
  if (typeof to !== 'string' || to === '') throw new TypeError('`to` must be a file name, a non-empty string');
  const directory = (name: string): string => name.slice(0, name.lastIndexOf('/') + 1);
  if (directory(to) !== directory(target)) throw new RangeError(`${to} is not in the directory of ${target}`);
  if (to === directory(to) || isNameOf(target, to) || isNameOf(metadata, to))
    throw new RangeError(`${to} cannot be the name of a snapshot of ${target}`);
}

/** The target of a snapshot. */
class SnapshotFile {
  readonly #fileSystem: FileSystem;
  readonly #name: string;
  #file: File | undefined;
  #isMade = false;

  constructor(fileSystem: FileSystem, name: string) {
    this.#fileSystem = fileSystem;
    this.#name = name;
  }

  /** Makes the file, for its owner only: what it holds may be as secret as the device's target. */
  async create(size: number): Promise<File> {
    const file = (this.#file = await this.#fileSystem.open(this.#name, { create: true, exclusive: true, mode: 0o600 }));
    this.#isMade = true;
    await file.truncate(size);
    return file;
  }

  async clone(from: string): Promise<void> {
    await this.#fileSystem.clone!(from, this.#name);
    this.#isMade = true;
    this.#file = await this.#fileSystem.open(this.#name);
  }

  async sync(): Promise<void> {
    await this.#file?.sync();
  }

  /** Removes what was made. A power cut may bring the name back, but none of the bytes. */
  async remove(): Promise<void> {
    if (!this.#isMade) return;
    const file = (this.#file ??= await this.#fileSystem.open(this.#name));
    await file.truncate(0);
    await file.sync();
    await file.close();
    await this.#fileSystem.remove(this.#name);
  }

  async close(): Promise<void> {
    await this.#file?.close();
  }
}

/** Collects what the device's target holds, and what users change meanwhile. */
class Collection {
  readonly #clock: Environment['clock'];
  readonly #target: Target;
  readonly #state: CopyState;
  readonly #signal: AbortSignal;
  /** The blocks that users have changed since they were taken. */
  #changed: BlockMap;
  /** Why changes could not be noted. */
  #failure: { readonly error: unknown } | undefined;
  /** Undefined: only the state is collected. */
  #file: File | undefined;
  readonly #buffer = newBytes(CHUNK_BYTES);
  #unsyncedBytes = 0;
  #turnedAtMs = Number.NEGATIVE_INFINITY;

  constructor(parts: {
    environment: Environment;
    target: Target;
    state: CopyState;
    changed: BlockMap;
    signal: AbortSignal;
  }) {
    this.#clock = parts.environment.clock;
    this.#target = parts.target;
    this.#state = parts.state;
    this.#changed = parts.changed;
    this.#signal = parts.signal;
    this.#target.onChanged = (offset, length) => this.#note(offset, length);
  }

  get size(): number {
    return this.#state.geometry.size;
  }

  /** Copies bytes to `file` from now on. What the state says already is taken again by {@link run}. */
  copyTo(file: File): void {
    this.#file = file;
  }

  /** Notes a change of a user. Must not throw. */
  #note(offset: number, length: number): void {
    const { start, end } = this.#state.blocksOf(offset, length);
    try {
      this.#changed.add(start, end);
    } catch (error) {
      this.#failure ??= { error };
    }
  }

  /** Takes everything. Calls `last` when all is taken and nothing changes. */
  async run(last?: () => Promise<void>): Promise<void> {
    const { log } = this.#target;
    await this.#take(0, this.size, { isNew: true });
    await inTurns(this.#state.modifyingAs(this.#target.state), this.#clock);
    // What the disk writes now delays no change later.
    await (this.#file === undefined ? log.flush() : this.#file.sync());
    for (let round = 1; round < MAX_ROUNDS && this.#restBytes > REST_BYTES; round++) await this.#takeChanged();
    const gate = await this.#target.lock(0, this.size, 'read');
    try {
      await this.#takeChanged();
      if (this.#failure !== undefined) throw this.#failure.error;
      await last?.();
    } finally {
      gate.release();
    }
    // Without this a snapshot could lack writes that the system has failed to store, and that it tells of only here.
    await log.flush();
  }

  get #restBytes(): number {
    return this.#changed.count * this.#state.geometry.blockSize;
  }

  /** Takes again what users have changed. What they change meanwhile is noted for the next call. */
  async #takeChanged(): Promise<void> {
    const { geometry } = this.#state;
    const next = await BlockMap.open(geometry);
    const changed = this.#changed;
    this.#changed = next;
    try {
      for (let start = changed.nextSynced(0); start < geometry.blockCount; ) {
        const end = changed.nextUnsynced(start);
        const { offset, length } = this.#state.bytesOf({ start, end });
        await this.#take(offset, offset + length, { isNew: false });
        start = changed.nextSynced(end);
      }
    } finally {
      changed.dispose();
    }
  }

  /** Takes what the target holds of [start, end). `isNew`: for the first time, not since a user has changed it. */
  async #take(start: number, end: number, how: { isNew: boolean }): Promise<void> {
    for (let at = start; at < end; ) {
      for (const { state, length } of this.#target.state.runs(at, end - at, RUNS)) {
        if (state !== 'unsynced') await this.#takeRun(at, at + length, state, how);
        at += length;
      }
      await this.#turn();
    }
  }

  async #takeRun(start: number, end: number, state: 'synced' | 'dirty', { isNew }: { isNew: boolean }): Promise<void> {
    const synced = this.#file === undefined ? end - start : CHUNK_BYTES;
    const chunk = state === 'synced' ? synced : DIRTY_CHUNK_BYTES;
    for (let at = start; at < end; at += chunk) {
      const stop = Math.min(at + chunk, end);
      this.#state.checkMemory();
      for (const piece of this.#target.state.pieces(at, stop - at)) {
        if (piece.from === 'source') continue;
        if (this.#file !== undefined) await this.#copy(this.#file, piece.start, piece.end, isNew);
        this.#state.apply(piece.start, piece.end - piece.start);
        if (!isNew) this.#state.modify(piece.start, piece.end - piece.start);
      }
      if (stop < end) await this.#turn();
    }
  }

  /** Copies bytes. Where nothing was copied before, zeros are left out. */
  async #copy(file: File, start: number, end: number, isNew: boolean): Promise<void> {
    const bytes = this.#buffer.subarray(0, end - start);
    await (this.#target.read(bytes, start) ?? this.#target.pace());
    let from = start;
    for (let at = start; isNew && at < end; ) {
      const next = Math.min(end, at - (at % ZERO_UNIT_BYTES) + ZERO_UNIT_BYTES);
      if (isZero(bytes.subarray(at - start, next - start))) {
        if (from < at) await file.write(bytes.subarray(from - start, at - start), from);
        from = next;
      }
      at = next;
    }
    if (from < end) await file.write(bytes.subarray(from - start), from);
    this.#unsyncedBytes += end - start;
    if (this.#unsyncedBytes < SYNC_BYTES) return;
    this.#unsyncedBytes = 0;
    await file.sync();
  }

  /** Lets the event loop turn, if it has not for {@link STEP_MS}. */
  async #turn(): Promise<void> {
    this.#signal.throwIfAborted();
    if (this.#clock.now() - this.#turnedAtMs < STEP_MS) return;
    await this.#clock.turn?.();
    this.#turnedAtMs = this.#clock.now();
  }

  /** Ends the notes. */
  end(): void {
    this.#target.onChanged = undefined;
    this.#changed.dispose();
  }
}
