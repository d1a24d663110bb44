/**
 * The state of a copy, in memory and on disk: both maps, the write-intent log that they are rebuilt from, and the checkpoints that void it.
 *
 * Invariants (docs/DESIGN.md gives the reasons):
 * - The maps hold what is in the log, no more: a record is applied after its append, in the same step as the append ends.
 * - A caller says `written` only after the target's write has returned, and acknowledges only after `written` has resolved.
 * - `flush` and `checkpoint` exclude each other; appends and the switch to the next log exclude each other.
 * - A failed sync is never tried again: the journal is poisoned, and what is on disk stays as it is.
 */

import { Mutex } from '../async/mutex.ts';
import { BlockMap } from '../core/block-map.ts';
import { DirtyMap } from '../core/dirty-map.ts';
import { bytesOfBlock, type Geometry } from '../core/geometry.ts';
import { MAX_IDENTITY_BYTES, MAX_LOG_BYTES } from '../core/layout.ts';
import { CodError } from '../errors.ts';
import type { File } from '../fs/file-system.ts';
import type { Clock } from '../platform/clock.ts';
import type { Core } from '../wasm/core.ts';
import { type CheckpointImage, commitCheckpoint, takeCheckpoint, writeCheckpointBody } from './checkpoint.ts';
import type { RecoveredState } from './recovered-state.ts';
import { type Slots, slotOf } from './slots.ts';
import { disownBoot, type OwnedLog, ownedLog, WriteIntentLog } from './write-intent-log.ts';

/**
 * A log has room for one record of each block, within these limits; where the checkpoint is large, for more. It is a sparse file, so what is not used costs nothing,
 * and a short one has the target synced again and again while it is being written to.
 */
const MIN_LOG_BYTES = 2 ** 20;
const MIN_LOG_BYTES_OF_LARGE = 2 ** 23;
/** A record that comes alone, and its frame. */
const BYTES_PER_RECORD = 40;
/** A checkpoint up to this size is taken at each interval, however little changed; a larger one when the log has grown to its size. */
const SMALL_CHECKPOINT_BYTES = 65_536;
/** Records of one append: their frames stay within what a file system writes at once. */
const MAX_BATCH_RECORDS = 3_000;

export interface JournalOptions {
  core: Core;
  clock: Clock;
  slots: Slots;
  identity: string | undefined;
  checkpointIntervalMs: number;
}

const DONE = Promise.resolve();

/** Called once, without an error if all went well. It must not throw. */
export type Settled = (error?: unknown) => void;

/** Records that share an append. */
interface Batch {
  /** Pairs of offset and length. */
  readonly extents: number[];
  readonly settled: Settled[];
  isSettled: boolean;
}

function settle(batch: Batch, error?: unknown): void {
  batch.isSettled = true;
  for (const settled of batch.settled) settled(error);
}

export class Journal {
  readonly geometry: Geometry;
  readonly map: BlockMap;
  readonly dirty: DirtyMap;
  readonly #options: JournalOptions;
  readonly #session: Uint8Array;
  readonly #identity: Uint8Array | undefined;
  /** One append, or the switch to the next log, at a time. */
  readonly #appends = new Mutex();
  /** One flush or checkpoint at a time. */
  readonly #durability = new Mutex();
  #epoch: number;
  #log!: WriteIntentLog;
  #batch: Batch | undefined;
  /** The target, with its full size: synced by a flush and before each checkpoint. Not there yet while a new copy is being made. */
  #target: File | undefined;
  /** Batches in the log, in memory's time; how many of them a flush has made durable, and how many are in the last checkpoint. */
  #appended = 0;
  #flushed = 0;
  #checkpointed = 0;
  /** Writes that needed no record, in memory's time, and how many of them a sync of the target has made durable. */
  #rewritten = 0;
  #rewrittenFlushed = 0;
  #growing = false;
  /** The present log's checkpoint could not be written yet; its predecessors still count. */
  #baseMissing = false;
  #image: CheckpointImage | undefined;
  #queuedFlush: Promise<void> | undefined;
  #queuedCheckpoint: Promise<void> | undefined;
  #timer: AbortController | undefined;
  #poison: CodError | undefined;
  #closed = false;
  #metadataBytes = 0;

  private constructor(
    options: JournalOptions,
    state: { geometry: Geometry; map: BlockMap; dirty: DirtyMap; session: Uint8Array; epoch: number },
  ) {
    this.#options = options;
    this.geometry = state.geometry;
    this.map = state.map;
    this.dirty = state.dirty;
    this.#session = state.session;
    this.#epoch = state.epoch;
    this.#identity = options.identity === undefined ? undefined : new TextEncoder().encode(options.identity);
    if (this.#identity !== undefined && this.#identity.length > MAX_IDENTITY_BYTES) {
      throw new RangeError(
        `the source's identity has ${this.#identity.length} bytes, ${MAX_IDENTITY_BYTES} are allowed`,
      );
    }
  }

  /**
   * Goes on from what {@link recover} found. Resolves when a checkpoint of it is durable and a new log begun. `openTarget` is called once a restart would
   * find the copy, since it may have to make the target.
   */
  static async resume(
    options: JournalOptions,
    state: RecoveredState,
    session: Uint8Array,
    openTarget: () => Promise<File>,
  ): Promise<Journal> {
    const journal = new Journal(options, { ...state, session: state.session ?? session });
    // A process that was killed may have left the checkpoint that counts in the page cache only. What a power cut would bring back in its place is overwritten below.
    if (state.format === 2) {
      const checkpoint = await options.slots.make('checkpoint', slotOf(state.epoch));
      await journal.#sync(() => checkpoint.sync());
    }
    journal.#target = await openTarget();
    if (state.format === 1 || state.bothLogs) await journal.#writeStandalone();
    await journal.#begin();
    // A log of format 1 that is void need not be shown to anyone.
    if (state.format === 1) await (await options.slots.find('log', slotOf(journal.#epoch + 1)))?.truncate(0);
    return journal;
  }

  /**
   * Makes the metadata of a new copy, whose target must not be there yet: `makeTarget` is called once a restart would find the copy.
   */
  static async create(
    options: JournalOptions,
    shape: Geometry,
    session: Uint8Array,
    makeTarget: () => Promise<File>,
  ): Promise<Journal> {
    const map = await BlockMap.open(shape);
    const journal = new Journal(options, {
      geometry: shape,
      map,
      dirty: new DirtyMap(options.core, shape),
      session,
      epoch: -1,
    });
    await journal.#writeStandalone();
    journal.#target = await makeTarget();
    await journal.#begin();
    return journal;
  }

  /** Bytes written to logs and checkpoints so far. */
  get metadataBytes(): number {
    return this.#metadataBytes + this.#log.usedBytes;
  }

  /** Why nothing is accepted any more, if so. */
  get poison(): CodError | undefined {
    return this.#poison;
  }

  /**
   * These bytes of the target hold the truth: logs it and then says so in the maps, unless the maps say so of all these blocks, which is then in the log. The
   * target's write must have returned, and the caller must keep others away from these blocks until it resolves.
   * @throws {@link CodError} COD_NO_SPACE, COD_TARGET_IO: nothing was recorded; COD_POISONED, COD_CLOSED.
   */
  written(offset: number, length: number): Promise<void> {
    const { blockSize } = this.geometry;
    if (
      this.#refusal === undefined &&
      this.map.hasRange(Math.floor(offset / blockSize), Math.ceil((offset + length) / blockSize))
    ) {
      this.rewritten();
      return DONE;
    }
    return new Promise((resolve, reject) =>
      this.record(offset, length, (error) => (error === undefined ? resolve() : reject(error))),
    );
  }

  /** As {@link written}, for blocks of which not all are synced; `settled` is called inside {@link commitNow}, or soon. */
  record(offset: number, length: number, settled: Settled): void {
    const refusal = this.#refusal;
    if (refusal !== undefined) {
      settled(refusal);
      return;
    }
    let batch = this.#batch;
    if (batch === undefined || batch.extents.length >= 2 * MAX_BATCH_RECORDS) {
      const begun: Batch = { extents: [], settled: [], isSettled: false };
      batch = this.#batch = begun;
      // Once all that is written in this turn can share the append.
      void DONE.then(() => {
        if (!begun.isSettled) void this.#commit(begun);
      });
    }
    batch.extents.push(offset, length);
    batch.settled.push(settled);
  }

  /** Appends what was recorded in this turn of the event loop, inside the call, if that can be. */
  commitNow(): void {
    if (this.#batch !== undefined) this.#commitNow(this.#batch);
  }

  /** Notes a write over blocks that are synced, as {@link written} does by itself. */
  rewritten(): void {
    this.#rewritten++;
    this.#startTimer();
  }

  get #refusal(): CodError | undefined {
    return this.#poison ?? (this.#closed ? new CodError('COD_CLOSED', 'the device is closed') : undefined);
  }

  async #commit(batch: Batch): Promise<void> {
    this.#commitNow(batch);
    if (batch.isSettled) return;
    let failure: unknown;
    try {
      while (!(await this.#appends.run(() => this.#append(batch)))) await this.checkpoint();
    } catch (error) {
      failure = error;
    }
    settle(batch, failure);
  }

  #commitNow(batch: Batch): void {
    let failure: unknown;
    try {
      if (!this.#appendNow(batch)) return;
    } catch (error) {
      failure = error;
    }
    settle(batch, failure);
  }

  /** Appends a batch and applies it to the maps; false if the log has no room for it. */
  async #append(batch: Batch): Promise<boolean> {
    if (!this.#encode(batch)) return false;
    await this.#log.append();
    this.#applyAll(batch);
    return true;
  }

  /** As {@link #append}, inside the call; false, and nothing done, also where another append is under way or the file cannot. */
  #appendNow(batch: Batch): boolean {
    if (!this.#appends.isFree || !this.#encode(batch) || !this.#log.appendNow()) return false;
    this.#applyAll(batch);
    return true;
  }

  /** Ends a batch and adds it to the log's next append; false if the log has no room for it. */
  #encode(batch: Batch): boolean {
    if (this.#batch === batch) this.#batch = undefined;
    if (this.#poison !== undefined) throw this.#poison;
    const log = this.#log;
    const { extents } = batch;
    for (let index = 0; index < extents.length; index += 2) log.addWritten(extents[index]!, extents[index + 1]!);
    if (!log.isFull) return true;
    log.discardPending();
    return false;
  }

  #applyAll({ extents }: Batch): void {
    for (let index = 0; index < extents.length; index += 2) this.#apply(extents[index]!, extents[index + 1]!);
    this.#appended++;
    this.#startTimer();
    if (!this.#baseMissing && this.#log.usedBytes >= this.#growth) this.#checkpointInBackground();
  }

  #apply(offset: number, length: number): void {
    const { blockSize, size } = this.geometry;
    const end = offset + length;
    const first = Math.floor(offset / blockSize);
    const firstWhole = Math.ceil(offset / blockSize);
    const endWhole = end === size ? this.geometry.blockCount : Math.floor(end / blockSize);
    if (firstWhole < endWhole) {
      this.map.add(firstWhole, endWhole);
      this.dirty.remove(firstWhole, endWhole);
    }
    if (first < firstWhole)
      this.#applyPart(
        first,
        offset - first * blockSize,
        Math.min(end - first * blockSize, bytesOfBlock(this.geometry, first)),
      );
    if (endWhole >= firstWhole && endWhole * blockSize < end) this.#applyPart(endWhole, 0, end - endWhole * blockSize);
  }

  #applyPart(block: number, start: number, end: number): void {
    if (this.map.has(block)) return;
    const added = this.dirty.add(block, start, end);
    if (added === 'complete') this.map.add(block, block + 1);
    if (added === 'full') throw this.#poisoned(new CodError('COD_NO_SPACE', 'the map of dirty blocks is full'));
  }

  /** The length of a log whose checkpoint is small. */
  get #minLogBytes(): number {
    return Math.min(MIN_LOG_BYTES_OF_LARGE, Math.max(MIN_LOG_BYTES, this.geometry.blockCount * BYTES_PER_RECORD));
  }

  /** Log bytes after which a checkpoint pays: as many as it costs itself. */
  get #growth(): number {
    return Math.max(this.#minLogBytes / 2, this.#image?.bytes ?? 0);
  }

  #startTimer(): void {
    if (this.#timer !== undefined) return;
    const timer = new AbortController();
    this.#timer = timer;
    this.#options.clock.sleep(this.#options.checkpointIntervalMs, timer.signal).then(
      () => {
        this.#timer = undefined;
        const { bytes } = this.#image!;
        // A large map that hardly changed is not written again: a barrier makes the log firm just as well.
        if (bytes <= SMALL_CHECKPOINT_BYTES || this.#log.usedBytes >= bytes) this.#checkpointInBackground();
        else this.flush().catch(() => undefined);
      },
      () => undefined,
    );
  }

  #stopTimer(): void {
    this.#timer?.abort(new CodError('COD_CLOSED', 'not needed any more'));
    this.#timer = undefined;
  }

  /** An error here reaches whoever needs the checkpoint next: a flush, a close, a write that finds the log full. */
  #checkpointInBackground(): void {
    if (this.#growing) return;
    this.#growing = true;
    this.checkpoint()
      .catch(() => undefined)
      .finally(() => {
        this.#growing = false;
      });
  }

  #poisoned(error: unknown): CodError {
    this.#poison ??= new CodError(
      'COD_POISONED',
      `what was written may not be durable, so nothing more is accepted; open it again (${error instanceof Error ? error.message : String(error)})`,
      { cause: error },
    );
    this.#stopTimer();
    return this.#poison;
  }

  /** Runs a sync. If it fails, the kernel has dropped what it could not write, so trying again would lie. */
  async #sync(task: () => Promise<void>): Promise<void> {
    try {
      await task();
    } catch (error) {
      const poison = this.#poisoned(error);
      await this.#disownBoot();
      throw poison;
    }
  }

  /**
   * Lets the next start believe only what was durable, even in this boot: what was written may be lost all the same. The logs are those that may count; no other
   * may be touched, since it may be in the making. The older one first: whatever cuts this short, a log must not go on in one of another boot. If it fails
   * there is nothing more that could be done.
   */
  async #disownBoot(): Promise<void> {
    const { core, slots } = this.#options;
    const log = this.#log as WriteIntentLog | undefined;
    try {
      const logs: OwnedLog[] = [];
      for (const slot of log === undefined || this.#baseMissing ? ([0, 1] as const) : [slotOf(log.epoch)]) {
        const file = await slots.find('log', slot);
        const owned = file && (await ownedLog(core, file));
        if (owned !== undefined) logs.push(owned);
      }
      for (const owned of logs.sort((one, other) => one.header.epoch - other.header.epoch))
        await disownBoot(core, owned);
    } catch {
      // The caller has the error of the sync, which is why.
    }
  }

  /**
   * Everything that {@link written} resolved for before the call is durable. Two syncs, one where nothing was logged, and none where nothing changed.
   * @throws {@link CodError} COD_POISONED if a sync failed; COD_NO_SPACE, COD_TARGET_IO.
   */
  flush(): Promise<void> {
    // Whoever comes before a queued flush has begun is served by it.
    this.#queuedFlush ??= this.#durability.run(() => {
      this.#queuedFlush = undefined;
      return this.#flush();
    });
    return this.#queuedFlush;
  }

  async #flush(): Promise<void> {
    if (this.#poison !== undefined) throw this.#poison;
    if (this.#baseMissing) await this.#writeBase();
    const appended = this.#appended;
    const rewritten = this.#rewritten;
    if (this.#flushed === appended && this.#rewrittenFlushed === rewritten) return;
    const log = this.#log;
    const through = log.sequence;
    await this.#sync(() => this.#target!.sync());
    this.#rewrittenFlushed = rewritten;
    if (this.#flushed === appended) return;
    await this.#appends.run(async () => {
      log.addBarrier(through);
      await log.append();
    });
    await this.#sync(() => log.sync());
    this.#flushed = appended;
  }

  /**
   * Makes both maps durable and voids the log.
   * @throws as {@link flush}.
   */
  checkpoint(): Promise<void> {
    this.#queuedCheckpoint ??= this.#durability.run(() => {
      this.#queuedCheckpoint = undefined;
      return this.#checkpoint();
    });
    return this.#queuedCheckpoint;
  }

  async #checkpoint(): Promise<void> {
    if (this.#poison !== undefined) throw this.#poison;
    this.#stopTimer();
    if (this.#baseMissing) await this.#writeBase();
    // No map has changed, but the target may have.
    if (this.#checkpointed === this.#appended) return this.#flush();
    const old = this.#log;
    await this.#appends.run(() => old.scrub());
    const next = await this.#createLog(this.#epoch + 1);
    try {
      // Before the old log says that it goes on there: what a sync that fails later drops must not be all of it.
      await this.#sync(() => next.sync());
      await this.#appends.run(async () => {
        old.addContinued();
        await old.append();
        this.#metadataBytes += old.usedBytes;
        this.#switchTo(next);
        old.dispose();
      });
    } catch (error) {
      if (this.#log !== next) next.dispose();
      throw error;
    }
    await this.#writeBase();
  }

  async #createLog(epoch: number): Promise<WriteIntentLog> {
    const { core, slots } = this.#options;
    const file = await slots.make('log', slotOf(epoch));
    const wanted = Math.max(this.#minLogBytes, 4 * (this.#image?.bytes ?? 0));
    const capacity = Math.min(MAX_LOG_BYTES, Math.ceil(wanted / 65_536) * 65_536);
    return WriteIntentLog.create(core, file, this.geometry, {
      session: this.#session,
      epoch,
      capacity,
      bootId: slots.fileSystem.bootId,
      guardSync: (sync) => this.#sync(sync),
    });
  }

  /** The one moment that both maps belong to: nothing may come between this and what the caller does before it. */
  #switchTo(log: WriteIntentLog): void {
    this.#log = log;
    this.#epoch = log.epoch;
    this.#checkpointed = this.#appended;
    this.#baseMissing = true;
    this.#image = this.#take({ standalone: false });
  }

  #take(kind: { standalone: boolean }): CheckpointImage {
    const { core } = this.#options;
    return takeCheckpoint(
      core,
      this,
      { session: this.#session, epoch: this.#epoch, standalone: kind.standalone, identity: this.#identity },
      this.#image?.body,
    );
  }

  /** Writes the checkpoint that the present log stands on. */
  async #writeBase(): Promise<void> {
    const log = this.#log;
    const rewritten = this.#rewritten;
    // After a failed attempt BASED may stand there, while the checkpoint is about to be written once more.
    await this.#appends.run(() => log.scrub());
    await this.#writeImage(log);
    await this.#appends.run(async () => {
      log.addBased();
      await log.append();
    });
    await this.#sync(() => log.sync());
    this.#baseMissing = false;
    this.#flushed = Math.max(this.#flushed, this.#checkpointed);
    this.#rewrittenFlushed = rewritten;
  }

  async #writeImage(log: WriteIntentLog | undefined): Promise<void> {
    const image = this.#image!;
    const { slots } = this.#options;
    const file = await slots.make('checkpoint', slotOf(this.#epoch));
    await writeCheckpointBody(file, image);
    await this.#sync(async () => {
      await Promise.all([this.#target?.sync(), log?.sync(), file.sync()]);
    });
    await commitCheckpoint(file, image);
    await this.#sync(() => file.sync());
    this.#metadataBytes += image.bytes;
  }

  /** Takes a checkpoint that needs no log, in the slot that has no say. */
  async #writeStandalone(): Promise<void> {
    this.#epoch++;
    this.#image = this.#take({ standalone: true });
    await this.#writeImage(undefined);
  }

  /** Begins a log in the slot that has no say, and takes the checkpoint that it stands on. */
  async #begin(): Promise<void> {
    const log = await this.#createLog(this.#epoch + 1);
    this.#switchTo(log);
    await this.#writeBase();
  }

  /** Takes a last checkpoint if anything changed, and lets go of the files. Idempotent. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#stopTimer();
    try {
      if (this.#poison === undefined) await this.checkpoint();
    } finally {
      this.#closed = true;
      this.#stopTimer();
      await this.#options.slots.close();
      this.map.dispose();
    }
  }

  /**
   * Removes the metadata: the target is a file like any other from here on. To be called when all blocks are synced; cut at any point, what is left
   * either says so still or is nothing.
   */
  async remove(): Promise<void> {
    await this.checkpoint();
    await this.#durability.run(async () => {
      this.#closed = true;
      this.#stopTimer();
      const { slots } = this.#options;
      await this.#writeStandalone();
      const last = slotOf(this.#epoch);
      const rest = [
        { kind: 'log', slot: 0 },
        { kind: 'log', slot: 1 },
        { kind: 'checkpoint', slot: last === 0 ? 1 : 0 },
      ] as const;
      for (const { kind, slot } of rest) {
        const file = await slots.find(kind, slot);
        if (file === undefined) continue;
        await file.truncate(0);
        await this.#sync(() => file.sync());
        await slots.remove(kind, slot);
      }
      await slots.remove('checkpoint', last);
      await slots.close();
      this.map.dispose();
    });
  }
}
