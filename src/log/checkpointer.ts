/**
 * Makes a copy's state durable: flushes, checkpoints, and the switch from one log to the next.
 *
 * Invariants (docs/DESIGN.md, "Rules", gives the reasons):
 * - Checkpoints exclude each other, and so do flushes. Appends and the switch to the next log exclude each other.
 * - A checkpoint holds at least the state of the moment in which its log begins.
 * - A step that fails has changed nothing, or the copy is poisoned.
 * - A failed sync is not repeated: the copy is poisoned, and what is on disk stays as it is.
 * - Fence: what is acknowledged as durable, and each removal, follows a check of the ownership after the last sync.
 */

import type { Done } from '../async/done.ts';
import { Mutex } from '../async/mutex.ts';
import type { CopyState } from '../core/copy-state.ts';
import { MAX_IDENTITY_BYTES } from '../core/layout.ts';
import { CodError } from '../errors.ts';
import type { File } from '../fs/file-system.ts';
import type { Clock } from '../platform/clock.ts';
import type { Core } from '../wasm/core.ts';
import { CheckpointWriter } from './checkpoint-writer.ts';
import { Firmness } from './firmness.ts';
import { LogFile } from './log-file.ts';
import { growthBeforeCheckpoint, logCapacity } from './log-size.ts';
import type { Ownership } from './ownership.ts';
import { Poison } from './poison.ts';
import { ALL_SLOTS, type FileKind, type SlotIndex, type Slots, slotOf } from './slots.ts';
import { Timer } from './timer.ts';
import { WriteIntentLog } from './write-intent-log.ts';

/** A checkpoint up to this size is taken at each interval. A larger one is taken when the log has grown to its size. */
const SMALL_CHECKPOINT_BYTES = 65_536;

/** Recovery reads every cell that unfirm records name. From 64 MiB on they are made firm in the background. */
const CLAIMS_TO_FLUSH = 16_384;

const DONE = Promise.resolve();

/** What a user of the log wants to know as it happens. The functions must not throw. */
export interface LogObserver {
  /** A checkpoint of this many bytes is durable. */
  checkpoint?(bytes: number): void;
  /** A flush or a checkpoint has ended, after this time. */
  durable?(kind: 'flush' | 'checkpoint', durationMs: number, error: unknown): void;
  poisoned?(error: CodError): void;
}

export interface CheckpointerOptions {
  readonly core: Core;
  readonly clock: Clock;
  readonly slots: Slots;
  readonly owner: Ownership;
  /** See {@link Checkpointer.identity}. */
  readonly identity: string | undefined;
  /** Default: Infinity, never by itself. */
  readonly checkpointIntervalMs?: number;
  readonly observer?: LogObserver;
}

export class Checkpointer {
  /** What the log says about the target that is not firm yet. */
  readonly firmness: Firmness;
  readonly clock: Clock;
  readonly #options: CheckpointerOptions;
  readonly #state: CopyState;
  readonly #session: Uint8Array;
  readonly #writer: CheckpointWriter;
  readonly #poison: Poison;
  readonly #appends = new Mutex();
  readonly #checkpoints = new Mutex();
  readonly #flushes = new Mutex();
  #epoch: number;
  #log: WriteIntentLog | undefined;
  /** The files of the slots whose logs were void once in this life. */
  readonly #logFiles: [LogFile?, LogFile?] = [];
  /** The log before, which counts until the checkpoint of the current log is durable. */
  #before: WriteIntentLog | undefined;
  /** Syncs the target. Unknown while a new copy is being made. */
  #syncTarget: (() => Promise<void>) | undefined;
  /** Batches appended, how many of them a flush made durable, and how many are in the last checkpoint. */
  #appended = 0;
  #flushed = 0;
  #checkpointed = 0;
  /** Writes that needed no record, and how many of them a sync of the target made durable. */
  #rewritten = 0;
  #rewrittenFlushed = 0;
  #growing = false;
  /** The checkpoint of the current log is not known to be durable: the checkpoint and the log before it still count. */
  #baseMissing = false;
  /** What is firm once that checkpoint is durable. */
  #generation = 0;
  /** The epoch of the last durable checkpoint that was written here, and its bytes. */
  #durableEpoch: number | undefined;
  #checkpointBytes = 0;
  #queuedFlush: Promise<void> | undefined;
  #queuedCheckpoint: Promise<void> | undefined;
  readonly #timer: Timer;
  #closed = false;
  #metadataBytes = 0;
  #identity: string | undefined;

  /** @throws `RangeError` if the identity is longer than {@link MAX_IDENTITY_BYTES} */
  constructor(options: CheckpointerOptions, state: CopyState, names: { session: Uint8Array; epoch: number }) {
    this.#options = options;
    const { clock, checkpointIntervalMs = Number.POSITIVE_INFINITY } = options;
    this.clock = clock;
    this.#timer = new Timer(clock, checkpointIntervalMs * partOf(names.session), () => this.#makeDurable());
    this.#state = state;
    this.firmness = new Firmness(state.geometry.blockSize);
    this.#session = names.session;
    this.#epoch = names.epoch;
    this.#poison = new Poison(options.core, (error) => {
      this.#timer.stop();
      options.observer?.poisoned?.(error);
    });
    this.#writer = new CheckpointWriter(
      {
        core: options.core,
        clock,
        session: names.session,
        guardMaps: (step) => this.#poison.ifFailing(step),
        guardSync: (sync) => this.#poison.sync(sync),
      },
      state,
    );
    this.#rename(options.identity);
  }

  /** The name of the source's content that checkpoints store. */
  get identity(): string | undefined {
    return this.#identity;
  }

  #rename(identity: string | undefined): void {
    const bytes = identity === undefined ? undefined : new TextEncoder().encode(identity);
    if (bytes !== undefined && bytes.length > MAX_IDENTITY_BYTES) {
      throw new RangeError(
        `the source's identity has ${bytes.length} bytes, at most ${MAX_IDENTITY_BYTES} are allowed`,
      );
    }
    this.#identity = identity;
    this.#writer.rename(bytes);
  }

  /**
   * Stores another identity from the next checkpoint on, which the next call of {@link checkpoint} takes.
   * @throws `RangeError` as the constructor.
   */
  async rename(identity: string | undefined): Promise<void> {
    // A checkpoint that is being written has one identity throughout.
    await this.#checkpoints.run(() => this.#rename(identity));
    this.#checkpointed = -1;
  }

  /** Bytes written to logs and checkpoints so far. */
  get metadataBytes(): number {
    return this.#metadataBytes + (this.#log?.usedBytes ?? 0);
  }

  /** The error with which everything is refused, if the copy is poisoned or the log is closed. */
  get refusal(): CodError | undefined {
    return this.#poison.error ?? (this.#closed ? new CodError('COD_CLOSED', 'the log is closed') : undefined);
  }

  /** The reason why the copy is poisoned, if it is. */
  get poisoning(): CodError | undefined {
    return this.#poison.error;
  }

  // Opening

  /**
   * Takes a checkpoint that needs no log, in the slot that does not count.
   * @param restIsZero see `CheckpointHeader`
   */
  async writeStandalone(restIsZero = false): Promise<void> {
    await this.#settleFound();
    await this.#options.owner.withRoom(() => this.#writeCheckpoint(this.#epoch + 1, undefined, restIsZero));
    this.#epoch++;
  }

  /**
   * As {@link writeStandalone}, and leaves no file that an owner before may write to. A crash leaves the checkpoint
   * that counted, or the new one, which needs no other file.
   */
  async startAnew(): Promise<void> {
    const kept = slotOf(this.#epoch + 1);
    const { slots } = this.#options;
    await this.#settleFound();
    await slots.remove('checkpoint', kept);
    await this.writeStandalone();
    for (const { kind, slot } of ALL_SLOTS) if (kind === 'log' || slot !== kept) await slots.remove(kind, slot);
  }

  /**
   * Before a session begins: a process that was killed during a removal may have emptied a file without a sync, so a
   * power cut would bring its content back, beside that of the session.
   */
  async #settleFound(): Promise<void> {
    if (this.#epoch < 0) await this.#options.slots.syncFound((file) => this.#sync(file));
  }

  /** Makes the checkpoint that counts durable: a killed process may have left it in the page cache only. */
  async syncCheckpoint(): Promise<void> {
    const checkpoint = await this.#options.slots.find('checkpoint', slotOf(this.#epoch));
    await this.#sync(checkpoint!);
  }

  /** From now on `syncTarget` is part of every flush and checkpoint. */
  attach(syncTarget: () => Promise<void>): void {
    this.#syncTarget = syncTarget;
  }

  /** Begins a log in the slot that does not count, and takes the checkpoint that it follows. */
  async begin(): Promise<void> {
    await this.#options.owner.withRoom(async () => {
      if (!this.#log) this.#switchTo(await this.#createLog(this.#epoch + 1));
      if (this.#baseMissing) await this.#writeBase();
      // The log there is void now. Its room is taken early, so that the next checkpoint needs none.
      await this.#logFile(slotOf(this.#epoch + 1));
    });
    await this.fence();
  }

  /** Ends the timer and frees memory, once nothing is appended any more. */
  stop(): void {
    this.#closed = true;
    this.#timer.stop();
    this.#log?.dispose();
  }

  // What group commit needs

  /**
   * Runs a task that appends to the current log; nothing else appends meanwhile. Synchronous if the task is and no
   * append is in flight.
   */
  append<T>(task: (log: WriteIntentLog) => T | Promise<T>): T | Promise<T> {
    return this.#exclusively(() => this.#poison.ifCoreFails(() => task(this.#current)));
  }

  /** A batch is in the log and in the state. */
  appended(): void {
    this.#appended++;
    this.#timer.start();
    const { usedBytes, limit } = this.#current;
    const growth = growthBeforeCheckpoint(this.#state.geometry.blockCount, this.#checkpointBytes, limit);
    if (!this.#baseMissing && usedBytes >= growth) this.#checkpointInBackground();
    else if (this.firmness.newClaims >= CLAIMS_TO_FLUSH) this.flush().catch(() => undefined);
  }

  /** Synced blocks were written again, which needs no record. */
  rewrote(): void {
    this.#rewritten++;
    this.#timer.start();
  }

  /** Refuses everything from now on. Returns the error for the caller to throw. */
  poison(cause: unknown): CodError {
    return this.#poison.poison(cause);
  }

  // Durability

  /**
   * Checks that this is still the owner.
   * @throws {@link CodError} COD_POISONED if another one has taken over; COD_TARGET_IO if that cannot be known.
   */
  async fence(): Promise<void> {
    const loss = await this.#options.owner.loss();
    if (loss !== undefined) throw this.poison(loss);
  }

  /** As {@link fence}, unless that was done within the last 10 s. Undefined: it was. */
  fenceIfOld(): Done {
    return this.#options.owner.isRecent ? undefined : this.fence();
  }

  /**
   * Makes durable everything that settled before the call. Two syncs; one if nothing was logged since the last flush,
   * none if nothing was written.
   * @throws {@link CodError} COD_POISONED if a sync fails; COD_NO_SPACE, COD_TARGET_IO.
   */
  flush(): Promise<void> {
    // A queued flush that has not begun serves every call before it begins.
    this.#queuedFlush ??= DONE.then(() =>
      this.#flushes.run(() => {
        this.#queuedFlush = undefined;
        return this.#durably('flush', () => this.#flush());
      }),
    );
    return this.#queuedFlush;
  }

  /** Does not wait for a checkpoint: it would have to be written as a whole first. */
  async #flush(): Promise<void> {
    for (;;) {
      this.#poison.refuse();
      const appended = this.#appended;
      const rewritten = this.#rewritten;
      if (this.#flushed >= appended && this.#rewrittenFlushed >= rewritten) return;
      const log = this.#current;
      const before = this.#before;
      const through = log.sequence;
      const generation = this.firmness.age();
      // A barrier proves that the frames of its own sector were durable, and it makes the log before firm as a whole.
      await this.#poison.sync(async () => {
        await Promise.all([this.#syncTarget!(), before?.sync(), log.needsSyncBeforeBarrier ? log.sync() : undefined]);
      });
      this.#rewrittenFlushed = Math.max(this.#rewrittenFlushed, rewritten);
      if (this.#flushed >= appended) return;
      const isCurrent = await this.#exclusively(async () => {
        // A checkpoint switched logs: the log before has records that the sync did not cover.
        if (this.#log !== log) return false;
        log.addBarrier(through);
        await log.append();
        return true;
      });
      if (!isCurrent) continue;
      await this.#poison.sync(() => log.sync());
      this.firmness.firm(generation);
      this.#flushed = Math.max(this.#flushed, appended);
      return;
    }
  }

  /**
   * Makes the state durable and voids the log.
   * @throws {@link CodError} as {@link flush}.
   */
  checkpoint(): Promise<void> {
    this.#queuedCheckpoint ??= DONE.then(() =>
      this.#checkpoints.run(() => {
        this.#queuedCheckpoint = undefined;
        return this.#durably('checkpoint', () => this.#checkpoint());
      }),
    );
    return this.#queuedCheckpoint;
  }

  async #checkpoint(): Promise<void> {
    this.#poison.refuse();
    this.#timer.stop();
    if (this.#baseMissing) await this.#writeBase();
    // The state has not changed, but the target may have.
    if (this.#checkpointed === this.#appended) return this.#flush();
    const old = this.#current;
    await this.#exclusively(() => old.scrub());
    const next = await this.#createLog(this.#epoch + 1);
    try {
      // Must come before CONTINUED in the old log: otherwise a failed sync later could drop all of the next log.
      await this.#poison.sync(() => next.sync());
      await this.#exclusively(async () => {
        old.addContinued();
        await old.append();
        this.#metadataBytes += old.usedBytes;
        this.#before = old;
        this.#switchTo(next);
        old.dispose();
      });
    } catch (error) {
      if (this.#log !== next) next.dispose();
      throw error;
    }
    await this.#writeBase();
  }

  /**
   * Takes a last checkpoint if anything changed, and closes the files. Idempotent.
   * @param restIsZero whether the rest of the target is zero: see `CheckpointHeader`. A checkpoint says so until the
   * next life begins its log, before which nothing is written to the target.
   */
  async close(restIsZero: boolean): Promise<void> {
    if (this.#closed) return;
    this.#timer.stop();
    try {
      if (this.#poison.error !== undefined) await this.fence();
      else if (!restIsZero || !(await this.#checkpointRest())) await this.checkpoint();
      await this.#flushes.run(() => undefined);
    } catch (error) {
      // Without room for the next log, a barrier in the present one still makes its records firm.
      await this.flush().catch(() => undefined);
      throw error;
    } finally {
      this.stop();
      await this.#options.slots.close();
    }
  }

  /** Takes a last checkpoint that says that the rest is zero. Resolves to false if that fails, as on a full disk. */
  async #checkpointRest(): Promise<boolean> {
    const task = async (): Promise<void> => {
      if (this.#baseMissing) await this.#writeBase();
      await this.writeStandalone(true);
    };
    try {
      await this.#checkpoints.run(() => this.#durably('checkpoint', task));
      return true;
    } catch {
      return false;
    }
  }

  /**
   * Removes the metadata of a complete copy and closes the files, even if the removal fails. An interruption at any
   * point leaves nothing, or metadata that still says that the copy is complete.
   */
  async remove(): Promise<void> {
    try {
      await this.checkpoint();
      await this.#flushes.run(() => this.#checkpoints.run(() => this.#removeFiles()));
    } catch (error) {
      await this.fence();
      throw error;
    } finally {
      this.stop();
      await this.#options.slots.close();
    }
  }

  async #removeFiles(): Promise<void> {
    this.#closed = true;
    this.#timer.stop();
    const { slots } = this.#options;
    await this.writeStandalone();
    const last = slotOf(this.#epoch);
    await slots.removeAllBut('checkpoint', last, (file) => this.#sync(file));
    await slots.remove('checkpoint', last);
  }

  // Steps

  get #current(): WriteIntentLog {
    if (this.#log === undefined) throw new Error('no log is open');
    return this.#log;
  }

  #sync(file: File): Promise<void> {
    return this.#poison.sync(() => file.sync());
  }

  /** The file of a slot that does not count. */
  #make(kind: FileKind, slot: SlotIndex): Promise<File> {
    return this.#options.slots.make(kind, slot, (file) => this.#sync(file));
  }

  /** The file of a slot whose log is void. */
  async #logFile(slot: SlotIndex): Promise<LogFile> {
    return (this.#logFiles[slot] ??= await LogFile.take(await this.#make('log', slot)));
  }

  async #createLog(epoch: number): Promise<WriteIntentLog> {
    const { geometry } = this.#state;
    return WriteIntentLog.create(this.#options.core, await this.#logFile(slotOf(epoch)), geometry, {
      session: this.#session,
      epoch,
      capacity: logCapacity(geometry.blockCount, this.#checkpointBytes),
      guardSync: (sync) => this.#poison.sync(sync),
      poisoning: () => this.#poison.error,
    });
  }

  /** Runs a task that makes the state durable. After a failure, the timer tries again. */
  async #durably(kind: 'flush' | 'checkpoint', task: () => Promise<void>): Promise<void> {
    const { observer } = this.#options;
    const startMs = this.clock.now();
    let failure: unknown;
    try {
      await this.#options.owner.withRoom(() => this.#poison.ifCoreFails(task));
      await this.fence();
    } catch (error) {
      failure = error;
      if (this.refusal === undefined) this.#timer.start();
      throw error;
    } finally {
      observer?.durable?.(kind, this.clock.now() - startMs, failure);
    }
  }

  /** Runs a task that writes to a log; no other does meanwhile. */
  #exclusively<T>(task: () => T | Promise<T>): T | Promise<T> {
    return this.#appends.run(() => {
      this.#poison.refuse();
      return task();
    });
  }

  /** Cannot fail. Synchronous with what the caller does before. */
  #switchTo(log: WriteIntentLog): void {
    this.#log = log;
    this.#epoch = log.epoch;
    this.#checkpointed = this.#appended;
    this.#baseMissing = true;
    this.#generation = this.firmness.age();
  }

  /** Writes the checkpoint that the current log follows. After a failure, the next attempt does what is left to do. */
  async #writeBase(): Promise<void> {
    const log = this.#current;
    // A durable checkpoint is not written again: BASED may be in the log, and requires it.
    if (this.#durableEpoch !== log.epoch) await this.#writeCheckpoint(log.epoch, log);
    await this.#exclusively(() => {
      log.addBased();
      return log.append();
    });
    await this.#poison.sync(() => log.sync());
    this.firmness.firm(this.#generation);
    this.#before = undefined;
    this.#baseMissing = false;
    this.#options.observer?.checkpoint?.(this.#checkpointBytes);
  }

  /** Writes the checkpoint of an epoch into its slot: standalone, or followed by `log`. Durable when it resolves. */
  async #writeCheckpoint(epoch: number, log: WriteIntentLog | undefined, restIsZero = false): Promise<void> {
    const rewritten = this.#rewritten;
    const slot = slotOf(epoch);
    const file = await this.#make('checkpoint', slot);
    const image = await this.#writer.write(file, { slot, epoch, standalone: log === undefined, restIsZero });
    await this.#poison.sync(async () => {
      await Promise.all([this.#syncTarget?.(), log?.sync(), file.sync()]);
    });
    await this.#writer.commit(file, image);
    await this.#poison.sync(() => file.sync());
    this.#durableEpoch = epoch;
    this.#checkpointBytes = image.bytes;
    this.#metadataBytes += image.writtenBytes;
    this.#flushed = Math.max(this.#flushed, this.#checkpointed);
    this.#rewrittenFlushed = Math.max(this.#rewrittenFlushed, rewritten);
    // What only the checkpoint before needs is void from now on. A successor that has not seen this one needs it.
    await this.fence();
  }

  // Checkpoints in the background

  /** A large map that hardly changed is not written again: a barrier makes the log durable just as well. */
  #makeDurable(): void {
    const bytes = Math.max(SMALL_CHECKPOINT_BYTES, this.#current.usedBytes);
    if (this.#checkpointBytes <= bytes) this.#checkpointInBackground();
    else this.flush().catch(() => undefined);
  }

  /** An error here reaches the next flush, close, or write that finds the log full. */
  #checkpointInBackground(): void {
    if (this.#growing) return;
    this.#growing = true;
    this.checkpoint()
      .catch(() => undefined)
      .finally(() => {
        this.#growing = false;
      });
  }
}

/**
 * Returns a factor within (1/2, 1] that only depends on the copy. Without it, the checkpoints of many copies that were
 * written at one time would hold the event loop together: 1000 of them for 1.2 s (2026).
 */
function partOf(session: Uint8Array): number {
  return 1 - session[0]! / 512;
}
