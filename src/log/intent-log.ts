/**
 * The write-intent log of a storage engine: it knows, also after a crash, which blocks of the engine's storage hold
 * their data.
 *
 *   recover → prepare → (the engine makes or opens its storage) → begin → intend, write, commit … → close
 *
 * Invariants:
 * - Recovering changes nothing on disk. `prepare` makes what was found, or a new log, durable. So a storage that exists
 *   always has a log, and a storage without one belongs to others.
 * - A log has one owner from `recover` until `close`.
 * - A log that is only read has no owner. Its checkpointer never begins, so that it has nothing to flush and no file to
 *   write: `flush`, `checkpoint` and `close` change nothing on disk.
 */

import { type Done, promised, type Settled } from '../async/done.ts';
import { inTurns } from '../async/turns.ts';
import { CopyState } from '../core/copy-state.ts';
import { geometry } from '../core/geometry.ts';
import type { BlockView, DirtyView, ModifiedRuns } from '../core/views.ts';
import { CodError } from '../errors.ts';
import type { LeaseOwner } from '../fs/file-system.ts';
import type { Environment } from '../platform/clock.ts';
import type { Core } from '../wasm/core.ts';
import { Announcements, EXTENT_NUMBERS, type ReadStorage } from './announcements.ts';
import { Checkpointer, type LogObserver } from './checkpointer.ts';
import { GroupCommit } from './group-commit.ts';
import { assertNotOwned, Ownership, takeOwnership } from './ownership.ts';
import type { RecoveredState } from './recovered-state.ts';
import { recoverForUse } from './recovery.ts';
import { Slots } from './slots.ts';
import { OpenTransaction } from './transaction.ts';
import type {
  IntentLog,
  OpenIntentLogOptions,
  RecoveredIntentLog,
  RecoverIntentLogOptions,
  Transaction,
} from './types.ts';
import { readUndisturbed } from './undisturbed.ts';
import { writeAgain } from './write-again.ts';

const DEFAULT_BLOCK_BYTES = 4096;
const DEFAULT_CHECKPOINT_INTERVAL_MS = 10_000;
const SESSION_BYTES = 16;

/** {@link LogStorage} whose calls may complete synchronously. */
interface Storage {
  read(into: Uint8Array, offset: number): Done;
  write?(from: Uint8Array, offset: number): Done;
  sync(): Promise<void>;
}

/** The state of a log, as its users see it. */
abstract class StateOfLog {
  readonly state: CopyState;

  constructor(state: CopyState) {
    this.state = state;
  }

  get size(): number {
    return this.state.geometry.size;
  }

  get blockSize(): number {
    return this.state.geometry.blockSize;
  }

  get blocks(): BlockView {
    return this.state.blocks;
  }

  get dirty(): DirtyView {
    return this.state.dirty;
  }

  get modified(): ModifiedRuns {
    return this.state.modified;
  }
}

/** A log in use, with what our own device needs beside {@link IntentLog}. */
export class OpenLog extends StateOfLog implements IntentLog {
  /** Whether the storage must not be changed. */
  readonly readOnly: boolean;
  readonly #checkpointer: Checkpointer;
  readonly #commits: GroupCommit;
  readonly #announcements: Announcements;
  readonly #lease: Ownership;
  #closing: Promise<void> | undefined;

  constructor(parts: {
    state: CopyState;
    core: Core;
    checkpointer: Checkpointer;
    lease: Ownership;
    readOnly: boolean;
    read: ReadStorage;
  }) {
    super(parts.state);
    this.readOnly = parts.readOnly;
    this.#checkpointer = parts.checkpointer;
    this.#lease = parts.lease;
    this.#commits = new GroupCommit(parts.state, parts.checkpointer);
    this.#announcements = new Announcements({
      core: parts.core,
      state: parts.state,
      firmness: parts.checkpointer.firmness,
      read: parts.read,
      log: this.#commits,
    });
  }

  get identity(): string | undefined {
    return this.#checkpointer.identity;
  }

  /** Stores another identity from the next {@link checkpoint} on. */
  rename(identity: string | undefined): Promise<void> {
    return this.#checkpointer.rename(identity);
  }

  /** Why the log refuses everything, if it is poisoned. */
  get poisoning(): CodError | undefined {
    return this.#checkpointer.poisoning;
  }

  /** @throws {@link CodError} COD_POISONED if another owner has taken over. */
  fence(): Promise<void> {
    return this.#checkpointer.fence();
  }

  /** Rejects if another owner has taken over 10 s ago or earlier. Undefined: none has. */
  fenceIfOld(): Done {
    return this.#checkpointer.fenceIfOld();
  }

  /** Bytes written to logs and checkpoints since the log was opened. */
  get metadataBytes(): number {
    return this.#checkpointer.metadataBytes;
  }

  begin(): OpenTransaction {
    return new OpenTransaction(this.#announcements, this.state.geometry);
  }

  /** Announces what a failed write has left in these bytes. Now or later. */
  announceContent(offset: number, length: number): Done {
    return this.#announcements.content(offset, length);
  }

  /** Announces that a user may change these bytes, or has done so. Now or later. */
  announceModified(offset: number, length: number): Done {
    return this.#announcements.modify(offset, length);
  }

  /** Announces a change of the storage that is not committed, such as a fill. Now or later. */
  announceChange(offset: number, bytes: Uint8Array): Done {
    return this.#announcements.change(offset, bytes);
  }

  async commit(transaction: Transaction): Promise<void> {
    if (!(transaction instanceof OpenTransaction) || !transaction.isOf(this.state.geometry))
      throw new TypeError('the transaction belongs to another log: use `begin` of this log');
    if (this.#closing === undefined && this.poisoning === undefined) this.#checkRoom(transaction);
    await promised((settled) => this.submit(transaction, settled));
  }

  /**
   * Refuses records for which the map of dirty parts may have no room. Once they were in the log, the log would be
   * poisoned.
   */
  #checkRoom({ extents }: OpenTransaction): void {
    for (let index = 0; index < extents.length; index += EXTENT_NUMBERS) {
      const [offset, length] = [extents[index + 1]!, extents[index + 2]!];
      if (this.state.hasRoomFor(offset, length, extents.length / EXTENT_NUMBERS)) continue;
      const message = `${length} bytes at ${offset}: too many blocks are written in part; write whole blocks`;
      throw new CodError('COD_NO_SPACE', message, { details: { offset, length } });
    }
  }

  /** As {@link commit}. `settled` is called synchronously, by {@link commitPending}, or later. */
  submit(transaction: OpenTransaction, settled: Settled): void {
    if (transaction.isCommitted) throw new TypeError('the transaction is already committed: begin a new one');
    transaction.isCommitted = true;
    if (this.#closing === undefined) this.#commits.record(transaction, settled);
    else settled(closedError());
  }

  /** Appends what was submitted in this turn of the event loop, synchronously if possible. */
  commitPending(): void {
    this.#commits.commit();
  }

  flush(): Promise<void> {
    return this.#closing === undefined ? this.#checkpointer.flush() : Promise.reject(closedError());
  }

  checkpoint(): Promise<void> {
    return this.#closing === undefined ? this.#checkpointer.checkpoint() : Promise.reject(closedError());
  }

  /** @param restIsZero whether the rest of the storage is zero: see `CheckpointHeader` */
  close(restIsZero = false): Promise<void> {
    this.#closing ??= this.#end(() => this.#checkpointer.close(restIsZero));
    return this.#closing;
  }

  async remove(): Promise<void> {
    if (this.#closing !== undefined) throw closedError();
    if (!this.state.isComplete) {
      const { blocks, geometry } = this.state;
      const missing = geometry.blockCount - blocks.count;
      throw new CodError(
        'COD_INCOMPLETE',
        `the storage is not complete: ${missing} of ${geometry.blockCount} blocks are missing`,
        {
          details: { syncedBlocks: blocks.count, totalBlocks: geometry.blockCount },
        },
      );
    }
    this.#closing = this.#end(() => this.#checkpointer.remove());
    await this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #end(closeFiles: () => Promise<void>): Promise<void> {
    // A commit that is in flight needs the files and the state.
    await this.#commits.end();
    try {
      await closeFiles();
    } finally {
      await inTurns(this.state.disposing(), this.#checkpointer.clock);
      await this.#lease.release();
    }
  }
}

function closedError(): CodError {
  return new CodError('COD_CLOSED', 'the log is closed');
}

/** What {@link recoverLog} returns to our own device: its log has all of {@link OpenLog}. */
export class RecoveredLog extends StateOfLog implements RecoveredIntentLog {
  readonly identity: string | undefined;
  readonly #core: Core;
  readonly #found: RecoveredState | undefined;
  readonly #checkpointer: Checkpointer;
  readonly #slots: Slots;
  readonly #lease: Ownership;
  /** Whether the log that follows is only read. */
  readonly readOnly: boolean;
  /** The log that was begun: from then on the files and the lease are its own. */
  #begun: OpenLog | undefined;
  #closing: Promise<void> | undefined;

  constructor(parts: {
    core: Core;
    found: RecoveredState | undefined;
    state: CopyState;
    identity: string | undefined;
    checkpointer: Checkpointer;
    slots: Slots;
    lease: Ownership;
    readOnly: boolean;
  }) {
    super(parts.state);
    this.#core = parts.core;
    this.#found = parts.found;
    this.identity = parts.identity;
    this.#checkpointer = parts.checkpointer;
    this.#slots = parts.slots;
    this.#lease = parts.lease;
    this.readOnly = parts.readOnly;
  }

  get isNew(): boolean {
    return this.#found === undefined;
  }

  /** Whether the rest of the storage is zero: see `CheckpointHeader`. */
  get restIsZero(): boolean {
    return this.#found?.restIsZero ?? false;
  }

  /** The log that begins stores this identity instead of {@link identity}. */
  rename(identity: string | undefined): Promise<void> {
    return this.#checkpointer.rename(identity);
  }

  async prepare(): Promise<void> {
    if (this.#found === undefined)
      await (this.#lease.unproved ? this.#checkpointer.startAnew() : this.#checkpointer.writeStandalone());
    else if (this.#found.format === 2) await this.#checkpointer.syncCheckpoint();
  }

  async begin(storage: Storage): Promise<OpenLog> {
    try {
      return await this.#begin(storage);
    } catch (error) {
      throw await this.#lease.causeOf(error);
    }
  }

  async #begin(storage: Storage): Promise<OpenLog> {
    if (!this.readOnly) {
      this.#checkpointer.attach(() => storage.sync());
      const proved = this.#found?.proved ?? [];
      if (storage.write) await this.#lease.withRoom(() => writeAgain(this.#checkpointer, storage, proved));
      // Both log slots are in use, or the files are of format 1: a checkpoint that needs no log frees them.
      if (this.#lease.unproved) await this.#checkpointer.startAnew();
      else if (this.#found?.format === 1 || this.#found?.bothLogs) await this.#checkpointer.writeStandalone();
      await this.#checkpointer.begin();
      // Only now is each name durably that of a new file.
      await this.#lease.renewed();
    }
    this.#begun = new OpenLog({
      core: this.#core,
      state: this.state,
      read: (into, offset) => storage.read(into, offset),
      checkpointer: this.#checkpointer,
      lease: this.#lease,
      readOnly: this.readOnly,
    });
    return this.#begun;
  }

  close(): Promise<void> {
    this.#closing ??= this.#begun?.close() ?? this.#giveUp();
    return this.#closing;
  }

  async #giveUp(): Promise<void> {
    this.#checkpointer.stop();
    this.state.dispose();
    await closeFiles(this.#slots, this.#lease);
  }
}

async function closeFiles(slots: Slots, lease: Ownership): Promise<void> {
  try {
    await slots.close();
  } finally {
    await lease.release();
  }
}

/** Options of {@link recoverLogOf}. */
export interface RecoverLogOptions extends Omit<RecoverIntentLogOptions, 'size' | 'identity'> {
  /** Takes no lock: the log that follows cannot be changed. Default: false. */
  readonly readOnly?: boolean;
  /** Describes what a new log is about. Called only for a new log. */
  content(): Promise<{ readonly size: number; readonly identity?: string | undefined }>;
  /** Returns the size of the storage in bytes. Called only for format 1, which does not store it. */
  size(): Promise<number>;
  /** Whom the lease is for. */
  readonly owner?: LeaseOwner;
}

/**
 * Recovers the log `name`, or gets ready to make it. Changes nothing on disk. The log that begins has the options'
 * identity.
 *
 * @throws {@link CodError} COD_LOCKED if the log has an owner; COD_CORRUPT, COD_VERSION; the errors of the file system.
 * `TypeError`, `RangeError` for wrong options.
 */
export async function recoverLog(environment: Environment, options: RecoverIntentLogOptions): Promise<RecoveredLog> {
  const { size, identity, ...others } = options;
  if (size === 0) throw new RangeError('a storage of 0 bytes needs no log');
  geometry({ size, blockSize: options.blockSize ?? DEFAULT_BLOCK_BYTES });
  const recovered = await recoverLogOf(environment, {
    ...others,
    content: async () => ({ size, identity }),
    size: async () => size,
  });
  try {
    await recovered.rename(identity);
    return recovered;
  } catch (error) {
    await recovered.close();
    throw error;
  }
}

/** As {@link recoverLog}, and says what a log is about that exists. Its identity stays. */
export async function recoverLogOf(
  environment: Environment,
  options: RecoverLogOptions,
  observer: LogObserver = {},
): Promise<RecoveredLog> {
  const { fileSystem, name, blockSize = DEFAULT_BLOCK_BYTES } = options;
  const { checkpointIntervalMs = DEFAULT_CHECKPOINT_INTERVAL_MS, storage, takeOver, signal, owner } = options;
  const { readOnly = false } = options;
  if (typeof name !== 'string' || name === '') throw new TypeError('`name` must be a non-empty string');
  if (!(checkpointIntervalMs > 0))
    throw new RangeError(`checkpointIntervalMs must be above 0, not ${checkpointIntervalMs}`);
  // Refuses a wrong block size before anything is asked for.
  geometry({ size: 1, blockSize });
  const lease = readOnly ? new Ownership(name) : await takeOwnership(fileSystem, name, { takeOver, signal, owner });
  const slots = new Slots(fileSystem, name, { readOnly, owner: lease });
  let state: CopyState | undefined;
  try {
    if (readOnly) await assertNotOwned(fileSystem, name);
    const fromTarget = {
      size: () => options.size(),
      read: async (into: Uint8Array, offset: number) => storage?.read(into, offset) ?? noStorage(name),
      isLive: lease.unproved,
    };
    const read = async (): Promise<Awaited<ReturnType<typeof recoverForUse>>> => {
      for (;;) {
        await slots.close();
        state?.dispose();
        state = undefined;
        const [outcome] = await Promise.allSettled([recoverForUse(slots, fromTarget, environment.clock)]);
        if (outcome.status === 'fulfilled') state = outcome.value.found?.state;
        // An owner that was replaced may have held a name aside for a moment.
        await lease.restore();
        if (await slots.findMore()) continue;
        if (outcome.status === 'rejected') throw outcome.reason;
        return outcome.value;
      }
    };
    // An owner before that wakes up may have begun many steps since its last check.
    const { core, found } = await (lease.unproved ? readUndisturbed(fileSystem, name, read) : read());
    // The open files are those of a successor, unless this is still the owner.
    await lease.fence();
    const { size, identity } = state === undefined ? await options.content() : { size: 0, identity: found?.identity };
    state ??= await CopyState.open(core, geometry({ size, blockSize }));
    // An owner that came meanwhile has changed what was read.
    if (readOnly) await assertNotOwned(fileSystem, name);
    let session = found?.session;
    if (session === undefined) environment.randomBytes((session = new Uint8Array(SESSION_BYTES)));
    const checkpointer = new Checkpointer(
      { core, clock: environment.clock, slots, owner: lease, identity, checkpointIntervalMs, observer },
      state,
      { session, epoch: found?.epoch ?? -1 },
    );
    lease.onLost = () => void checkpointer.fence().catch(() => undefined);
    return new RecoveredLog({
      core,
      found,
      state,
      identity,
      checkpointer,
      slots,
      lease,
      readOnly,
    });
  } catch (error) {
    state?.dispose();
    const cause = await lease.causeOf(error);
    await closeFiles(slots, lease);
    throw cause;
  }
}

function noStorage(name: string): never {
  throw new CodError('COD_NOT_FOUND', `log ${name} was opened without its storage`);
}

/** Opens a log over a storage that exists: {@link recoverLog}, checks, `prepare` and `begin`. */
export async function openLog(environment: Environment, options: OpenIntentLogOptions): Promise<OpenLog> {
  const recovered = await recoverLog(environment, options);
  try {
    checkSame(recovered, options);
    await recovered.prepare();
    return await recovered.begin(options.storage);
  } catch (error) {
    await recovered.close().catch(() => undefined);
    throw error;
  }
}

/** @throws {@link CodError} COD_SIZE_MISMATCH, COD_SOURCE_CHANGED if the log is about something else. */
function checkSame(recovered: RecoveredLog, { name, size, identity }: OpenIntentLogOptions): void {
  if (recovered.size !== size) {
    const message = `log ${name} is for ${recovered.size} bytes, but the storage has ${size}: use another name`;
    throw new CodError('COD_SIZE_MISMATCH', message, {
      details: { size: recovered.size, storageSize: size },
    });
  }
  if (recovered.identity === undefined || recovered.identity === identity) return;
  throw new CodError(
    'COD_SOURCE_CHANGED',
    `log ${name} is for ${recovered.identity}, not for ${identity ?? 'content without identity'}: use another name`,
    { details: { identity: recovered.identity, wanted: identity } },
  );
}
