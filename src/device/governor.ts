/**
 * Decides how the background copy uses the source: how many stretches are in flight, how long they are, how long the
 * pieces of a stream are, and when a stretch stops for the rate.
 *
 * It measures two values: the wait for the first byte of a request (latency) and the bytes of each window of at most
 * `WINDOW_MS`. The speed of one stream is the measured speed divided by the number of stretches in flight.
 *
 * Invariants:
 * - A number of stretches or a length that the user gave is never changed.
 * - Without a measurement every value has a default, so that the copy never waits for a measurement.
 * - Within a rate stretches are added only until the rate is met.
 * - The number of stretches doubles while each doubling makes the copy faster, and otherwise falls back. A copy begins
 *   with as many as the last copy from the same server has (known-streams.ts).
 */

import type { Clock } from '../platform/clock.ts';
import { RateLimiter } from './rate-limiter.ts';
import type { HydrateOptions } from './types.ts';

/** The shortest fitted stretch: 84 ms at 100 MB/s, which is longer than most requests wait. */
const MIN_STRETCH_BYTES = 2 ** 23;
/** A stretch of a stream before the first measurement: one window at 134 MB/s. */
const FIRST_STRETCH_BYTES = 2 ** 26;
/** The longest fitted stretch. Bounds the length if latency or speed was measured too high. */
const MAX_STRETCH_BYTES = 2 ** 28;
/** Near the end of the copy stretches are shorter, down to this: a slow one would keep the copy from ending. */
const MIN_SHARE_BYTES = 2 ** 22;
/** A stretch takes this many times the latency, so that waiting is 1.5 % of the time. */
const LATENCY_FACTOR = 64;
/**
 * Within a rate a stretch is what the rate lets through in this time. Browsers receive bytes that are not read yet, up
 * to 64 MiB (Chromium 156) or all of them (Firefox 153, both 2026). Only the end of a request limits the network's use.
 */
const RATED_STRETCH_MS = 16_000;
/** The rate stops a stretch that would wait for longer than this. Servers end such idle connections as well. */
const HELD_UP_MS = 16_000;
/** Stretches of a source without streams: two threads do not compete for one file, and four do. */
const READ_CONCURRENCY = 2;
/** Bounds the search for more streams. The user can ask for more. */
const MAX_CONCURRENCY = 8;
/** Stretches of the order are short and mostly wait. Browsers allow six connections, and readers need one of them. */
const ORDER_CONCURRENCY = 4;
/** Shorter runs of synced blocks are copied again: 2.6 ms at 100 MB/s, less than most requests wait. */
const MIN_SKIP_BYTES = 2 ** 18;
/** Within a rate, long pieces are asked for only if this many arrive in a second: the limiter's burst is 0.1 s. */
const RATED_PIECES_PER_SECOND = 10;
/** Length of a measurement: long enough for many pieces. */
const WINDOW_MS = 500;
/** The same while streams are added, if many times the latency fits in: a copy of seconds should not wait for it. */
const MIN_WINDOW_MS = 150;
const WINDOW_LATENCIES = 6;
/** More streams are kept if the copy becomes faster by this factor. Smaller gains are noise. */
const WORTH_IT = 1.1;
/** More streams have so many windows to show it: the first has their start in it, and any may be noisy. */
const TRIAL_WINDOWS = 2;
/** Time after streams that were not worth it until the next attempt, doubled by each failure: the line may change. */
const FIRST_REST_MS = 2000;
const MAX_REST_MS = 16_000;
/** The rate is met at this part of it: pieces come at any time of a window. */
const MET = 0.9;

/** What the user decided, and what the source can do. */
export interface GovernorOptions extends Pick<HydrateOptions, 'concurrency' | 'extentBytes' | 'rateBytesPerSecond'> {
  /** Whether the source streams. */
  readonly streams: boolean;
}

export class Governor {
  readonly options: GovernorOptions;
  readonly limiter: RateLimiter;
  /** Stretches that should be in flight. */
  stretchCount: number;
  readonly #clock: Clock;
  #latencyMs: number | undefined;
  /** Bytes per ms of the last window. Undefined before the end of the first window. */
  #windowRate: number | undefined;
  #bytes = 0;
  #startMs = 0;
  /** Where the present window started. */
  #window = { bytes: 0, startMs: 0 };
  /** Streams that are tried: how many there were before, how fast these were, and for how many windows to look. */
  #trial: { readonly before: number; readonly rate: number; windowsLeft: number } | undefined;
  #restMs = FIRST_REST_MS;
  #restUntilMs = 0;

  constructor(clock: Clock, options: GovernorOptions) {
    this.#clock = clock;
    this.options = options;
    this.limiter = new RateLimiter(clock, options.rateBytesPerSecond);
    this.stretchCount = options.concurrency ?? (options.streams ? 1 : READ_CONCURRENCY);
  }

  /** Bytes taken from the source so far. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Bytes per ms, all stretches together: of the last window, or since the start while the first window lasts. */
  get bytesPerMs(): number {
    return this.#windowRate ?? this.#bytes / Math.max(1, this.#clock.now() - this.#startMs);
  }

  /** Counts bytes that came from the source. */
  count(bytes: number): void {
    this.#bytes += bytes;
    this.limiter.spend(bytes);
  }

  /** Takes the wait for the first byte of a request into account. */
  answeredAfter(waitMs: number): void {
    this.#latencyMs = this.#latencyMs === undefined ? waitMs : this.#latencyMs + (waitMs - this.#latencyMs) / 4;
  }

  /** Stretches of the order that should be in flight. Within a rate more of them would slow down the first. */
  get orderedStretchCount(): number {
    const isFixed = this.options.concurrency !== undefined || this.limiter.rate !== undefined;
    return isFixed ? this.stretchCount : Math.max(this.stretchCount, ORDER_CONCURRENCY);
  }

  /** Length in bytes of a new stretch, with `inFlight` others in flight and `restBytes` to copy in all. */
  stretchBytes(inFlight: number, restBytes: number): number {
    const rated = this.#ratePerMs * RATED_STRETCH_MS;
    return this.options.extentBytes ?? Math.min(this.#unratedBytes(inFlight), rated, this.#shareOf(restBytes));
  }

  /** The longest stretch with which all streams end at about the same time. */
  #shareOf(restBytes: number): number {
    if (this.stretchCount === 1) return Number.POSITIVE_INFINITY;
    return Math.max(MIN_SHARE_BYTES, restBytes / this.stretchCount / 2);
  }

  #unratedBytes(inFlight: number): number {
    if (!this.options.streams) return MIN_STRETCH_BYTES;
    const streamRate = this.#streamRate(inFlight);
    if (this.#latencyMs === undefined || streamRate === 0) return FIRST_STRETCH_BYTES;
    return Math.min(MAX_STRETCH_BYTES, Math.max(MIN_STRETCH_BYTES, this.#latencyMs * streamRate * LATENCY_FACTOR));
  }

  /** A stretch ends before a run of synced blocks of this length in bytes. It copies shorter runs again. */
  skipBytes(inFlight: number): number {
    return Math.max(MIN_SKIP_BYTES, (this.#latencyMs ?? 0) * this.#streamRate(inFlight));
  }

  /** Bytes that a stretch in flight copies before the source would answer another request. */
  reachBytes(inFlight: number): number {
    if (this.isHeldBack) return 0;
    return Math.min(this.#streamRate(inFlight), this.#ratePerMs) * (this.#latencyMs ?? 0);
  }

  /** Length of the pieces to ask for, given the length that the target prefers. */
  pieceBytes(preferred: number | undefined): number | undefined {
    const { rate = Number.POSITIVE_INFINITY } = this.limiter;
    return preferred !== undefined && preferred * RATED_PIECES_PER_SECOND <= rate ? preferred : undefined;
  }

  /** Whether the rate makes the copy wait for longer than a reader's own request would take. */
  get isHeldBack(): boolean {
    return this.limiter.delayMs > (this.#latencyMs ?? 0);
  }

  /**
   * Whether the rate delays a stretch so much that its request should end.
   * Exception: a stretch of fixed length. On a server without ranges, restarting it downloads everything before it
   * again.
   */
  get isHeldUp(): boolean {
    return this.options.extentBytes === undefined && this.limiter.delayMs > HELD_UP_MS;
  }

  /** Measures until `signal` is aborted. Calls `onMore` when more stretches should begin. */
  async run(signal: AbortSignal, onMore: () => void): Promise<void> {
    this.#startMs = this.#clock.now();
    this.#window = { bytes: this.#bytes, startMs: this.#startMs };
    while (!signal.aborted) {
      const leftMs = this.#window.startMs + this.#windowMs - this.#clock.now();
      if (leftMs > 0) await this.#clock.sleep(leftMs, signal).catch(() => undefined);
      else if (this.#endWindow()) onMore();
    }
  }

  /** Length of the present window. */
  get #windowMs(): number {
    const isRising = this.#trial !== undefined || this.#windowRate === undefined;
    if (!isRising) return WINDOW_MS;
    return Math.min(WINDOW_MS, Math.max(MIN_WINDOW_MS, (this.#latencyMs ?? 0) * WINDOW_LATENCIES));
  }

  /** Ends the present window and starts the next. Returns whether that tries more stretches. */
  #endWindow(): boolean {
    const now = this.#clock.now();
    const rate = (this.#bytes - this.#window.bytes) / Math.max(1, now - this.#window.startMs);
    this.#windowRate = rate;
    this.#window = { bytes: this.#bytes, startMs: now };
    if (this.options.concurrency !== undefined) return false;
    if (this.#trial !== undefined) {
      if (rate >= this.#trial.rate * WORTH_IT) this.#restMs = FIRST_REST_MS;
      else if (--this.#trial.windowsLeft > 0) return false;
      else {
        this.stretchCount = this.#trial.before;
        this.#restUntilMs = now + this.#restMs;
        this.#restMs = Math.min(MAX_REST_MS, 2 * this.#restMs);
      }
      this.#trial = undefined;
    }
    // Readers take their bytes from the same rate, so the limiter may hold back a copy that is slower than the rate.
    const isMet = this.limiter.delayMs > 0 || rate >= this.#ratePerMs * MET;
    if (isMet || rate === 0 || now < this.#restUntilMs || this.stretchCount >= MAX_CONCURRENCY) return false;
    this.#trial = { before: this.stretchCount, rate, windowsLeft: TRIAL_WINDOWS };
    this.stretchCount = Math.min(MAX_CONCURRENCY, 2 * this.stretchCount);
    return true;
  }

  /** Bytes per ms that the rate lets through. */
  get #ratePerMs(): number {
    return this.limiter.rate === undefined ? Number.POSITIVE_INFINITY : this.limiter.rate / 1000;
  }

  /** Bytes per ms of one of `inFlight` streams; 0 while it is unknown, and without streams. */
  #streamRate(inFlight: number): number {
    return this.options.streams ? this.bytesPerMs / Math.max(1, inFlight) : 0;
  }
}
