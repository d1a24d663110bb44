/**
 * The background copy: copies long stretches of unsynced blocks from the source, several at a time if that is faster,
 * and gives way to readers.
 *
 * A worker claims a stretch (stretches.ts), copies it and claims the next one. A stretch is one long request if the
 * source streams, and a run of reads otherwise. governor.ts decides how many workers there are and how long a stretch
 * is. A round ends when no worker finds a stretch; the copy ends with the round after which every block is synced.
 *
 * Invariants:
 * - The target's write of a block returns before the block is recorded.
 * - A block is recorded after all bytes of its stretch up to its end are on the target.
 * - The first failure ends the attempt and stops its workers. What came before the failure is recorded. The next
 *   attempt follows after a wait, for as long as the device lives.
 * - A pause ends the attempt as a failure does, without the wait.
 */

import { sharedAbort } from '../async/shared-abort.ts';
import { withSignal } from '../async/with-signal.ts';
import type { BlockRange } from '../core/runs.ts';
import { CodError } from '../errors.ts';
import type { Clock } from '../platform/clock.ts';
import type { WatchedRequest } from './diagnostics.ts';
import { Governor } from './governor.ts';
import { HydrationOrder } from './hydration-order.ts';
import { shareStreams } from './known-streams.ts';
import type { Origin } from './origin.ts';
import type { RateLimiter } from './rate-limiter.ts';
import type { Retries } from './retries.ts';
import { SourcePieces, wrongLength } from './source-pieces.ts';
import { type Stretch, Stretches, type StretchTarget } from './stretches.ts';
import type { DeviceState, HydrateOptions } from './types.ts';

/**
 * The target is flushed in the background after this many bytes. The disk writes while the copy continues, a user's
 * flush waits for less, and power loss costs little.
 */
const FLUSH_BYTES = 2 ** 26;
/** The same if writes bypass the page cache: there, flushes at 64 MiB cost 16 % of the copy's speed (2026). */
const DIRECT_FLUSH_BYTES = 2 ** 28;
/**
 * It is also flushed after this many bytes if this time has passed since the last flush began: a process that is killed
 * loses what was copied after the last flush. The first flushes of a device need less, each twice that of the one
 * before: a device that is killed early, again and again, gets further.
 */
const MIN_FLUSH_BYTES = 2 ** 24;
const FIRST_FLUSH_BYTES = 2 ** 18;
const FLUSH_INTERVAL_MS = 500;
/** If the copy does not fit on the disk, so much stays free for users' writes: this, and this part of the disk. */
const HELD_BACK_BYTES = 2 ** 26;
const HELD_BACK_PART = 0.01;
/** The room on the disk is asked for again after this many bytes. */
const ROOM_BYTES = 2 ** 26;
const PAUSED = new Error('the background copy is paused');

/** What the background copy needs of the target and of the state of the copy. */
export interface HydrationTarget extends StretchTarget {
  /** Number of synced blocks. */
  readonly syncedBlocks: number;
  /** The length in bytes that pieces should have. Undefined: the length does not matter. */
  readonly preferredWriteBytes: number | undefined;
  /** Stores bytes of the source wherever users have not written. Records nothing. Any offset and length. */
  fill(from: Uint8Array, offset: number): Promise<void>;
  /** As {@link fill} with zeros, for a range of whole blocks. */
  fillZeroes(offset: number, length: number): Promise<void>;
  /** Makes what was filled and recorded before durable. */
  flush(): Promise<void>;
}

/** Reads by users that wait for the source. The background copy gives way to them. */
export interface DemandReads {
  /** Whether a read waits for the source at this moment. */
  readonly busy: boolean;
  /** How long a piece of the copy gives way to them, at most. */
  readonly giveWayMs: number;
  /** Resolves when no read waits for the source. */
  idle(): Promise<void>;
}

/** Room on the disk in bytes. */
export interface Room {
  readonly free: number;
  readonly total: number;
  /** What the target has already. */
  readonly allocated: number;
}

export interface HydratorParts {
  readonly clock: Clock;
  readonly origin: Origin;
  readonly target: HydrationTarget;
  readonly demand: DemandReads;
  readonly retries: Retries;
  /** Resolves to the room on the target's disk, or to undefined if it is not known. */
  readonly room: () => Promise<Room | undefined>;
  /** Called after {@link Hydrator.state} may have changed. */
  readonly onChange: () => void;
}

export class Hydrator {
  readonly #clock: Clock;
  readonly #parts: HydratorParts;
  readonly #source: SourcePieces;
  readonly #target: HydrationTarget;
  readonly #demand: DemandReads;
  readonly #governor: Governor;
  readonly #order: HydrationOrder;
  readonly #stretches: Stretches;
  /** Ends the copy. */
  readonly #end = sharedAbort();
  /** Ends the present attempt. */
  #stop: AbortController = sharedAbort();
  #isPaused = false;
  #onResume: () => void = () => undefined;
  /** Bytes that may be copied before the room on the disk is asked for again. */
  #roomLeft = 0;
  /** Where the next stretch is looked for first. */
  #cursor = 0;
  #workers = 0;
  #requests = 0;
  /** Ends the present round. */
  #onIdle: () => void = () => undefined;
  #failure: { error: unknown } | undefined;
  #unflushedBytes = 0;
  #isFlushing = false;
  #minFlushBytes = FIRST_FLUSH_BYTES;
  #flushedAtMs: number;

  constructor(parts: HydratorParts, options: HydrateOptions) {
    const { clock, origin, target, demand, retries } = parts;
    this.#parts = parts;
    this.#clock = clock;
    this.#source = new SourcePieces(origin);
    this.#target = target;
    this.#demand = demand;
    this.#governor = new Governor(clock, {
      ...options,
      // Most sources stream, so one that is not here yet counts as such.
      get streams() {
        return origin.source === undefined || origin.source.stream !== undefined;
      },
    });
    this.#order = new HydrationOrder(options.order ?? [], target.geometry);
    this.#flushedAtMs = clock.now();
    this.#stretches = new Stretches({
      clock,
      target,
      onRecord: () => retries.succeeded(),
      onRecordFailure: (error) => this.#stop.abort(error),
    });
  }

  /** Whether stretches are in flight, as fast as they can be copied. */
  get isAtFullSpeed(): boolean {
    return this.#workers > 0 && this.limiter.rate === undefined;
  }

  /** What the copy does, as long as it has not ended. */
  get state(): DeviceState & ('hydrating' | 'paused' | 'waiting') {
    if (this.#isPaused) return 'paused';
    const { origin, retries } = this.#parts;
    return origin.source === undefined || retries.isRetrying ? 'waiting' : 'hydrating';
  }

  /** Bytes taken from the source so far. */
  get bytes(): number {
    return this.#governor.bytes;
  }

  /** Requests begun so far. */
  get requests(): number {
    return this.#requests;
  }

  /** Current speed, all stretches together. */
  get bytesPerSecond(): number {
    return this.#governor.bytesPerMs * 1000;
  }

  get limiter(): RateLimiter {
    return this.#governor.limiter;
  }

  /**
   * Copies until every block is synced.
   * @throws the reason of {@link stop}.
   */
  async run(): Promise<void> {
    const { signal } = this.#end;
    const governing = this.#governor.run(signal, () => {
      // Without a worker the round is over, and the next one starts all of them.
      if (this.#workers > 0) this.#startWorkers();
    });
    try {
      while (this.#target.syncedBlocks < this.#target.geometry.blockCount) {
        signal.throwIfAborted();
        if (this.#isPaused) await withSignal(new Promise<void>((resolve) => (this.#onResume = resolve)), signal);
        else await this.#try();
      }
    } finally {
      this.#end.abort(undefined);
      await governing;
    }
  }

  /** Ends the copy with `reason`, at the next piece. */
  stop(reason: unknown): void {
    this.#end.abort(reason);
    this.#stop.abort(reason);
  }

  /** Ends the requests in flight, at their next piece, and begins none until {@link resume}. */
  pause(): void {
    this.#isPaused = true;
    this.#stop.abort(PAUSED);
    this.#parts.retries.wake();
    this.#parts.onChange();
  }

  resume(): void {
    this.#isPaused = false;
    this.#onResume();
    this.#parts.onChange();
  }

  /** One attempt, and the wait after its failure. */
  async #try(): Promise<void> {
    const { origin, retries } = this.#parts;
    this.#stop = sharedAbort();
    this.#failure = undefined;
    const { signal } = this.#stop;
    try {
      await withSignal(origin.mayCome ? origin.obtain() : new Promise(() => undefined), signal);
      shareStreams?.(this.#governor, origin);
      await this.#findRoom();
      await this.#round();
      if (this.#failure !== undefined) throw (this.#failure as { error: unknown }).error;
      signal.throwIfAborted();
    } catch (error) {
      this.#end.signal.throwIfAborted();
      if (!this.#isPaused) await retries.wait(error, this.#end.signal);
    }
  }

  /**
   * Makes sure that the copy leaves room for users' writes, if it does not fit on the disk as a whole.
   * @throws {@link CodError} COD_NO_SPACE
   */
  async #findRoom(): Promise<void> {
    this.#roomLeft = ROOM_BYTES;
    const room = await this.#parts.room();
    const { syncedBlocks, geometry } = this.#target;
    if (room === undefined) return;
    // A target that was allocated before, such as by fallocate, needs no further room.
    const missing = Math.min((geometry.blockCount - syncedBlocks) * geometry.blockSize, geometry.size - room.allocated);
    if (room.free >= missing) return;
    const heldBack = Math.max(HELD_BACK_BYTES, room.total * HELD_BACK_PART);
    this.#roomLeft = Math.min(ROOM_BYTES, room.free - heldBack);
    if (this.#roomLeft > 0) return;
    throw new CodError(
      'COD_NO_SPACE',
      `the disk has ${room.free} bytes free, and the copy needs ${missing}; ` +
        `it leaves ${Math.round(heldBack)} bytes to writes: make room`,
    );
  }

  /**
   * Returns a promise for when a reader should look for these blocks again, if the copy reaches them sooner than a
   * request of the reader's own. The blocks may still be missing then, since a stretch may fail.
   */
  reaching(blocks: BlockRange): Promise<void> | undefined {
    return this.#stretches.reaching(blocks, this.#governor.reachBytes(this.#stretches.size));
  }

  /** Runs workers until none of them finds a stretch. */
  #round(): Promise<void> {
    return new Promise((resolve) => {
      this.#onIdle = resolve;
      this.#startWorkers();
    });
  }

  #startWorkers(): void {
    while (this.#failure === undefined && !this.#stop.signal.aborted) {
      const stretch = this.#claimOrdered() ?? this.#claimNext();
      if (stretch === undefined) break;
      this.#workers++;
      void this.#work(stretch).then(() => {
        this.#workers--;
        this.#startWorkers();
      });
    }
    if (this.#workers === 0) this.#onIdle();
  }

  async #work(stretch: Stretch): Promise<void> {
    try {
      await this.#copy(stretch);
    } catch (error) {
      this.#failure ??= { error };
      this.#stop.abort(error);
    } finally {
      this.#stretches.finish(stretch);
    }
  }

  /** Claims the next stretch of the order, unless enough of them are in flight. */
  #claimOrdered(): Stretch | undefined {
    if (this.#workers >= this.#governor.orderedStretchCount) return undefined;
    const blocks = this.#order.next(this.#target, (block) => this.#stretches.takenBy(block));
    if (blocks === undefined) return undefined;
    return this.#stretches.begin({ start: blocks.start, end: Math.min(blocks.end, this.#endOf(blocks.start)) });
  }

  /** Claims the next stretch from the cursor on, or else from the start, unless enough are in flight. */
  #claimNext(): Stretch | undefined {
    if (this.#workers >= this.#governor.stretchCount) return undefined;
    for (const from of [this.#cursor, 0]) {
      const start = this.#stretches.nextFree(from);
      if (start >= this.#target.geometry.blockCount) continue;
      this.#cursor = this.#endOf(start);
      return this.#stretches.begin({ start, end: this.#cursor });
    }
    return undefined;
  }

  #endOf(start: number): number {
    const inFlight = this.#stretches.size;
    const { syncedBlocks, geometry } = this.#target;
    const restBytes = (geometry.blockCount - syncedBlocks) * geometry.blockSize;
    return this.#stretches.endOf(start, {
      maxBytes: this.#governor.stretchBytes(inFlight, restBytes),
      skipBytes: this.#governor.skipBytes(inFlight),
    });
  }

  /** Copies a stretch: data from the source, and zeros where the source knows of them. */
  async #copy(stretch: Stretch): Promise<void> {
    const { blockSize, size } = this.#target.geometry;
    let end = stretch.at;
    const extents = await this.#source.extents(end, Math.min(stretch.end * blockSize, size) - end);
    for (const { length, zero } of extents) {
      end += length;
      const firstZero = Math.ceil(stretch.at / blockSize);
      const endZero = end === size ? stretch.end : Math.floor(end / blockSize);
      // A block that is zero only in part is copied together with its neighbours.
      if (zero && firstZero < endZero) {
        if (!(await this.#copyData(stretch, firstZero * blockSize))) return;
        await this.#target.fillZeroes(stretch.at, Math.min(endZero * blockSize, size) - stretch.at);
        await stretch.recordZeroes(endZero);
      }
      if (!(await this.#copyData(stretch, end))) return;
    }
  }

  /** Copies and records the bytes up to the offset `end`. Resolves to false if the rate ended the stretch before. */
  async #copyData(stretch: Stretch, end: number): Promise<boolean> {
    const start = stretch.at;
    if (start >= end) return true;
    await this.#turn(stretch);
    stretch.beginRequest();
    const watched = this.#parts.origin.diagnostics?.request('background', start, end - start);
    let isCutShort: boolean;
    try {
      isCutShort = await this.#receive(stretch, end, watched);
      watched?.ended(stretch.at - start);
    } catch (error) {
      watched?.ended(stretch.at - start, error);
      // What came before the failure is kept if it can be recorded. The first failure is the cause of any other.
      await stretch.recordAll().catch(() => undefined);
      throw error;
    }
    await stretch.recordAll();
    if (stretch.at === end) return true;
    // Continuing would record the missing bytes together with those that follow.
    if (!isCutShort) throw wrongLength(start, end - start, `${stretch.at - start}`);
    this.#cursor = Math.min(this.#cursor, stretch.filled);
    return false;
  }

  /** Requests the bytes up to the offset `end` and stores them. Resolves to true if the rate cut the request short. */
  async #receive(stretch: Stretch, end: number, watched: WatchedRequest | undefined): Promise<boolean> {
    const start = stretch.at;
    const { signal } = this.#stop;
    const askedMs = this.#clock.now();
    this.#requests++;
    for await (const piece of this.#source.request(start, end - start, { signal, pieceBytes: this.#pieceBytes })) {
      if (stretch.at === start) {
        const responseMs = this.#clock.now() - askedMs;
        this.#governor.answeredAfter(responseMs);
        watched?.answered(responseMs);
      }
      const received = stretch.at + piece.length - start;
      if (received > end - start) throw wrongLength(start, end - start, `${received} or more`);
      await this.#target.fill(piece, stretch.at);
      stretch.advance(piece.length);
      this.#governor.count(piece.length);
      this.#flushAfter(piece.length);
      this.#roomLeft -= piece.length;
      if (this.#roomLeft <= 0) await this.#findRoom();
      if (stretch.isRecordDue) await stretch.startNextRecord();
      // At least one block must be whole, so that the next request for the stretch gets further.
      if (stretch.at < end && stretch.filled > stretch.start && this.#governor.isHeldUp) return true;
      await this.#turn(stretch);
      signal.throwIfAborted();
    }
    return false;
  }

  /** Waits until the copy may take more: the rate allows it, and no reader waits for the source. */
  async #turn(stretch: Stretch): Promise<void> {
    const { signal } = this.#stop;
    signal.throwIfAborted();
    if (this.#governor.isHeldBack) stretch.wakeAll();
    await this.#governor.limiter.wait(signal);
    const { busy, giveWayMs } = this.#demand;
    if (!busy || giveWayMs === 0) return;
    const patience = new AbortController();
    await Promise.race([this.#demand.idle(), this.#clock.sleep(giveWayMs, patience.signal).catch(() => undefined)]);
    patience.abort();
    signal.throwIfAborted();
  }

  /** Counts bytes that were stored, and starts a flush if there are enough of them. */
  #flushAfter(bytes: number): void {
    this.#unflushedBytes += bytes;
    if (this.#isFlushing || !this.#isFlushDue) return;
    this.#unflushedBytes = 0;
    this.#minFlushBytes = Math.min(MIN_FLUSH_BYTES, 2 * this.#minFlushBytes);
    this.#flushedAtMs = this.#clock.now();
    this.#isFlushing = true;
    this.#target
      .flush()
      // A device that cannot flush rejects the next record, too.
      .catch(() => undefined)
      .finally(() => {
        this.#isFlushing = false;
      });
  }

  get #isFlushDue(): boolean {
    if (this.#unflushedBytes < this.#minFlushBytes) return false;
    const limit = this.#pieceBytes === undefined ? FLUSH_BYTES : DIRECT_FLUSH_BYTES;
    return this.#unflushedBytes >= limit || this.#clock.now() - this.#flushedAtMs >= FLUSH_INTERVAL_MS;
  }

  get #pieceBytes(): number | undefined {
    return this.#governor.pieceBytes(this.#target.preferredWriteBytes);
  }
}
