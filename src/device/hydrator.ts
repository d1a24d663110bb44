/**
 * The background copy: takes long stretches of unsynced blocks from the source, several at a time where that is faster, and gives way to readers.
 *
 * A stretch is one long request where the source can stream, else a run of reads. Its length grows with what a request costs before its first byte, so that
 * waiting stays a small part of the time. What is synced, or known to be zero, is skipped.
 */

import type { Geometry } from '../core/geometry.ts';
import { CodError } from '../errors.ts';
import type { Clock } from '../platform/clock.ts';
import type { Source } from '../sources/source.ts';
import { Governor } from './governor.ts';
import { HydrationOrder } from './hydration-order.ts';
import type { RateLimiter } from './rate-limiter.ts';
import type { BlockRange } from './target-store.ts';
import type { HydrateOptions } from './types.ts';

/** Of sources that do not stream. Two pieces fit into a core's cache, and two threads do not fight for the file: twice as fast as four of 1 MiB (Node 20, ext4, two cores, 2026). */
const READ_BYTES = 2 ** 19;
/**
 * After so many bytes the target is flushed in the background: the disk writes while we copy, which is faster in all, users' flushes do not wait for
 * what the copy has left in the page cache, and power loss costs little.
 */
const FLUSH_BYTES = 2 ** 26;
/** Where nothing is left in the page cache, only the last reason is left: a flush holds up the writes that are under way (16 % of a copy's speed at 64 MiB). */
const DIRECT_FLUSH_BYTES = 2 ** 28;
/** Whole blocks are recorded when so many bytes of them have come, or so much time has passed, or a reader waits for them. */
const RECORD_BYTES = 2 ** 20;
const RECORD_MS = 250;
/** How long a reader can hold a piece of the background copy up. */
const GIVE_WAY_MS = 20;

/** What the background copy needs of the target and of the state of the copy. */
export interface HydrationTarget {
  readonly geometry: Geometry;
  /** Number of synced blocks. */
  readonly syncedBlocks: number;
  /** The first unsynced block of [from, limit), or `limit`. Default of `limit`: the number of blocks. */
  nextUnsynced(from: number, limit?: number): number;
  /** The first synced block of [from, limit), or `limit`. Default of `limit`: the number of blocks. */
  nextSynced(from: number, limit?: number): number;
  /** The length in bytes that pieces should have. Undefined: the length does not matter. */
  readonly preferredWriteBytes: number | undefined;
  /** Stores bytes of the source wherever users have not written. Records nothing. Any offset and length. */
  fill(from: Uint8Array, offset: number): Promise<void>;
  /** As {@link fill} with zeros, for a range of whole blocks. */
  fillZeroes(offset: number, length: number): Promise<void>;
  /** Records that whole blocks are complete. All of their bytes were filled before. */
  filled(blocks: BlockRange): Promise<void>;
  /** Makes what was filled and recorded before durable. */
  flush(): Promise<void>;
}

/** Reads by users that wait for the source. The background copy gives way to them. */
export interface DemandReads {
  /** Whether a read waits for the source at this moment. */
  readonly busy: boolean;
  /** Resolves when no read waits for the source. */
  idle(): Promise<void>;
}

/** A stretch under way; readers may wait for blocks just ahead of it. */
interface Stretch extends BlockRange {
  /** Blocks below this are in the target and recorded, or were before. */
  recorded: number;
  /** Blocks below this are in the target, though perhaps not recorded yet. */
  filled: number;
  /** Records them now. */
  record: () => void;
  readonly waiting: { readonly block: number; readonly wake: () => void }[];
}

export class Hydrator {
  readonly #clock: Clock;
  readonly #source: Source;
  readonly #target: HydrationTarget;
  readonly #demand: DemandReads;
  readonly #governor: Governor;
  readonly #stop: AbortController = new AbortController();
  readonly #stretches = new Set<Stretch>();
  readonly #idleBuffers: Uint8Array[] = [];
  readonly #order: HydrationOrder;
  #cursor = 0;
  #workers = 0;
  #onIdle: () => void = () => undefined;
  #unflushedBytes = 0;
  #flushing = false;
  #failure: { error: unknown } | undefined;

  constructor(clock: Clock, source: Source, target: HydrationTarget, demand: DemandReads, options: HydrateOptions) {
    this.#clock = clock;
    this.#source = source;
    this.#target = target;
    this.#demand = demand;
    this.#order = new HydrationOrder(options.order ?? [], target.geometry);
    this.#governor = new Governor(clock, { ...options, streams: source.stream !== undefined });
  }

  /** Bytes taken from the source so far. */
  get bytes(): number {
    return this.#governor.bytes;
  }

  /** What it takes at the moment, all streams together. */
  get bytesPerSecond(): number {
    return this.#governor.bytesPerMs * 1000;
  }

  get limiter(): RateLimiter {
    return this.#governor.limiter;
  }

  /** Copies until every block is synced. @throws what the source or the target says; the reason of {@link stop}. */
  async run(): Promise<void> {
    const governing = this.#governor.run(this.#stop.signal, () => {
      // No worker: the round is over, and the next begins with as many as are wanted.
      if (this.#workers > 0) this.#startWorkers();
    });
    try {
      while (this.#target.syncedBlocks < this.#target.geometry.blockCount) {
        await this.#round();
        if (this.#failure !== undefined) throw this.#failure.error;
        this.#stop.signal.throwIfAborted();
      }
    } finally {
      this.#stop.abort(undefined);
      await governing;
    }
  }

  /** Ends the copy with `reason`, at the next piece. */
  stop(reason: unknown): void {
    this.#stop.abort(reason);
  }

  /** Runs workers until none finds anything to do. */
  #round(): Promise<void> {
    return new Promise((resolve) => {
      this.#onIdle = resolve;
      this.#startWorkers();
    });
  }

  #startWorkers(): void {
    while (this.#failure === undefined && !this.#stop.signal.aborted) {
      const stretch =
        this.#workers < this.#governor.orderedStretchCount ? (this.#claimOrdered() ?? this.#claim()) : this.#claim();
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
      this.#stretches.delete(stretch);
      for (const { wake } of stretch.waiting) wake();
    }
  }

  /** The next stretch of what is to come first. */
  #claimOrdered(): Stretch | undefined {
    const blocks = this.#order.next(this.#target, (block) => this.#taken(block));
    if (blocks === undefined) return undefined;
    return this.#begin(blocks.start, Math.min(blocks.end, this.#end(blocks.start)));
  }

  /** The next stretch that nobody has, from where the last one ended on, and round once; none if as many are under way as are wanted. */
  #claim(): Stretch | undefined {
    if (this.#workers >= this.#governor.stretchCount) return undefined;
    for (const from of [this.#cursor, 0]) {
      let start = this.#target.nextUnsynced(from);
      for (let taken = this.#taken(start); taken !== undefined; taken = this.#taken(start))
        start = this.#target.nextUnsynced(taken.end);
      if (start >= this.#target.geometry.blockCount) continue;
      const end = this.#end(start);
      this.#cursor = end;
      return this.#begin(start, end);
    }
    return undefined;
  }

  #begin(start: number, end: number): Stretch {
    const stretch: Stretch = { start, end, recorded: start, filled: start, record: () => undefined, waiting: [] };
    this.#stretches.add(stretch);
    return stretch;
  }

  #taken(block: number): Stretch | undefined {
    for (const stretch of this.#stretches) if (stretch.start <= block && block < stretch.end) return stretch;
    return undefined;
  }

  /** Where a stretch from `start` on ends: before a long run of synced blocks, another's stretch, or its length. */
  #end(start: number): number {
    const { blockSize, blockCount } = this.#target.geometry;
    const bytes = this.#governor.stretchBytes(this.#stretches.size);
    let limit = Math.min(blockCount, start + Math.max(1, Math.ceil(bytes / blockSize)));
    for (const stretch of this.#stretches) if (stretch.start > start) limit = Math.min(limit, stretch.start);
    const skip = this.#governor.skipBytes(this.#stretches.size) / blockSize;
    for (let end = start; ; ) {
      end = this.#target.nextSynced(end, limit);
      if (end >= limit) return limit;
      const next = this.#target.nextUnsynced(end, limit);
      if (next >= limit || next - end >= skip) return end;
      end = next;
    }
  }

  async #copy(stretch: Stretch): Promise<void> {
    const { blockSize, size } = this.#target.geometry;
    const start = stretch.start * blockSize;
    const end = Math.min(stretch.end * blockSize, size);
    let at = start;
    const runs = (await this.#source.extents?.(start, end - start)) ?? [{ length: end - start, zero: false }];
    const known = runs.reduce((sum, { length }) => sum + length, 0);
    if (known !== end - start) throw wrongLength(start, end, `extents of ${known}`);
    for (const run of runs) {
      if (run.zero) {
        const whole = {
          start: Math.ceil(at / blockSize),
          end: at + run.length === size ? stretch.end : Math.floor((at + run.length) / blockSize),
        };
        // Blocks that are zero only in part come with their neighbours, below.
        if (whole.end > whole.start) {
          if (!(await this.#copyData(stretch, at, Math.min(whole.start * blockSize, size)))) return;
          await this.#target.fillZeroes(
            whole.start * blockSize,
            Math.min(whole.end * blockSize, size) - whole.start * blockSize,
          );
          await this.#recorded(stretch, whole.end);
          at += run.length;
          if (!(await this.#copyData(stretch, Math.min(whole.end * blockSize, size), at))) return;
          continue;
        }
      }
      if (!(await this.#copyData(stretch, at, at + run.length))) return;
      at += run.length;
    }
  }

  /** Copies bytes that continue what the stretch has so far; blocks are recorded as they become whole. Resolves to whether it got to `end`. */
  async #copyData(stretch: Stretch, start: number, end: number): Promise<boolean> {
    if (start >= end) return true;
    const { blockSize, size } = this.#target.geometry;
    const { signal } = this.#stop;
    let at = start;
    let recordedAt = at;
    await this.#turn(stretch);
    const asked = this.#clock.now();
    let recordedMs = asked;
    /** Records what is whole by now. */
    const record = (): Promise<void> => {
      recordedAt = at;
      recordedMs = this.#clock.now();
      return this.#recorded(stretch, stretch.filled);
    };
    let isGivenUp = false;
    let recording: Promise<unknown> = Promise.resolve();
    stretch.record = () => {
      recording = Promise.all([recording, record()]);
      // A reader may wait for it, and the next piece may be long in coming.
      recording.catch((error: unknown) => this.#stop.abort(error));
    };
    try {
      for await (const piece of this.#pieces(at, end - at)) {
        if (at === start) {
          this.#governor.answeredAfter(this.#clock.now() - asked);
        }
        if (at + piece.length > end) throw wrongLength(start, end, `${at - start + piece.length} or more`);
        await this.#target.fill(piece, at);
        at += piece.length;
        stretch.filled = at === size ? stretch.end : Math.floor(at / blockSize);
        this.#count(piece.length);
        if (
          at - recordedAt >= RECORD_BYTES ||
          stretch.waiting.length > 0 ||
          this.#clock.now() - recordedMs >= RECORD_MS
        ) {
          await recording;
          stretch.record();
        }
        // Not before a block is whole: a stretch that is asked for again must get further.
        isGivenUp = at < end && stretch.filled > stretch.start && this.#governor.isHeldUp;
        if (isGivenUp) break;
        await this.#turn(stretch);
        signal.throwIfAborted();
      }
    } catch (error) {
      // What came before the fault is kept where it can be; it is the fault that is told, not what it led to.
      await recording.then(record).catch(() => undefined);
      throw error;
    }
    await recording;
    await record();
    if (at === end) return true;
    // What follows would be recorded together with what is missing here.
    if (!isGivenUp) throw wrongLength(start, end, `${at - start}`);
    this.#cursor = Math.min(this.#cursor, stretch.filled);
    return false;
  }

  #count(bytes: number): void {
    this.#governor.count(bytes);
    this.#unflushedBytes += bytes;
    if (this.#unflushedBytes < (this.#pieceBytes === undefined ? FLUSH_BYTES : DIRECT_FLUSH_BYTES) || this.#flushing)
      return;
    this.#unflushedBytes = 0;
    this.#flushing = true;
    this.#target
      .flush()
      .catch(() => undefined)
      .finally(() => {
        this.#flushing = false;
      });
  }

  async #recorded(stretch: Stretch, end: number): Promise<void> {
    if (end <= stretch.recorded) return;
    const start = stretch.recorded;
    await this.#target.filled({ start, end });
    stretch.recorded = Math.max(stretch.recorded, end);
    stretch.filled = Math.max(stretch.filled, end);
    const still = stretch.waiting.splice(0);
    for (const waiter of still) {
      if (waiter.block < end) waiter.wake();
      else stretch.waiting.push(waiter);
    }
  }

  /** Waits until this copy may take more: within its rate, and not in a reader's way. */
  async #turn(stretch: Stretch): Promise<void> {
    const { signal } = this.#stop;
    signal.throwIfAborted();
    if (this.#governor.isHeldBack) for (const { wake } of stretch.waiting.splice(0)) wake();
    await this.#governor.limiter.wait(signal);
    if (!this.#demand.busy) return;
    const patience = new AbortController();
    await Promise.race([this.#demand.idle(), this.#clock.sleep(GIVE_WAY_MS, patience.signal).catch(() => undefined)]);
    patience.abort();
    signal.throwIfAborted();
  }

  get #pieceBytes(): number | undefined {
    return this.#governor.pieceBytes(this.#target.preferredWriteBytes);
  }

  #pieces(offset: number, length: number): AsyncIterable<Uint8Array> {
    const { signal } = this.#stop;
    return (
      this.#source.stream?.(offset, length, { signal, pieceBytes: this.#pieceBytes }) ?? this.#reads(offset, length)
    );
  }

  async *#reads(offset: number, length: number): AsyncGenerator<Uint8Array> {
    const { signal } = this.#stop;
    const buffer = this.#idleBuffers.pop() ?? new Uint8Array(READ_BYTES);
    try {
      for (let at = 0; at < length; ) {
        const piece = buffer.subarray(0, Math.min(READ_BYTES, length - at));
        signal.throwIfAborted();
        await this.#source.read(piece, offset + at, { signal });
        yield piece;
        at += piece.length;
      }
    } finally {
      this.#idleBuffers.push(buffer);
    }
  }

  /**
   * A promise for the moment when these blocks have been dealt with, if a stretch under way is about to reach them sooner than a request of
   * their own would. Look again afterwards: the stretch may have failed.
   */
  reaching(blocks: BlockRange): Promise<void> | undefined {
    const { blockSize } = this.#target.geometry;
    const reach = this.#governor.reachBytes(this.#stretches.size);
    for (const stretch of this.#stretches) {
      if (blocks.start < stretch.recorded || blocks.end > stretch.end) continue;
      const ahead = (blocks.end - stretch.filled) * blockSize;
      if (ahead > 0 && ahead > reach) continue;
      const reached = new Promise<void>((wake) => stretch.waiting.push({ block: blocks.end - 1, wake }));
      if (ahead <= 0) stretch.record();
      return reached;
    }
    return undefined;
  }
}

function wrongLength(start: number, end: number, found: string): CodError {
  return new CodError(
    'COD_SOURCE_IO',
    `the source gave ${found} bytes instead of ${end - start} from offset ${start} on`,
    {
      details: { offset: start, length: end - start },
    },
  );
}
