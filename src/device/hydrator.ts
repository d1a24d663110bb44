/**
 * The background copy: takes long stretches of unsynced blocks from the source, several at a time where that is faster, and gives way to readers.
 *
 * A stretch is one long request where the source can stream, else a run of reads. Its length grows with what a request costs before its first byte, so that
 * waiting stays a small part of the time. What is synced, or known to be zero, is skipped.
 */

import type { ByteExtent } from '../core/range-set.ts';
import { CodError } from '../errors.ts';
import type { Clock } from '../platform/clock.ts';
import type { InlineSource } from '../sources/source.ts';
import type { Fetcher } from './fetcher.ts';
import { HydrationOrder } from './hydration-order.ts';
import { RateLimiter } from './rate-limiter.ts';
import type { BlockRange, TargetStore } from './target-store.ts';

/** How the background copy is to be done; all of it is found out where it is not given. */
export interface HydrateOptions {
  /** Stretches under way at a time. Default: as many as make it faster, 8 at most. */
  readonly concurrency?: number;
  /** Length of a stretch in bytes. Default: fitted to the latency and the rate. */
  readonly extentBytes?: number;
  /** What the background copy takes from the source at most, readers' demand counted in. Default: no limit. */
  readonly rateBytesPerSecond?: number;
  /** What is copied first, in this order, as a {@link ReadRecorder} noted it in another run; the rest follows. Extents may overlap. Default: none. */
  readonly order?: readonly ByteExtent[];
}

const MIN_STRETCH_BYTES = 2 ** 23;
/** Of a stream, as long as nothing is known of the source. */
const FIRST_STRETCH_BYTES = 2 ** 26;
const MAX_STRETCH_BYTES = 2 ** 28;
/** A stretch takes this many times as long as the wait for its first byte. */
const LATENCY_FACTOR = 64;
/**
 * Within a rate a stretch is what the rate gives in so much time: browsers go on receiving what nobody reads yet, up to 64 MiB (Chromium 156) or all of it
 * (Firefox 153), so that only the end of a request ends what it takes from the network.
 */
const RATED_STRETCH_MS = 16_000;
/**
 * A stretch that would be held up for longer is given up, and asked for again when its time comes. Servers end such connections, too. Not one whose length was given:
 * of a server without ranges the rest costs all that lies before it.
 */
const HELD_UP_MS = 16_000;
/** Of sources that do not stream. Two pieces fit into a core's cache, and two threads do not fight for the file: twice as fast as four of 1 MiB (Node 20, ext4, two cores, 2026). */
const READ_BYTES = 2 ** 19;
const READ_CONCURRENCY = 2;
const MAX_CONCURRENCY = 8;
/** What is to come first is in short stretches, most of whose time is waiting. One of a browser's six connections is left to readers. */
const ORDER_CONCURRENCY = 4;
/** Synced blocks shorter than this are read over rather than skipped, at least. */
const MIN_SKIP_BYTES = 2 ** 18;
/** Within a rate, pieces as long as the target would like them are asked for only if so many come in a second. */
const RATED_PIECES_PER_SECOND = 10;
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
const WINDOW_MS = 500;
/** How much faster one more stream must make it to be kept. */
const WORTH_IT = 1.1;
const RETRY_MORE_MS = 15_000;

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
  readonly #source: InlineSource;
  readonly #store: TargetStore;
  readonly #fetcher: Fetcher;
  readonly #options: HydrateOptions;
  readonly #limiter: RateLimiter;
  readonly #stop: AbortController = new AbortController();
  readonly #stretches = new Set<Stretch>();
  readonly #idleBuffers: Uint8Array[] = [];
  readonly #order: HydrationOrder;
  #cursor = 0;
  #wanted = 1;
  #workers = 0;
  #onIdle: () => void = () => undefined;
  #latencyMs: number | undefined;
  #bytesPerMs: number | undefined;
  #begunMs = 0;
  #bytes = 0;
  #unflushedBytes = 0;
  #flushing = false;
  #failure: { error: unknown } | undefined;

  constructor(clock: Clock, source: InlineSource, store: TargetStore, fetcher: Fetcher, options: HydrateOptions) {
    this.#clock = clock;
    this.#source = source;
    this.#store = store;
    this.#fetcher = fetcher;
    this.#options = options;
    this.#order = new HydrationOrder(options.order ?? [], store.journal.geometry);
    this.#limiter = new RateLimiter(clock, options.rateBytesPerSecond);
  }

  /** Bytes taken from the source so far. */
  get bytes(): number {
    return this.#bytes;
  }

  /** What it takes at the moment, all streams together. */
  get bytesPerSecond(): number {
    return this.#rate * 1000;
  }

  get limiter(): RateLimiter {
    return this.#limiter;
  }

  /** Copies until every block is synced. @throws what the source or the target says; the reason of {@link stop}. */
  async run(): Promise<void> {
    const { map, geometry } = this.#store.journal;
    this.#begunMs = this.#clock.now();
    this.#wanted = this.#options.concurrency ?? (this.#source.stream === undefined ? READ_CONCURRENCY : 1);
    const governor = this.#govern({ adjust: this.#options.concurrency === undefined });
    try {
      while (map.count < geometry.blockCount) {
        await this.#round();
        if (this.#failure !== undefined) throw this.#failure.error;
        this.#stop.signal.throwIfAborted();
      }
    } finally {
      this.#stop.abort(undefined);
      await governor;
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
      const stretch = this.#workers < this.#orderWanted ? (this.#claimOrdered() ?? this.#claim()) : this.#claim();
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

  /** Stretches of the order at a time. Within a rate they would only slow down the first of them. */
  get #orderWanted(): number {
    const fixed = this.#options.concurrency !== undefined || this.#limiter.rate !== undefined;
    return fixed ? this.#wanted : Math.max(this.#wanted, ORDER_CONCURRENCY);
  }

  /** The next stretch of what is to come first. */
  #claimOrdered(): Stretch | undefined {
    const blocks = this.#order.next(this.#store.journal.map, (block) => this.#taken(block));
    if (blocks === undefined) return undefined;
    return this.#begin(blocks.start, Math.min(blocks.end, this.#end(blocks.start)));
  }

  /** The next stretch that nobody has, from where the last one ended on, and round once; none if as many are under way as are wanted. */
  #claim(): Stretch | undefined {
    if (this.#workers >= this.#wanted) return undefined;
    const { map, geometry } = this.#store.journal;
    for (const from of [this.#cursor, 0]) {
      let start = map.nextUnsynced(from);
      for (let taken = this.#taken(start); taken !== undefined; taken = this.#taken(start))
        start = map.nextUnsynced(taken.end);
      if (start >= geometry.blockCount) continue;
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
    const { map, geometry } = this.#store.journal;
    const { blockSize, blockCount } = geometry;
    const bytes = this.#options.extentBytes ?? this.#fittedBytes;
    let limit = Math.min(blockCount, start + Math.max(1, Math.ceil(bytes / blockSize)));
    for (const stretch of this.#stretches) if (stretch.start > start) limit = Math.min(limit, stretch.start);
    const skip = Math.max(MIN_SKIP_BYTES, (this.#latencyMs ?? 0) * this.#streamRate) / blockSize;
    for (let end = start; ; ) {
      end = map.nextSynced(end, limit);
      if (end >= limit) return limit;
      const next = map.nextUnsynced(end, limit);
      if (next >= limit || next - end >= skip) return end;
      end = next;
    }
  }

  get #fittedBytes(): number {
    const { rate = Number.POSITIVE_INFINITY } = this.#limiter;
    return Math.min(this.#unratedBytes, (rate / 1000) * RATED_STRETCH_MS);
  }

  get #unratedBytes(): number {
    if (this.#source.stream === undefined) return MIN_STRETCH_BYTES;
    if (this.#latencyMs === undefined || this.#streamRate === 0) return FIRST_STRETCH_BYTES;
    return Math.min(
      MAX_STRETCH_BYTES,
      Math.max(MIN_STRETCH_BYTES, this.#latencyMs * this.#streamRate * LATENCY_FACTOR),
    );
  }

  /** Bytes per ms, all streams together: of the last window, or since the beginning as long as none has ended. */
  get #rate(): number {
    return this.#bytesPerMs ?? this.#bytes / Math.max(1, this.#clock.now() - this.#begunMs);
  }

  /** Bytes per ms of one stream; 0 as long as it is not known, and where there are none. */
  get #streamRate(): number {
    return this.#source.stream === undefined ? 0 : this.#rate / Math.max(1, this.#stretches.size);
  }

  async #copy(stretch: Stretch): Promise<void> {
    const { blockSize, size } = this.#store.journal.geometry;
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
          await this.#store.fillZeroes(
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
    const { blockSize, size } = this.#store.journal.geometry;
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
          const waited = this.#clock.now() - asked;
          this.#latencyMs = this.#latencyMs === undefined ? waited : this.#latencyMs + (waited - this.#latencyMs) / 4;
        }
        if (at + piece.length > end) throw wrongLength(start, end, `${at - start + piece.length} or more`);
        await this.#store.fill(piece, at);
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
        isGivenUp =
          this.#options.extentBytes === undefined &&
          at < end &&
          stretch.filled > stretch.start &&
          this.#limiter.delayMs > HELD_UP_MS;
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
    this.#bytes += bytes;
    this.#limiter.spend(bytes);
    this.#unflushedBytes += bytes;
    if (this.#unflushedBytes < (this.#pieceBytes === undefined ? FLUSH_BYTES : DIRECT_FLUSH_BYTES) || this.#flushing)
      return;
    this.#unflushedBytes = 0;
    this.#flushing = true;
    this.#store.journal
      .flush()
      .catch(() => undefined)
      .finally(() => {
        this.#flushing = false;
      });
  }

  async #recorded(stretch: Stretch, end: number): Promise<void> {
    if (end <= stretch.recorded) return;
    const start = stretch.recorded;
    await this.#store.filled({ start, end });
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
    if (this.#isHeldBack) for (const { wake } of stretch.waiting.splice(0)) wake();
    await this.#limiter.wait(signal);
    if (!this.#fetcher.busy) return;
    const patience = new AbortController();
    await Promise.race([this.#fetcher.idle(), this.#clock.sleep(GIVE_WAY_MS, patience.signal).catch(() => undefined)]);
    patience.abort();
    signal.throwIfAborted();
  }

  /** Whether the rate lets this copy wait for longer than a request of a reader's own takes. */
  get #isHeldBack(): boolean {
    return this.#limiter.delayMs > (this.#latencyMs ?? 0);
  }

  get #pieceBytes(): number | undefined {
    const { preferredWriteBytes: bytes } = this.#store;
    const { rate = Number.POSITIVE_INFINITY } = this.#limiter;
    return bytes !== undefined && bytes * RATED_PIECES_PER_SECOND <= rate ? bytes : undefined;
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

  /** Measures; where it may `adjust`, tries one more stream from time to time, and keeps it if it made the copy faster. */
  async #govern({ adjust }: { adjust: boolean }): Promise<void> {
    const { signal } = this.#stop;
    let before = { bytes: this.#bytes, now: this.#clock.now(), rate: 0 };
    let tried = false;
    let quietUntil = 0;
    while (!signal.aborted) {
      await this.#clock.sleep(WINDOW_MS, signal).catch(() => undefined);
      const now = this.#clock.now();
      const rate = (this.#bytes - before.bytes) / Math.max(1, now - before.now);
      this.#bytesPerMs = rate;
      if (!adjust) {
        // The number of stretches is given.
      } else if (tried && rate < before.rate * WORTH_IT) {
        this.#wanted--;
        tried = false;
        quietUntil = now + RETRY_MORE_MS;
      } else {
        const limited = this.#limiter.rate !== undefined;
        tried = !limited && rate > 0 && now >= quietUntil && this.#wanted < MAX_CONCURRENCY;
        if (tried) {
          this.#wanted++;
          // Only within a round: one that is over has nothing to do, or is about to begin anew.
          if (this.#workers > 0) this.#startWorkers();
        }
      }
      before = { bytes: this.#bytes, now, rate };
    }
  }

  /**
   * A promise for the moment when these blocks have been dealt with, if a stretch under way is about to reach them sooner than a request of
   * their own would. Look again afterwards: the stretch may have failed.
   */
  reaching(blocks: BlockRange): Promise<void> | undefined {
    const { blockSize } = this.#store.journal.geometry;
    for (const stretch of this.#stretches) {
      if (blocks.start < stretch.recorded || blocks.end > stretch.end) continue;
      const limit = this.#limiter.rate === undefined ? Number.POSITIVE_INFINITY : this.#limiter.rate / 1000;
      const reach = Math.min(this.#streamRate, limit) * (this.#latencyMs ?? 0);
      const ahead = (blocks.end - stretch.filled) * blockSize;
      if (ahead > 0 && (this.#isHeldBack || ahead > reach)) continue;
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
