/**
 * The stretches in flight: which blocks are being copied, and which readers wait for them.
 *
 * A stretch is a range of blocks that one worker copies from its start to its end:
 *
 *   start          recorded          filled              end
 *     |  recorded  |  on the target  |  not copied yet   |
 *
 * Invariants:
 * - start <= recorded <= filled <= end. `recorded` and `filled` never decrease.
 * - No two stretches share a block.
 * - A waiting reader is woken when its block is recorded, when the stretch ends, or when the rate holds the copy back.
 *   It then looks at the state of the copy again: being woken is no promise that its blocks are there.
 */

import type { Geometry } from '../core/geometry.ts';
import type { BlockRange } from '../core/runs.ts';
import type { Clock } from '../platform/clock.ts';

/** Whole blocks are recorded after this many bytes, so that a long stretch needs few records. */
const RECORD_BYTES = 2 ** 20;
/** Whole blocks are recorded after this time, so that a crash loses little of a slow copy. */
const RECORD_MS = 250;

/** What the stretches need of the target and of the state of the copy. */
export interface StretchTarget {
  readonly geometry: Geometry;
  /** The first unsynced block of [from, limit), or `limit`. Default of `limit`: the number of blocks. */
  nextUnsynced(from: number, limit?: number): number;
  /** The first synced block of [from, limit), or `limit`. Default of `limit`: the number of blocks. */
  nextSynced(from: number, limit?: number): number;
  /** Records that whole blocks are complete. All of their bytes were filled before. */
  filled(blocks: BlockRange): Promise<void>;
}

/** What all stretches of a copy share. */
export interface StretchParts {
  readonly clock: Pick<Clock, 'now'>;
  readonly target: StretchTarget;
  /** Called after blocks were recorded. */
  readonly onRecord: () => void;
  /** Called if a record that a reader waits for fails. */
  readonly onRecordFailure: (error: unknown) => void;
}

/** A stretch in flight. */
export class Stretch implements BlockRange {
  readonly start: number;
  readonly end: number;
  readonly #parts: StretchParts;
  /** Offset of the next byte to copy. */
  #at: number;
  /** Blocks before this one are recorded. */
  #recorded: number;
  /** Blocks before this one are on the target. */
  #filled: number;
  /** Where and when blocks were recorded last, whether or not there were any. */
  #recordedAt: number;
  #recordedMs: number;
  /** Settles with the records in flight, see {@link startRecord}. */
  #recording: Promise<unknown> = Promise.resolve();
  #waiting: { readonly block: number; readonly wake: () => void }[] = [];

  constructor(parts: StretchParts, blocks: BlockRange) {
    this.start = blocks.start;
    this.end = blocks.end;
    this.#parts = parts;
    this.#at = blocks.start * parts.target.geometry.blockSize;
    this.#recorded = blocks.start;
    this.#filled = blocks.start;
    this.#recordedAt = this.#at;
    this.#recordedMs = parts.clock.now();
  }

  /** Offset of the next byte to copy. */
  get at(): number {
    return this.#at;
  }

  /** Blocks of the stretch before this one are recorded. */
  get recorded(): number {
    return this.#recorded;
  }

  /** Blocks of the stretch before this one are on the target, though perhaps not recorded. */
  get filled(): number {
    return this.#filled;
  }

  /** Starts a request: what was recorded before does not count for {@link isRecordDue}. */
  beginRequest(): void {
    this.#recordedAt = this.#at;
    this.#recordedMs = this.#parts.clock.now();
  }

  /** Continues after `bytes` that are on the target now. */
  advance(bytes: number): void {
    const { blockSize, size } = this.#parts.target.geometry;
    this.#at += bytes;
    this.#filled = this.#at === size ? this.end : Math.floor(this.#at / blockSize);
  }

  /** Whether whole blocks should be recorded now. */
  get isRecordDue(): boolean {
    return (
      this.#at - this.#recordedAt >= RECORD_BYTES ||
      this.#waiting.length > 0 ||
      this.#parts.clock.now() - this.#recordedMs >= RECORD_MS
    );
  }

  /** Starts to record the filled blocks, and does not wait for the record. */
  startRecord(): void {
    this.#recording = Promise.all([this.#recording, this.#record()]);
    // The next piece may be late while a reader waits, so a failure ends the copy at once.
    this.#recording.catch(this.#parts.onRecordFailure);
  }

  /** As {@link startRecord}, after the records in flight: at most one is in flight unless readers wait. */
  async startNextRecord(): Promise<void> {
    await this.#recording;
    this.startRecord();
  }

  /** Records the filled blocks after the records in flight. Rejects if any of them failed. */
  async recordAll(): Promise<void> {
    await this.#recording;
    await this.#record();
  }

  /** Continues at block `end` and records the blocks before it, which read as zeros on the target. */
  async recordZeroes(end: number): Promise<void> {
    const { blockSize, size } = this.#parts.target.geometry;
    await this.#recordUntil(end);
    this.#at = Math.min(end * blockSize, size);
  }

  #record(): Promise<void> {
    this.#recordedAt = this.#at;
    this.#recordedMs = this.#parts.clock.now();
    return this.#recordUntil(this.#filled);
  }

  /** Records the blocks before `end` and wakes the readers that wait for them. */
  async #recordUntil(end: number): Promise<void> {
    if (end <= this.#recorded) return;
    await this.#parts.target.filled({ start: this.#recorded, end });
    this.#parts.onRecord();
    this.#recorded = Math.max(this.#recorded, end);
    this.#filled = Math.max(this.#filled, end);
    this.#wake(end);
  }

  /** Resolves when a reader that waits for `block` should look again. */
  reaching(block: number): Promise<void> {
    return new Promise((wake) => this.#waiting.push({ block, wake }));
  }

  /** Wakes all readers that wait for this stretch. */
  wakeAll(): void {
    this.#wake(this.end);
  }

  /** Wakes the readers that wait for blocks before `end`. */
  #wake(end: number): void {
    const waiting = this.#waiting;
    this.#waiting = waiting.filter(({ block }) => block >= end);
    for (const { block, wake } of waiting) if (block < end) wake();
  }
}

/** All stretches in flight. */
export class Stretches {
  readonly #parts: StretchParts;
  readonly #inFlight = new Set<Stretch>();

  constructor(parts: StretchParts) {
    this.#parts = parts;
  }

  /** Number of stretches in flight. */
  get size(): number {
    return this.#inFlight.size;
  }

  /** Starts a stretch. Its blocks must not be taken. */
  begin(blocks: BlockRange): Stretch {
    const stretch = new Stretch(this.#parts, blocks);
    this.#inFlight.add(stretch);
    return stretch;
  }

  /** Ends a stretch, complete or not, and wakes its readers. */
  finish(stretch: Stretch): void {
    this.#inFlight.delete(stretch);
    stretch.wakeAll();
  }

  /** The stretch that has `block`, if any. */
  takenBy(block: number): Stretch | undefined {
    for (const stretch of this.#inFlight) if (stretch.start <= block && block < stretch.end) return stretch;
    return undefined;
  }

  /** The first block from `from` on that is unsynced and not taken, or the number of blocks. */
  nextFree(from: number): number {
    const { target } = this.#parts;
    let block = target.nextUnsynced(from);
    for (let taken = this.takenBy(block); taken !== undefined; taken = this.takenBy(block))
      block = target.nextUnsynced(taken.end);
    return block;
  }

  /**
   * Where a stretch from `start` on ends: after `maxBytes`, before another stretch, or before a run of synced blocks
   * of at least `skipBytes`. Shorter such runs are part of the stretch unless they are its end.
   */
  endOf(start: number, { maxBytes, skipBytes }: { maxBytes: number; skipBytes: number }): number {
    const { target } = this.#parts;
    const { blockSize, blockCount } = target.geometry;
    let limit = Math.min(blockCount, start + Math.max(1, Math.ceil(maxBytes / blockSize)));
    for (const stretch of this.#inFlight) if (stretch.start > start) limit = Math.min(limit, stretch.start);
    for (let end = start; ; ) {
      end = target.nextSynced(end, limit);
      if (end >= limit) return limit;
      const next = target.nextUnsynced(end, limit);
      if (next >= limit || (next - end) * blockSize >= skipBytes) return end;
      end = next;
    }
  }

  /**
   * Returns a promise for when a reader of `blocks` should look again, if a stretch reaches these blocks sooner than a
   * request of the reader's own: they are on the target and not recorded, or at most `reachBytes` ahead.
   */
  reaching(blocks: BlockRange, reachBytes: number): Promise<void> | undefined {
    const { blockSize } = this.#parts.target.geometry;
    for (const stretch of this.#inFlight) {
      if (blocks.start < stretch.recorded || blocks.end > stretch.end) continue;
      const aheadBytes = (blocks.end - stretch.filled) * blockSize;
      if (aheadBytes > reachBytes) continue;
      const reached = stretch.reaching(blocks.end - 1);
      if (aheadBytes <= 0) stretch.startRecord();
      return reached;
    }
    return undefined;
  }
}
