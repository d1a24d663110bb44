/**
 * Abandons a copy: removes its target and its metadata, and nothing else.
 *
 *   own → read → say that nothing is copied → empty and remove the target → empty and remove the metadata
 *
 * Each step is durable before the next begins (docs/RECOVERY.md, "A removal", gives the reasons).
 *
 * Invariants:
 * - While the target has bytes, its metadata is there: without it, an incomplete target looks like a complete image.
 * - Nothing changes before every file is known to be ours.
 */

import { CopyState } from '../core/copy-state.ts';
import { bytesOfBlock } from '../core/geometry.ts';
import { decodeCheckpointHeader, decodeLogHeader, foreignFile, hasMagic } from '../core/headers.ts';
import { HEADER_BYTES } from '../core/layout.ts';
import { CodError, isCodError } from '../errors.ts';
import type { File, FileSystem } from '../fs/file-system.ts';
import { readFile } from '../fs/inline-file.ts';
import type { Environment } from '../platform/clock.ts';
import type { Core } from '../wasm/core.ts';
import { parsing } from '../wasm/cores.ts';
import { Checkpointer } from './checkpointer.ts';
import { type Ownership, takeOwnership } from './ownership.ts';
import type { RecoveredState } from './recovered-state.ts';
import { recover } from './recovery.ts';
import { ALL_SLOTS, beginningOf, type FileKind, type SlotIndex, Slots, slotOf } from './slots.ts';

/** Options of `removeCopy`. */
export interface RemoveCopyOptions {
  /** Where the copy is stored. */
  readonly fileSystem: FileSystem;
  /** Name of the copy, as for `openDevice`. */
  readonly target: string;
  /** Prefix of the metadata files' names, as for `openDevice`. Default: `target`. */
  readonly metadata?: string | undefined;
  /**
   * Replaces an owner on another machine when its heartbeat has stood still for 10 s, instead of 30 s. Default: false.
   */
  readonly takeOver?: boolean;
  /** Aborts the removal before it changes anything; has no effect later. */
  readonly signal?: AbortSignal;
  /** Clock and randomness. Default: the machine's. */
  readonly environment?: Environment;
}

/** What the target of a removed copy held. */
export interface RemovedContents {
  /** Bytes of the image. */
  readonly size: number;
  /** Bytes of the image that the target held. */
  readonly copiedBytes: number;
  /**
   * Bytes of those that users wrote, which existed nowhere else: synced blocks count whole. Format 1 does not tell
   * written from copied bytes, so all bytes of such a copy count.
   */
  readonly modifiedBytes: number;
}

/** What `removeCopy` has removed. */
export interface RemovedCopy {
  /** Names of the files: the target if it existed, then the metadata files that existed. */
  readonly files: readonly string[];
  /** Size of the target's file in bytes. Undefined if it did not exist. */
  readonly targetBytes: number | undefined;
  /** Whether the target is a block device, which stays as it is: only the metadata is removed. */
  readonly keepsTarget: boolean;
  /** Undefined if the metadata was damaged: then nothing tells what users wrote. */
  readonly contents: RemovedContents | undefined;
}

/** What the command needs beside the public options. */
interface Removal extends RemoveCopyOptions {
  /** Called when all is known and nothing has changed. If it rejects, nothing is removed. */
  readonly confirm?: (copy: RemovedCopy) => void | Promise<void>;
}

const SESSION_BYTES = 16;

/** As `removeCopy` of `copyondemand`, in `environment`. */
export async function removeCopyIn(environment: Environment, options: Removal): Promise<RemovedCopy> {
  const { fileSystem, target, takeOver, signal, metadata = target } = options;
  if (typeof target !== 'string' || target === '')
    throw new TypeError('`target` must be a file name, a non-empty string');
  signal?.throwIfAborted();
  const lease = await takeOwnership(fileSystem, metadata, { takeOver, signal });
  const slots = new Slots(fileSystem, metadata, { owner: lease });
  const file = new TargetFile(fileSystem, target);
  try {
    await file.open();
    return await parsing((core) => remove({ core, environment, slots, file, lease }, options));
  } catch (error) {
    throw await lease.causeOf(error);
  } finally {
    await Promise.allSettled([file.close(), slots.close()]);
    await lease.release();
  }
}

/** The target, which may be missing. */
class TargetFile {
  readonly name: string;
  readonly #fileSystem: FileSystem;
  #file: File | undefined;

  constructor(fileSystem: FileSystem, name: string) {
    this.#fileSystem = fileSystem;
    this.name = name;
  }

  async open(): Promise<void> {
    try {
      this.#file = await this.#fileSystem.open(this.name);
    } catch (error) {
      if (!isCodError(error, 'COD_NOT_FOUND')) throw error;
    }
  }

  get isDevice(): boolean {
    return this.#file?.deviceContents !== undefined;
  }

  /** Bytes; undefined if the target is missing. */
  async size(): Promise<number | undefined> {
    return this.#file?.size();
  }

  async read(into: Uint8Array, offset: number): Promise<void> {
    if (this.#file === undefined) throw new CodError('COD_NOT_FOUND', `${this.name} is missing`);
    await readFile(this.#file, into, offset);
  }

  /** Removes the target. A power cut may bring the name back, but none of the bytes. */
  async remove(owner: Ownership): Promise<void> {
    if (this.#file === undefined || this.isDevice) return;
    await this.#file.truncate(0);
    await this.#file.sync();
    await this.#file.close();
    await owner.remove(this.#fileSystem, this.name);
  }

  async close(): Promise<void> {
    await this.#file?.close();
  }
}

interface Owned {
  readonly core: Core;
  readonly environment: Environment;
  readonly slots: Slots;
  readonly file: TargetFile;
  readonly lease: Ownership;
}

async function remove(owned: Owned, { signal, confirm }: Removal): Promise<RemovedCopy> {
  const { core, slots, file, lease } = owned;
  const found = await readState(owned);
  try {
    // A state that was recovered accounts for all files.
    if (!isState(found)) await refuseForeign(core, slots);
    const names = await namesOf(slots);
    const targetBytes = await file.size();
    if (found === undefined && (targetBytes !== undefined || names.length === 0))
      throw noCopy(file.name, targetBytes !== undefined);
    const copy: RemovedCopy = {
      files: targetBytes === undefined || file.isDevice ? names : [file.name, ...names],
      targetBytes,
      keepsTarget: file.isDevice,
      contents: isState(found) ? contentsOf(found.state) : undefined,
    };
    await confirm?.(copy);
    signal?.throwIfAborted();
    await lease.fence();
    const last = isState(found) ? await sayEmpty(owned, found) : undefined;
    await lease.fence();
    await file.remove(lease);
    await syncNames(slots);
    await removeMetadata(owned, last);
    return copy;
  } finally {
    if (isState(found)) found.state.dispose();
  }
}

/** What recovery returns, or that the metadata is damaged. */
type Found = RecoveredState | 'damaged' | undefined;

function isState(found: Found): found is RecoveredState {
  return typeof found === 'object';
}

async function readState({ core, environment, slots, file }: Owned): Promise<Found> {
  const size = async (): Promise<number> => {
    const bytes = await file.size();
    // Format 1 does not store the size, so its metadata cannot be read without the target.
    if (!bytes) throw new CodError('COD_CORRUPT', `${file.name} is missing or empty`);
    return bytes;
  };
  try {
    return await recover(core, slots, { size, read: (into, at) => file.read(into, at) }, environment.clock);
  } catch (error) {
    if (isCodError(error, 'COD_CORRUPT')) return 'damaged';
    throw error;
  }
}

/**
 * Refuses files at the names of metadata that may not be ours: no copy can be read, so nothing else tells.
 * @throws {@link CodError} COD_EXISTS for a foreign file, COD_VERSION for a file of a newer version.
 */
async function refuseForeign(core: Core, slots: Slots): Promise<void> {
  for (const { kind, slot } of ALL_SLOTS) {
    const file = await slots.find(kind, slot);
    if (file === undefined || (await isOurs(core, kind, file))) continue;
    const name = slots.name(kind, slot);
    throw new CodError('COD_EXISTS', `${name}: ${foreignFile().message}`, { details: { file: name } });
  }
}

async function isOurs(core: Core, kind: FileKind, file: File): Promise<boolean> {
  const sector = await beginningOf(file);
  try {
    const { state } = kind === 'log' ? decodeLogHeader(core, sector) : decodeCheckpointHeader(core, sector);
    return state !== 'blank' || (await file.size()) <= HEADER_BYTES;
  } catch (error) {
    if (isCodError(error, 'COD_EXISTS')) return false;
    if (!isCodError(error, 'COD_CORRUPT')) throw error;
    return hasMagic(kind, sector);
  }
}

async function namesOf(slots: Slots): Promise<string[]> {
  const names: string[] = [];
  for (const { kind, slot } of ALL_SLOTS) {
    if ((await slots.find(kind, slot)) !== undefined) names.push(slots.name(kind, slot));
  }
  return names;
}

function noCopy(target: string, exists: boolean): CodError {
  const what = exists ? `${target} is not an unfinished copy: it has no metadata` : `there is no copy at ${target}`;
  return new CodError('COD_NOT_FOUND', `${what}; nothing was removed`, { details: { target } });
}

/** What the target holds according to a state. */
export function contentsOf(state: CopyState): RemovedContents {
  const { geometry } = state;
  const bytesOf = (runs: Iterable<readonly [start: number, end: number]>): number => {
    let bytes = 0;
    for (const [start, end] of runs)
      bytes += Math.min(end * geometry.blockSize, geometry.size) - start * geometry.blockSize;
    return bytes;
  };
  let copiedBytes = bytesOf(state.syncedRuns());
  let modifiedBytes = bytesOf(state.modified.runs());
  // Only parts of these blocks were written.
  for (const { block, parts } of state.dirtyBlocks()) {
    const written = parts.reduce((sum, [start, end]) => sum + end - start, 0);
    copiedBytes += written;
    modifiedBytes += written - (state.modified.has(block) ? bytesOfBlock(geometry, block) : 0);
  }
  return { size: geometry.size, copiedBytes, modifiedBytes };
}

/**
 * Replaces the state by one in which nothing is copied, durably. Returns the slot of its checkpoint, which needs no
 * log. On a disk without room for it, changes nothing that counts, and returns undefined.
 */
async function sayEmpty(
  { core, environment, slots, lease }: Owned,
  found: RecoveredState,
): Promise<SlotIndex | undefined> {
  const { format, identity, epoch, session = new Uint8Array(SESSION_BYTES) } = found;
  if (format === 1) environment.randomBytes(session);
  const empty = await CopyState.open(core, found.state.geometry);
  try {
    const checkpointer = new Checkpointer(
      {
        core,
        clock: environment.clock,
        slots,
        owner: lease,
        identity,
      },
      empty,
      { session, epoch },
    );
    // The checkpoint that counts must survive until the next one does.
    if (format === 2) await checkpointer.syncCheckpoint();
    // An owner before may still write to a file that it knows.
    if (lease.unproved) await slots.remove('checkpoint', slotOf(epoch + 1));
    await checkpointer.writeStandalone();
    await lease.fence();
    await emptyAllBut(slots, slotOf(epoch + 1));
    return slotOf(epoch + 1);
  } catch (error) {
    // Removing the target makes room, but metadata may be left then that misses its target.
    if (isCodError(error, 'COD_NO_SPACE')) return undefined;
    throw error;
  } finally {
    empty.dispose();
  }
}

/** Empties all files but a checkpoint: what they say is not true once the target is empty. */
async function emptyAllBut(slots: Slots, kept: SlotIndex): Promise<void> {
  for (const { kind, slot } of [...ALL_SLOTS].reverse()) {
    const file = kind === 'checkpoint' && slot === kept ? undefined : await slots.find(kind, slot);
    await file?.truncate(0);
    await file?.sync();
  }
}

/** Makes the removal of the target durable where it can: on POSIX the first sync of a file syncs its directory. */
async function syncNames(slots: Slots): Promise<void> {
  await slots.close();
  for (const { kind, slot } of ALL_SLOTS) {
    const file = await slots.find(kind, slot);
    if (file !== undefined) return file.sync();
  }
}

/**
 * Removes the metadata. A power cut may bring names back, but no content.
 *
 * The checkpoint of `last` goes last. Without one, files that do not count go first: as long as the others can be read,
 * they tell that the files are ours, and later their magic does.
 */
async function removeMetadata({ slots, lease }: Owned, last: SlotIndex | undefined): Promise<void> {
  const found: { kind: FileKind; slot: SlotIndex; file: File; rank: number }[] = [];
  for (const { kind, slot } of ALL_SLOTS) {
    const file = await slots.find(kind, slot);
    if (file === undefined) continue;
    const rank = kind === 'checkpoint' && slot === last ? 2 : hasMagic(kind, await beginningOf(file)) ? 1 : 0;
    found.push({ kind, slot, file, rank });
  }
  for (const { kind, slot, file } of found.sort((one, other) => one.rank - other.rank)) {
    // The file was opened by its name, which may have been a successor's by then.
    await lease.fence();
    await file.truncate(0);
    await file.sync();
    await slots.remove(kind, slot);
  }
}
