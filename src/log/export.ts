/**
 * Converts metadata of format 2 back to format 1, for a program that reads no other.
 *
 *   own → read → checkpoint in `.bak.1` → remove the rest → format 1 in `.bak` → empty `.bak.1` → remove it
 *
 * Each step is durable before the next begins. Until `.bak.1` is empty, its standalone checkpoint of
 * format 2 counts, and a file of format 1 beside it does not; then `.bak` does. So a crash leaves one format or the
 * other, and the same call continues.
 */

import { FORMAT1_BLOCK_SIZE } from '../core/layout.ts';
import { CodError } from '../errors.ts';
import type { File, FileSystem } from '../fs/file-system.ts';
import { readNamed } from '../fs/inline-file.ts';
import type { Environment } from '../platform/clock.ts';
import type { Core } from '../wasm/core.ts';
import { parsing } from '../wasm/cores.ts';
import { Checkpointer } from './checkpointer.ts';
import { VERSION_AT, writeFormat1 } from './format1-writer.ts';
import { sizeOf } from './inspect.ts';
import { type Ownership, takeOwnership } from './ownership.ts';
import type { RecoveredState } from './recovered-state.ts';
import { recover } from './recovery.ts';
import { ALL_SLOTS, type FileKind, type SlotIndex, Slots, slotOf } from './slots.ts';

/** Options of `exportFormat1`. */
export interface ExportFormat1Options {
  /** Where the log's files are stored. */
  readonly fileSystem: FileSystem;
  /** Prefix of the log's files, which is the name of the copy if a device made them. */
  readonly name: string;
  /** Name of the storage, for its size and its bytes. Default: `name`. */
  readonly target?: string;
  /** Aborts the call before it changes anything; has no effect later. */
  readonly signal?: AbortSignal;
  /** Clock and randomness. Default: the machine's. */
  readonly environment?: Environment;
}

/** What `exportFormat1` has found, and what format 1 does not hold of it. */
export interface ExportedLog {
  /** False: the files were of format 1 already. */
  readonly isConverted: boolean;
  /** Bytes of the storage, which format 1 does not hold. */
  readonly size: number;
  /** `ceil(size / 4096)`. */
  readonly totalBlocks: number;
  /** Blocks that the storage holds completely. */
  readonly syncedBlocks: number;
  /** The name of the source's content, which format 1 does not hold. Undefined if the log has none. */
  readonly identity: string | undefined;
  /** The number of modified blocks. Format 1 does not say which blocks they are. */
  readonly modifiedBlocks: number;
}

/** As `exportFormat1` of `copyondemand/log`, in `environment`. */
export async function exportFormat1In(environment: Environment, options: ExportFormat1Options): Promise<ExportedLog> {
  const { fileSystem, name, signal } = options;
  if (typeof name !== 'string' || name === '') throw new TypeError('`name` must be a non-empty string');
  signal?.throwIfAborted();
  const lease = await takeOwnership(fileSystem, name, { signal });
  const slots = new Slots(fileSystem, name, { owner: lease });
  try {
    return await parsing((core) => exportLog({ core, environment, slots, lease }, options));
  } finally {
    await slots.close().catch(() => undefined);
    await lease.release();
  }
}

interface Owned {
  readonly core: Core;
  readonly environment: Environment;
  readonly slots: Slots;
  readonly lease: Ownership;
}

async function exportLog(owned: Owned, options: ExportFormat1Options): Promise<ExportedLog> {
  const { fileSystem, name, target = name, signal } = options;
  const { core, environment, slots, lease } = owned;
  const found = await recover(
    core,
    slots,
    {
      size: () => sizeOf(fileSystem, target),
      read: (into, offset) => readNamed(fileSystem, target, into, offset),
    },
    environment.clock,
  );
  if (found === undefined)
    throw new CodError('COD_NOT_FOUND', `${name} has no metadata: it is not a copy, or its copy is finished`);
  const { state, format, identity } = found;
  try {
    const isConverted = format === 2;
    if (isConverted) refuseUnfit(name, found);
    signal?.throwIfAborted();
    await lease.fence();
    if (isConverted) await convert(owned, found);
    else await removeVoid(slots, found);
    await syncNames(slots);
    await lease.fence();
    return {
      isConverted,
      size: state.geometry.size,
      totalBlocks: state.geometry.blockCount,
      syncedBlocks: state.blocks.count,
      identity,
      modifiedBlocks: state.modified.count,
    };
  } finally {
    state.dispose();
  }
}

/** @throws {@link CodError} COD_UNSUPPORTED for a state that format 1 cannot hold, or whose log is still needed. */
function refuseUnfit(name: string, { state, files, bothLogs }: RecoveredState): void {
  const { blockSize } = state.geometry;
  if (blockSize !== FORMAT1_BLOCK_SIZE) {
    throw new CodError(
      'COD_UNSUPPORTED',
      `${name} has blocks of ${blockSize} bytes, but format 1 has only blocks of ${FORMAT1_BLOCK_SIZE}: ` +
        'complete the copy, which then needs no metadata',
      { details: { blockSize } },
    );
  }
  const log = files.find(({ kind, records, tornBytes }) => kind === 'log' && records + tornBytes > 0);
  if (log === undefined && !bothLogs) return;
  const what = log === undefined ? 'a checkpoint of it was interrupted' : `${log.name} has ${log.records} records`;
  throw new CodError(
    'COD_UNSUPPORTED',
    `${name} was not closed cleanly, ${what}: open and close it once (\`copyondemand serve\`), then export it`,
    {
      details: { records: log?.records ?? 0 },
    },
  );
}

async function convert({ core, environment, slots, lease }: Owned, found: RecoveredState): Promise<void> {
  const { state, identity, session } = found;
  const checkpointer = new Checkpointer(
    {
      core,
      clock: environment.clock,
      slots,
      owner: lease,
      identity,
    },
    state,
    { session: session!, epoch: found.epoch },
  );
  // The checkpoint that counts must survive until the next one does.
  await checkpointer.syncCheckpoint();
  for (let epoch = found.epoch + 1; ; epoch++) {
    // An owner before may still write to a file that it knows.
    if (lease.unproved) await slots.remove('checkpoint', slotOf(epoch));
    await checkpointer.writeStandalone();
    if (slotOf(epoch) === 1) break;
  }
  const sync = (file: File): Promise<void> => file.sync();
  // Names are removed, which may be those of another owner's files.
  await lease.fence();
  await slots.removeAllBut('checkpoint', 1, sync);
  const exported = await slots.make('checkpoint', 0, sync);
  // Before anything else is in the file: a claim of format 2 with a body would be damage.
  await exported.write(new Uint8Array([1]), VERSION_AT);
  await exported.truncate(VERSION_AT + 8);
  await exported.sync();
  await writeFormat1(exported, state);
  await exported.sync();
  await lease.fence();
  await removeFile(slots, 'checkpoint', 1);
}

/** Empties a file, durably, and removes it: a name that comes back says nothing. */
async function removeFile(slots: Slots, kind: FileKind, slot: SlotIndex): Promise<void> {
  const file = await slots.find(kind, slot);
  if (file === undefined) return;
  await file.truncate(0);
  await file.sync();
  await slots.remove(kind, slot);
}

/** Removes what an interrupted call left beside the files of format 1: files that say nothing. */
async function removeVoid(slots: Slots, { files }: RecoveredState): Promise<void> {
  for (const { kind, slot } of ALL_SLOTS) {
    if (!files.some(({ name }) => name === slots.name(kind, slot))) await removeFile(slots, kind, slot);
  }
}

/** Makes removals durable: on POSIX the first sync of a file syncs its directory. */
async function syncNames(slots: Slots): Promise<void> {
  await slots.close();
  for (const { kind, slot } of ALL_SLOTS) await (await slots.find(kind, slot))?.sync();
}
