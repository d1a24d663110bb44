/**
 * Group commit: the records of one turn of the event loop share one append to the log.
 *
 *   record → batch → append → state.apply → settled
 *
 * Invariants:
 * - The state holds what the log holds, and nothing else: a batch is applied in the step in which its append ends.
 * - A record is committed after the caller's write to the target has returned, and settles after its append.
 */

import type { Settled } from '../async/done.ts';
import type { CopyState } from '../core/copy-state.ts';
import type { Checkpointer } from './checkpointer.ts';

/** Records of one append: their frames stay within what a file system writes with one call. */
const MAX_BATCH_RECORDS = 3_000;

const DONE = Promise.resolve();

/** Records that share an append. */
interface Batch {
  /** Pairs of offset and length. */
  readonly extents: number[];
  readonly settled: Settled[];
  isCommitted: boolean;
}

function settle(batch: Batch, error?: unknown): void {
  for (const settled of batch.settled) settled(error);
}

export class GroupCommit {
  readonly #state: CopyState;
  readonly #checkpointer: Checkpointer;
  /** Commits that did not end synchronously. */
  #inFlight = 0;
  #onIdle: (() => void) | undefined;
  #batch: Batch | undefined;

  constructor(state: CopyState, checkpointer: Checkpointer) {
    this.#state = state;
    this.#checkpointer = checkpointer;
  }

  /**
   * Records that the target holds these bytes, given as pairs of offset and length. `settled` is called synchronously
   * if all of their blocks are synced, otherwise by {@link commit} or later. Its error is COD_NO_SPACE or COD_TARGET_IO
   * if nothing was recorded, or COD_POISONED or COD_CLOSED.
   */
  record(extents: readonly number[], settled: Settled): void {
    let isRecorded: boolean;
    try {
      const { refusal } = this.#checkpointer;
      if (refusal !== undefined) throw refusal;
      isRecorded = this.#areSynced(extents);
    } catch (error) {
      settled(error);
      return;
    }
    if (isRecorded) {
      this.#checkpointer.rewrote();
      settled();
      return;
    }
    const batch = this.#batch ?? this.#begin();
    for (let index = 0; index < extents.length; index++) batch.extents.push(extents[index]!);
    batch.settled.push(settled);
    // Not committed here: `record` calls no other caller's `settled`.
    if (batch.extents.length >= 2 * MAX_BATCH_RECORDS) this.#batch = undefined;
  }

  /** Appends the records of this turn of the event loop, synchronously if the log's file can. */
  commit(): void {
    if (this.#batch !== undefined) this.#commit(this.#batch);
  }

  /** Commits what was recorded, and resolves when every commit has ended. Nothing may be recorded meanwhile. */
  async end(): Promise<void> {
    // Batches are committed by microtasks, all of which were queued before this one.
    await DONE;
    if (this.#inFlight > 0) await new Promise<void>((resolve) => (this.#onIdle = resolve));
  }

  #areSynced(extents: readonly number[]): boolean {
    for (let index = 0; index < extents.length; index += 2) {
      if (!this.#state.isSynced(extents[index]!, extents[index + 1]!)) return false;
    }
    return true;
  }

  #begin(): Batch {
    const batch: Batch = { extents: [], settled: [], isCommitted: false };
    this.#batch = batch;
    // Later in this turn, so that everything written in this turn shares the append.
    void DONE.then(() => this.#commit(batch));
    return batch;
  }

  #commit(batch: Batch): void {
    if (batch.isCommitted) return;
    batch.isCommitted = true;
    try {
      const appended = this.#append(batch);
      if (appended === true) settle(batch);
      else void this.#finish(batch, appended);
    } catch (error) {
      settle(batch, error);
    }
  }

  /** The rest of a commit that did not end synchronously. A full log needs a checkpoint first. */
  async #finish(batch: Batch, first: boolean | Promise<boolean>): Promise<void> {
    let failure: unknown;
    this.#inFlight++;
    try {
      for (let appended = first; !(await appended); appended = this.#append(batch))
        await this.#checkpointer.checkpoint();
    } catch (error) {
      failure = error;
    }
    settle(batch, failure);
    if (--this.#inFlight === 0) this.#onIdle?.();
  }

  /** Appends a batch and applies it to the state. False: the log has no room for it. */
  #append(batch: Batch): boolean | Promise<boolean> {
    if (this.#batch === batch) this.#batch = undefined;
    return this.#checkpointer.append((log) => {
      const { extents } = batch;
      for (let index = 0; index < extents.length; index += 2) log.addWritten(extents[index]!, extents[index + 1]!);
      if (log.isFull) {
        log.discardPending();
        return false;
      }
      const appended = (): true => {
        this.#apply(extents);
        return true;
      };
      return log.append()?.then(appended) ?? appended();
    });
  }

  #apply(extents: readonly number[]): void {
    try {
      for (let index = 0; index < extents.length; index += 2) this.#state.apply(extents[index]!, extents[index + 1]!);
    } catch (error) {
      // The log holds what the state does not.
      throw this.#checkpointer.poison(error);
    }
    this.#checkpointer.appended();
  }
}
