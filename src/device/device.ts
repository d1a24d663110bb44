/**
 * The copy-on-demand device: an image that is read and written while it is copied.
 *
 *   reader ─ fetcher ┐
 *   writer ──────────┼─ target ─ log
 *   hydrator ─ filler┘
 *
 * This file dispatches the calls of users, notices that the copy is complete, reports the state, and closes.
 */

import { Deferred, type Done, type Settled } from '../async/done.ts';
import type { EventStream } from '../async/event-stream.ts';
import { sharedAbort } from '../async/shared-abort.ts';
import type { ModifiedRuns } from '../core/views.ts';
import { CodError, isCodError } from '../errors.ts';
import type { File } from '../fs/file-system.ts';
import type { OpenLog } from '../log/intent-log.ts';
import type { Environment } from '../platform/clock.ts';
import { Fetcher } from './fetcher.ts';
import { Filler } from './filler.ts';
import { Hydrator, type Room } from './hydrator.ts';
import { Operations } from './operations.ts';
import type { Origin } from './origin.ts';
import type { Patience } from './patience.ts';
import { newReadThrough, type ReadThrough } from './read-through.ts';
import { Reader } from './reader.ts';
import { Retries, type Told } from './retries.ts';
import { type SnapshotPlace, Snapshots } from './snapshot.ts';
import { Target } from './target.ts';
import type { DeviceEvent, DeviceExtent, DeviceState, DeviceStatus, HydrateOptions, InlineDevice } from './types.ts';
import { Writer } from './writer.ts';

/** The parts of a device. It owns all of them. */
export interface DeviceParts {
  readonly environment: Environment;
  readonly origin: Origin;
  readonly log: OpenLog;
  readonly target: File;
  /** Whether the target was just made, so that all of it reads as zeros. */
  readonly isBlank: boolean;
  /** Whether the rest of an older target reads as zeros: see `CheckpointHeader`. */
  readonly restIsZero: boolean;
  readonly hydrate: false | HydrateOptions;
  readonly onRead: ((offset: number, length: number) => void) | undefined;
  readonly events: EventStream<DeviceEvent>;
  readonly place: SnapshotPlace;
  /** Resolves to the room on the target's disk, or to undefined if it is not known. */
  readonly room: () => Promise<Room | undefined>;
  /** Default: a read of missing bytes that fails is not repeated. */
  readonly patience: Patience | undefined;
}

export class CopyOnDemandDevice implements InlineDevice {
  readonly size: number;
  readonly blockSize: number;
  readonly #parts: DeviceParts;
  readonly #log: OpenLog;
  readonly #target: Target;
  readonly #operations: Operations;
  readonly #fetcher: Fetcher;
  readonly #through: ReadThrough | undefined;
  readonly #hydrator: Hydrator;
  readonly #retries: Retries;
  /** Aborted when the device is closed or poisoned. */
  readonly #over = sharedAbort();
  readonly #reader: Reader;
  readonly #writer: Writer;
  readonly #snapshots: Snapshots;
  readonly #hydrated = new Deferred<void>();
  #hydrating: Promise<void> = Promise.resolve();
  #isCompleting = false;
  #state: DeviceState;
  #closing: Promise<void> | undefined;
  /** Counts at the time of closing, when the maps are freed. */
  #last: Pick<DeviceStatus, 'syncedBlocks' | 'dirtyBlocks'> | undefined;

  constructor(parts: DeviceParts) {
    const { environment, origin, log, hydrate } = parts;
    const { clock } = environment;
    this.#parts = parts;
    this.#log = log;
    this.size = log.size;
    this.blockSize = log.blockSize;
    this.#target = new Target(log, parts.target, { isBlank: parts.isBlank, restIsZero: parts.restIsZero, clock });
    this.#operations = new Operations(log, this.#target, clock);
    const { counters } = this.#operations;
    const filler = new Filler(this.#target);
    const demand = {
      origin,
      filler,
      clock,
      patience: parts.patience,
      onRetry: (retry: Told) => this.#retries.noted(retry),
      onBegin: () => void counters.demand.requests++,
      onFetched: (bytes: number) => this.#fetched(bytes),
      onStored: () => this.#checkComplete(),
    };
    this.#fetcher = new Fetcher(demand);
    this.#through = newReadThrough?.(demand);
    const onChange = () => this.#tellProgress();
    this.#retries = new Retries(environment, parts.events, {
      isCopying: hydrate !== false,
      counters: this.#operations.counters,
      onChange,
    });
    this.#hydrator = new Hydrator(
      { clock, origin, target: filler, demand: this.#fetcher, retries: this.#retries, room: parts.room, onChange },
      hydrate || {},
    );
    origin.onChange = onChange;
    origin.onRetry = (retry) => this.#retries.noted(retry);
    this.#reader = new Reader(this.#target, this.#fetcher, this.#hydrator, this.#through);
    this.#writer = new Writer(this.#target, this.#fetcher);
    this.#snapshots = new Snapshots(parts.place, this.#target);
    this.#state = hydrate === false ? 'idle' : log.state.isComplete ? 'hydrating' : this.#hydrator.state;
    if (hydrate !== false && !log.state.isComplete) this.#hydrating = this.#hydrate();
    this.#checkComplete();
  }

  get readOnly(): boolean {
    return this.#log.readOnly;
  }

  get modified(): ModifiedRuns {
    return this.#log.modified;
  }

  get identity(): string | undefined {
    return this.#log.identity;
  }

  get hydrated(): Promise<void> {
    return this.#hydrated.promise;
  }

  // Reads

  async read(into: Uint8Array, offset: number, options: { signal?: AbortSignal } = {}): Promise<void> {
    await (this.submitRead(into, offset, options.signal) ?? this.#target.pace());
  }

  submitRead(into: Uint8Array, offset: number, signal?: AbortSignal): Done {
    this.#operations.begin(offset, into.length);
    let reading: Done;
    try {
      signal?.throwIfAborted();
      if (into.length > 0) {
        this.#operations.counters.reads.count++;
        this.#parts.onRead?.(offset, into.length);
        reading = this.#reader.read(into, offset, signal);
      }
      if (reading === undefined) {
        this.#operations.checkNotPoisoned();
        reading = this.#log.fenceIfOld();
      }
    } catch (error) {
      if (isCodError(error, 'COD_SHORT_READ')) return this.#ended(Promise.reject(error));
      this.#operations.end();
      throw this.#operations.failed(this.#log.poisoning ?? error);
    }
    if (reading !== undefined) return this.#ended(reading);
    this.#operations.end();
    return undefined;
  }

  async #ended(reading: Promise<void>): Promise<void> {
    const done = this.#operations.timed(this.#operations.counters.reads);
    try {
      await reading;
      // Checked at the end: a sync that failed meanwhile may have dropped writes, so older bytes may have been read.
      this.#operations.checkNotPoisoned();
      await this.#log.fenceIfOld();
    } catch (error) {
      // A new owner that removes the copy empties the target.
      if (isCodError(error, 'COD_SHORT_READ'))
        await this.#log.fence().catch((cause: unknown) => {
          throw this.#operations.failed(cause);
        });
      throw this.#operations.failed(error);
    } finally {
      this.#operations.end();
      done();
    }
  }

  hydrateRange(offset: number, length: number, options: { signal?: AbortSignal } = {}): Promise<void> {
    return this.#operations.run(offset, length, async () => {
      // What a read-only device fetches, it cannot keep.
      if (!this.#log.readOnly) await this.#reader.hydrate(offset, length, options.signal);
    });
  }

  extents(offset: number, length: number, limit: number): Promise<readonly DeviceExtent[]> {
    return this.#operations.run(offset, length, async () => {
      const extents: DeviceExtent[] = [];
      let at = offset;
      for (const { state, length: bytes } of this.#log.state.runs(offset, length, limit)) {
        if (extents.length >= limit) break;
        for (const extent of await this.#zeros({ state, length: bytes, zero: false }, at)) append(extents, extent);
        at += bytes;
      }
      return extents.slice(0, limit);
    });
  }

  /** Divides a run that only the source holds by the source's extents. */
  async #zeros(extent: DeviceExtent, offset: number): Promise<readonly DeviceExtent[]> {
    const found = extent.state === 'unsynced' && (await this.#parts.origin.source?.extents?.(offset, extent.length));
    if (!found) return [extent];
    return found.map(({ length, zero }) => ({ length, state: 'unsynced', zero }));
  }

  // Changes

  write(from: Uint8Array, offset: number, options: { fua?: boolean } = {}): Promise<void> {
    return new Promise((resolve, reject) =>
      this.submitWrite(from, offset, options.fua ?? false, (error) => {
        if (error === undefined) resolve(this.#target.pace());
        else reject(error);
      }),
    );
  }

  submitWrite(from: Uint8Array, offset: number, fua: boolean, settled: Settled): void {
    try {
      this.#operations.beginChange(offset, from.length);
    } catch (error) {
      settled(error);
      return;
    }
    let done: (() => void) | undefined;
    let isPending = from.length > 0;
    const ended: Settled = (error) => {
      isPending = false;
      done?.();
      this.#operations.end();
      if (error === undefined) this.#checkComplete();
      else this.#operations.failed(error);
      settled(error);
    };
    try {
      if (from.length === 0) ended();
      else {
        this.#operations.counters.writes.count++;
        this.#writer.write(from, offset, fua, ended);
        if (isPending) done = this.#operations.timed(this.#operations.counters.writes);
      }
    } catch (error) {
      ended(error);
    }
  }

  commitWrites(): void {
    this.#log.commitPending();
  }

  discard(offset: number, length: number): Promise<void> {
    return this.#change(offset, length, () => this.#writer.discard(offset, length));
  }

  writeZeroes(offset: number, length: number): Promise<void> {
    return this.#change(offset, length, () => this.#writer.writeZeroes(offset, length));
  }

  async #change(offset: number, length: number, task: () => Promise<void>): Promise<void> {
    await this.#operations.change(offset, length, task);
    this.#checkComplete();
  }

  async flush(): Promise<void> {
    const { flushes } = this.#operations.counters;
    flushes.count++;
    const done = this.#operations.timed(flushes);
    await this.#operations.run(0, 0, () => this.#log.flush()).finally(done);
  }

  checkpoint(): Promise<void> {
    return this.#operations.run(0, 0, async () => {
      this.#target.assertWritable();
      await this.#log.checkpoint();
    });
  }

  snapshot(to: string): Promise<void> {
    return this.#operations.run(0, 0, () => this.#snapshots.take(to, this.#over.signal));
  }

  // The copy

  async #hydrate(): Promise<void> {
    try {
      await this.#hydrator.run();
      this.#checkComplete();
    } catch {
      // The device is closed or poisoned.
    }
  }

  #fetched(bytes: number): void {
    this.#operations.counters.demand.bytes += bytes;
    this.#parts.origin.answered();
    this.#retries.answered();
    this.#hydrator.limiter.spend(bytes);
  }

  /** Called after everything that may have synced the last block: makes the complete copy durable. */
  #checkComplete(): void {
    if (this.#isCompleting || this.#closing !== undefined || !this.#log.state.isComplete) return;
    this.#isCompleting = true;
    // The background copy notices the end, and no reader needs the source.
    this.#retries.wake();
    this.#fetcher.abandon();
    void this.#complete();
  }

  async #complete(): Promise<void> {
    for (;;) {
      try {
        await this.#log.checkpoint();
        break;
      } catch (error) {
        if (this.#over.signal.aborted) return;
        try {
          await this.#retries.wait(error, this.#over.signal);
        } catch {
          return;
        }
      }
    }
    this.#retries.succeeded();
    if (this.#state !== 'closed') this.#setState('hydrated');
    this.#hydrated.resolve();
  }

  /** Ends the copy, since no call but `close` is possible any more. */
  poisoned(error: CodError): void {
    this.#over.abort(error);
    this.#hydrator.stop(error);
    void this.#fetcher.close(error);
    this.#hydrated.reject(error);
  }

  /** Tells what the background copy does, if that has changed. */
  #tellProgress(): void {
    const { state } = this.#hydrator;
    const isRunning = ['hydrating', 'paused', 'waiting'].includes(this.#state);
    if (isRunning && state !== this.#state && !this.#over.signal.aborted) this.#setState(state);
  }

  #setState(state: DeviceState): void {
    this.#state = state;
    this.#parts.events.emit({ type: 'state', state });
  }

  status(): DeviceStatus {
    const { geometry, blocks, dirty } = this.#log.state;
    const { demand, reads, writes, flushes, errors } = this.#operations.counters;
    const background = { bytes: this.#hydrator.bytes, requests: this.#hydrator.requests };
    const isPoisoned = this.#log.poisoning !== undefined && this.#state !== 'closed';
    const counts = this.#last ?? {
      syncedBlocks: blocks.count,
      dirtyBlocks: this.#log.state.isLost ? 0 : dirty.blockCount,
    };
    return {
      size: geometry.size,
      blockSize: geometry.blockSize,
      totalBlocks: geometry.blockCount,
      ...counts,
      state: isPoisoned ? 'poisoned' : this.#state,
      sourceBytes: demand.bytes + background.bytes,
      demand: { ...demand },
      background,
      reads: { ...reads },
      writes: { ...writes },
      flushes: { ...flushes },
      errors: { ...errors },
      hydrateBytesPerSecond: this.#state === 'hydrating' ? this.#hydrator.bytesPerSecond : 0,
      rateBytesPerSecond: this.#hydrator.limiter.rate,
      metadataBytes: this.#log.metadataBytes,
      retries: this.#retries.count,
    };
  }

  events(options: { signal?: AbortSignal } = {}): AsyncIterable<DeviceEvent> {
    return this.#parts.events.subscribe(options.signal);
  }

  countBlocks(start: number, end: number, parts: number): { synced: Float64Array; dirty: Float64Array } {
    if (this.#closing !== undefined) throw new CodError('COD_CLOSED', 'the device is closed');
    return this.#log.state.count(start, end, parts);
  }

  setRate(bytesPerSecond: number | undefined): void {
    if (bytesPerSecond !== undefined && !(bytesPerSecond > 0)) {
      throw new RangeError(`the rate must be above 0 bytes per second, not ${bytesPerSecond}`);
    }
    this.#hydrator.limiter.set(bytesPerSecond);
  }

  pause(): void {
    this.#hydrator.pause();
  }

  resume(): void {
    this.#hydrator.resume();
  }

  // The end

  close(): Promise<void> {
    this.#closing ??= this.#shutDown(async () => this.#log.close(await this.#target.zeroRest()));
    return this.#closing;
  }

  async finish(): Promise<void> {
    if (this.#closing !== undefined) throw new CodError('COD_CLOSED', 'the device is closed');
    this.#target.assertWritable();
    if (this.#state !== 'hydrated') throw this.#incomplete();
    this.#closing = this.#shutDown(() => this.#log.remove());
    await this.#closing;
  }

  #incomplete(): CodError {
    const { syncedBlocks, totalBlocks } = this.status();
    return new CodError(
      'COD_INCOMPLETE',
      `the copy is not complete: ${syncedBlocks} of ${totalBlocks} blocks are synced; wait for \`hydrated\``,
      { details: { syncedBlocks, totalBlocks } },
    );
  }

  async #shutDown(closeLog: () => Promise<void>): Promise<void> {
    const reason = new CodError('COD_CLOSED', 'the device is closed');
    this.#operations.close();
    this.#over.abort(reason);
    this.#hydrator.stop(reason);
    try {
      await this.#fetcher.close(reason);
      await this.#hydrating;
      await this.#operations.drained();
      await this.#through?.close();
      const { syncedBlocks, dirtyBlocks } = this.status();
      this.#last = { syncedBlocks, dirtyBlocks };
      await closeLog();
    } finally {
      this.#setState('closed');
      this.#parts.events.end();
      this.#hydrated.reject(reason);
      await this.#parts.origin.close(reason);
      await this.#target.close();
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** Adds an extent, joined with the last one if both are alike. */
function append(extents: DeviceExtent[], extent: DeviceExtent): void {
  const last = extents.at(-1);
  if (last === undefined || last.state !== extent.state || last.zero !== extent.zero) extents.push(extent);
  else extents[extents.length - 1] = { ...last, length: last.length + extent.length };
}
