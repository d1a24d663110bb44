/**
 * Group commit: the records of one turn of the event loop share one append to the log.
 *
 *   record → batch → append → state.apply → settled
 *
 * Invariants:
 * - The state holds what the log holds, and nothing else: a batch is applied in the step in which its append ends.
 * - A record is committed after the caller's write to the target has returned, and settles after its append.
 * - Records are appended in the order in which they were passed.
 */

import type { Done, Settled } from '../async/done.ts';
import type { CopyState } from '../core/copy-state.ts';
import { CELL_BYTES, WRITTEN_PAIR } from '../core/layout.ts';
import { applyExtents, extentsOf, type Recorded } from './announcements.ts';
import type { Checkpointer } from './checkpointer.ts';
import { cellsOf, hasSum, MAX_CLAIMS, RECORD_NUMBERS } from './firmness.ts';
import type { WriteIntentLog } from './write-intent-log.ts';

/** Records of one append: their frames stay within what a file system writes with one call. */
const MAX_BATCH_RECORDS = 3_000;
const LIMIT = MAX_BATCH_RECORDS * RECORD_NUMBERS;

/** Numbers of records that wait, up to which their cells are looked at one by one. */
const MAX_LOOKED_AT = 256 * RECORD_NUMBERS;

const DONE = Promise.resolve();

/** Records that share an append. */
interface Batch {
  /** As in {@link Recorded}. */
  readonly records: number[];
  readonly extents: number[];
  readonly settled: Settled[];
  isCommitted: boolean;
}

function settle(batch: Batch, error?: unknown): void {
  for (const settled of batch.settled) settled(error);
}

function addAll(to: number[], from: readonly number[]): void {
  for (const value of from) to.push(value);
}

export class GroupCommit {
  readonly #state: CopyState;
  readonly #checkpointer: Checkpointer;
  /** Commits that did not end synchronously. */
  #inFlight = 0;
  #onIdle: (() => void) | undefined;
  /** The last commit that did not end synchronously: later ones follow it. */
  #last: Promise<void> | undefined;
  /** Full batches that are not committed yet, and the one that takes records. */
  #full: Batch[] = [];
  #batch: Batch | undefined;

  constructor(state: CopyState, checkpointer: Checkpointer) {
    this.#state = state;
    this.#checkpointer = checkpointer;
  }

  /**
   * Records what the target holds. `settled` is called synchronously if there is nothing to record, otherwise by
   * {@link commit} or later. Its error is COD_NO_SPACE or COD_TARGET_IO if nothing was recorded, or COD_POISONED or
   * COD_CLOSED.
   */
  record({ records, extents }: Recorded, settled: Settled): void {
    const { refusal } = this.#checkpointer;
    if (refusal !== undefined) {
      settled(refusal);
      return;
    }
    if (records.length === 0) {
      this.#checkpointer.rewrote();
      this.#settle([settled]);
      return;
    }
    try {
      this.#checkMemory();
    } catch (error) {
      settled(error);
      return;
    }
    if (records.length > LIMIT) this.#recordInParts(records, settled);
    else this.#add(records, extents, settled);
  }

  /** @throws {@link CodError} COD_NO_MEMORY, before anything is in the log that the state has no memory for */
  #checkMemory(): void {
    if (this.#batch === undefined) this.#state.checkMemory();
  }

  /**
   * Records more than a batch takes. Each part has its own extents: a checkpoint between two appends voids the records
   * of the first one, so it must hold what they say.
   */
  #recordInParts(records: readonly number[], settled: Settled): void {
    let open = Math.ceil(records.length / LIMIT);
    let failure: unknown;
    const ended: Settled = (error) => {
      failure ??= error;
      if (--open === 0) settled(failure);
    };
    for (let at = 0; at < records.length; at += LIMIT) {
      const part = records.slice(at, at + LIMIT);
      this.#add(part, extentsOf(part), ended);
    }
  }

  #add(records: readonly number[], extents: readonly number[], settled: Settled): void {
    const batch = this.#batch ?? this.#begin();
    addAll(batch.records, records);
    addAll(batch.extents, extents);
    batch.settled.push(settled);
    // Not committed here: `record` calls no other caller's `settled`.
    if (batch.records.length >= LIMIT) this.#closeBatch();
  }

  #closeBatch(): void {
    this.#full.push(this.#batch!);
    this.#batch = undefined;
  }

  /** Appends records before the target changes, with everything that waits: now if the log's file can. */
  announce({ records, extents }: { readonly records: readonly number[]; readonly extents: readonly number[] }): Done {
    const { refusal } = this.#checkpointer;
    if (refusal !== undefined) throw refusal;
    if (records.length > LIMIT) return this.#announceInParts(records);
    this.#checkMemory();
    const batch = this.#batch ?? this.#begin();
    addAll(batch.records, records);
    addAll(batch.extents, extents);
    let outcome: { readonly error: unknown } | undefined;
    let later: Settled | undefined;
    batch.settled.push((error) => {
      outcome = { error };
      later?.(error);
    });
    this.commit();
    if (outcome === undefined) {
      return new Promise((resolve, reject) => {
        later = (error) => (error === undefined ? resolve() : reject(error));
      });
    }
    const { error } = outcome as { readonly error: unknown };
    if (error !== undefined) throw error;
    return undefined;
  }

  /** An append of any length might not fit into any log. */
  async #announceInParts(records: readonly number[]): Promise<void> {
    for (let at = 0; at < records.length; at += LIMIT) {
      const part = records.slice(at, at + LIMIT);
      await this.announce({ records: part, extents: extentsOf(part) });
    }
  }

  /** Whether records that wait for their append name a cell of these bytes. True also if too many wait to look. */
  names(offset: number, length: number): boolean {
    const batch = this.#batch;
    if (batch === undefined && this.#full.length === 0) return false;
    if (this.#full.length > 0 || batch!.records.length > MAX_LOOKED_AT) return true;
    const { start, end } = cellsOf(offset, length);
    const { records } = batch!;
    for (let at = 0; at < records.length; at += RECORD_NUMBERS) {
      if (!hasSum(records[at]!)) continue;
      const cell = Math.floor(records[at + 1]! / CELL_BYTES);
      if (cell < end && cell + (records[at] === WRITTEN_PAIR ? 2 : 1) > start) return true;
    }
    return false;
  }

  /**
   * Adds records that change nothing in the state to those that wait. Full batches are acknowledged before a record
   * that joins now is in the log: then it is announced. So are records that would make the batch long.
   */
  join(records: readonly number[]): Done {
    const isLong = (this.#batch?.records.length ?? 0) + records.length > 2 * LIMIT;
    if (this.#full.length > 0 || isLong) return this.announce({ records, extents: [] });
    addAll((this.#batch ?? this.#begin()).records, records);
    return undefined;
  }

  /** Appends the records of this turn of the event loop, synchronously if the log's file can. */
  commit(): void {
    if (this.#full.length > 0) for (const batch of this.#full.splice(0)) this.#commit(batch);
    if (this.#batch !== undefined) this.#commit(this.#batch);
  }

  /** Commits what was recorded, and resolves when every commit has ended. Nothing may be recorded meanwhile. */
  async end(): Promise<void> {
    // Batches are committed by microtasks, all of which were queued before this one.
    await DONE;
    if (this.#inFlight > 0) await new Promise<void>((resolve) => (this.#onIdle = resolve));
  }

  #begin(): Batch {
    const batch: Batch = { records: [], extents: [], settled: [], isCommitted: false };
    this.#batch = batch;
    // Later in this turn, so that everything written in this turn shares the append.
    void DONE.then(() => {
      if (!batch.isCommitted) this.commit();
    });
    return batch;
  }

  #commit(batch: Batch): void {
    if (this.#batch === batch) this.#batch = undefined;
    batch.isCommitted = true;
    let appended: boolean | Promise<boolean>;
    try {
      appended = this.#last === undefined ? this.#append(batch) : this.#last.then(() => this.#append(batch));
    } catch (error) {
      settle(batch, error);
      return;
    }
    if (appended === true) {
      this.#settle(batch.settled);
      return;
    }
    this.#finishLater(batch, appended);
    try {
      this.#checkpointer.firmness.begin(batch.records);
    } catch (error) {
      // The append is in flight: the log may hold what is not noted.
      this.#checkpointer.poison(error);
    }
  }

  /** Acknowledges, once it is known that no other owner has taken over 10 s ago or earlier. */
  #settle(acknowledged: readonly Settled[]): void {
    const checked = this.#checkpointer.fenceIfOld();
    const settleAll = (error?: unknown): void => {
      for (const settled of acknowledged) settled(error);
    };
    if (checked === undefined) settleAll();
    else checked.then(settleAll, settleAll);
  }

  #finishLater(batch: Batch, appended: boolean | Promise<boolean>): void {
    const finishing = this.#finish(batch, appended).then(() => {
      if (this.#last === finishing) this.#last = undefined;
      if (--this.#inFlight === 0) this.#onIdle?.();
    });
    this.#inFlight++;
    this.#last = finishing;
  }

  /** The rest of a commit that did not end synchronously. A full log needs a checkpoint first. Never rejects. */
  async #finish(batch: Batch, first: boolean | Promise<boolean>): Promise<void> {
    let failure: unknown;
    try {
      for (let appended = first; !(await appended); appended = this.#append(batch))
        await this.#checkpointer.checkpoint();
      await this.#checkpointer.fenceIfOld();
    } catch (error) {
      failure = error;
      this.#checkpointer.firmness.drop(batch.records);
    }
    settle(batch, failure);
  }

  /** Appends a batch and applies it to the state. False: the log has no room for it. */
  #append(batch: Batch): boolean | Promise<boolean> {
    return this.#checkpointer.append((log) => {
      addRecords(log, batch.records);
      if (log.isFull || this.#checkpointer.firmness.claims > MAX_CLAIMS) {
        log.discardPending();
        return false;
      }
      const appended = (): true => {
        this.#apply(batch);
        return true;
      };
      return log.append()?.then(appended) ?? appended();
    });
  }

  #apply({ records, extents }: Batch): void {
    try {
      this.#checkpointer.firmness.end(records);
      applyExtents(extents, this.#state);
    } catch (error) {
      // The log holds what the state or its firmness does not.
      throw this.#checkpointer.poison(error);
    }
    this.#checkpointer.appended();
  }
}

function addRecords(log: WriteIntentLog, records: readonly number[]): void {
  for (let at = 0; at < records.length; at += RECORD_NUMBERS)
    log.addData(records[at]!, records[at + 1]!, records[at + 2]!, records[at + 3]!);
}
