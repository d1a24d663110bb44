/** The copy-on-demand device: reads and writes of the whole image, while it is being copied. */

import { withSignal } from '../async/with-signal.ts';
import type { SyncedBlocks } from '../core/block-map.ts';
import { bytesOfBlock } from '../core/geometry.ts';
import { CodError } from '../errors.ts';
import type { File } from '../fs/file-system.ts';
import type { Journal, Settled } from '../log/journal.ts';
import type { Clock } from '../platform/clock.ts';
import type { Source } from '../sources/source.ts';
import { type Fetch, Fetcher } from './fetcher.ts';
import { type HydrationTarget, Hydrator } from './hydrator.ts';
import { type BlockRange, TargetStore } from './target-store.ts';
import type { HydrateOptions } from './types.ts';

/** Reads of cold ranges are served in pieces of this size, so that memory stays bounded. */
const READ_PIECE_BYTES = 2 ** 22;
/** Zeroing takes the lock for so many bytes at a time. */
const ZERO_PIECE_BYTES = 2 ** 22;
/** Blocks that are looked at for their state at a time: each takes a look-up where any block is dirty. */
const MAX_STATE_BLOCKS = 2 ** 16;
/** A block with more dirty parts than this is fetched and made whole. */
const MAX_PARTS_OF_BLOCK = 64;
const NONE: readonly number[] = [];

/** What a device is doing. `failed`: the background copy cannot go on, the device itself works. */
export type DeviceState = 'hydrating' | 'idle' | 'hydrated' | 'failed' | 'poisoned' | 'closed';

/** Counters of a device at one moment. */
export interface DeviceStatus {
  /** Bytes. */
  readonly size: number;
  readonly blockSize: number;
  readonly totalBlocks: number;
  readonly syncedBlocks: number;
  /** Blocks that only the source has as a whole, and that were written in part. */
  readonly dirtyBlocks: number;
  readonly state: DeviceState;
  /** Bytes taken from the source since the device was opened, for readers and for the background copy. */
  readonly sourceBytes: number;
  /** What the background copy takes at the moment. */
  readonly hydrateBytesPerSecond: number;
  /** The limit that is set, if any. */
  readonly rateBytesPerSecond: number | undefined;
  /** Bytes written to logs and checkpoints since the device was opened. */
  readonly metadataBytes: number;
}

/** An image that can be used at once, while it is copied. Any offset and length inside it are allowed; outside: `RangeError`. */
export interface Device extends AsyncDisposable {
  /** Bytes. */
  readonly size: number;
  readonly blockSize: number;
  /**
   * Fills `into` from `offset` on.
   * @throws {@link CodError} COD_SOURCE_IO, COD_SOURCE_CHANGED, COD_TARGET_IO, COD_POISONED, COD_CLOSED; the signal's reason.
   */
  read(into: Uint8Array, offset: number, options?: { signal?: AbortSignal }): Promise<void>;
  /**
   * Writes all of `from`, which must stay as it is until then. Resolved = acknowledged: it survives the death of the process; with `fua`, or after a later {@link flush}, that of the machine.
   * @throws {@link CodError} COD_NO_SPACE, COD_TARGET_IO: it may have been written in part; COD_POISONED, COD_CLOSED.
   */
  write(from: Uint8Array, offset: number, options?: { fua?: boolean }): Promise<void>;
  /** All that was acknowledged before is durable when it resolves. @throws {@link CodError} COD_POISONED if it cannot be. */
  flush(): Promise<void>;
  /** Whole blocks of the range read as zeros from now on and are never fetched; parts of blocks at its ends stay as they are. */
  discard(offset: number, length: number): Promise<void>;
  /** The range reads as zeros from now on, to the byte. */
  writeZeroes(offset: number, length: number): Promise<void>;
  /** Makes the present state durable as a checkpoint, so that recovery has next to nothing to replay. */
  checkpoint(): Promise<void>;
  status(): DeviceStatus;
  /** The blocks that the target has, as they are now. `dispose` it when done. */
  syncedBlocks(): SyncedBlocks;
  /** The blocks that only the source has as a whole and that were written in part, ascending, as they are now. */
  dirtyBlocks(): Float64Array<ArrayBuffer>;
  /**
   * The target is a complete copy, and durable. Rejects with COD_CLOSED if closed first, with the cause if the copy cannot go on; never an
   * unhandled rejection.
   */
  readonly hydrated: Promise<void>;
  /** Limits the background copy, from now on; `undefined` lifts the limit. */
  setRate(bytesPerSecond: number | undefined): void;
  /** Ends what waits for the source, finishes what is being written, takes a checkpoint, lets go of the files. Idempotent; loses nothing. The source stays open: it is the caller's. */
  close(): Promise<void>;
  /**
   * Closes a device that is hydrated and removes its metadata: the target is a file like any other from then on.
   * @throws {@link CodError} COD_CLOSED; `TypeError` if the copy is not complete.
   */
  finish(): Promise<void>;
}

/** A run of bytes of one kind. */
export interface DeviceExtent {
  /** Bytes. */
  readonly length: number;
  /** What the target has of it: all, nothing, or parts that were written. */
  readonly state: 'synced' | 'unsynced' | 'dirty';
  /** Whether it is known to read as zeros, and takes no room on the target. */
  readonly zero: boolean;
}

/** A device in this very process: it can say more, and answer at once. */
export interface LocalDevice extends Device {
  /**
   * As {@link read}, inside the call; false, and nothing done, where that cannot be: blocks that only a source has that cannot be read so, or in part,
   * a lock that somebody has, a file system that is asynchronous, more bytes than are worth the event loop's time.
   * @throws {@link CodError} as {@link read}.
   */
  readNow(into: Uint8Array, offset: number): boolean;
  /**
   * As {@link write}, the bytes inside the call, in the same way; blocks that are not synced must be written as a whole. False, and nothing done; or true, and `settled`
   * is called once, with the error if there is one, when it is acknowledged: inside this call, inside {@link commitNow}, or soon. It must not throw. `from` is free in either case.
   */
  writeNow(from: Uint8Array, offset: number, settled: (error?: unknown) => void): boolean;
  /** Has the writes of {@link writeNow} acknowledged that still wait for their record, inside the call if that can be: one record in the log for all of them. */
  commitNow(): void;
  /**
   * Has the unsynced blocks of a range fetched, before the background copy comes to them.
   * @throws {@link CodError} as {@link read}.
   */
  hydrateRange(offset: number, length: number, options?: { signal?: AbortSignal }): Promise<void>;
  /** What is known of a range, from `offset` on, as runs of which no two neighbours are alike: at least one, at most `limit`, `length` bytes in all or less. */
  extents(offset: number, length: number, limit: number): Promise<readonly DeviceExtent[]>;
}

/** Settles from outside. */
class Deferred<T> {
  readonly promise: Promise<T>;
  resolve!: (value: T) => void;
  reject!: (error: unknown) => void;

  constructor() {
    this.promise = new Promise<T>((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    this.promise.catch(() => undefined);
  }
}

/** What a device is made of; it owns all of it but the source. */
export interface DeviceParts {
  readonly clock: Clock;
  readonly source: Source;
  readonly journal: Journal;
  readonly target: File;
  /** Whether the target was made just now, so that all of it is zeros. */
  readonly blank: boolean;
  readonly hydrate: false | HydrateOptions;
  readonly onRead: ((offset: number, length: number) => void) | undefined;
  /** Lets others have the target. */
  readonly unlock: () => Promise<void>;
}

export class CopyOnDemandDevice implements LocalDevice {
  readonly #parts: DeviceParts;
  readonly #journal: Journal;
  readonly #store: TargetStore;
  readonly #fetcher: Fetcher;
  readonly #hydrator: Hydrator;
  readonly #hydrated = new Deferred<void>();
  #hydrating: Promise<void> = Promise.resolve();
  #fetchedBytes = 0;
  #operations = 0;
  #drained: (() => void) | undefined;
  #completing = false;
  #state: DeviceState;
  #closing: Promise<void> | undefined;

  constructor(parts: DeviceParts) {
    this.#parts = parts;
    this.#journal = parts.journal;
    this.#store = new TargetStore(parts.journal, parts.target, { blank: parts.blank });
    this.#fetcher = new Fetcher(parts.source, this.#store, {
      onFetched: (bytes) => {
        this.#fetchedBytes += bytes;
        this.#hydrator.limiter.spend(bytes);
      },
      onStored: () => this.#checkComplete(),
    });
    const target = hydrationTarget(this.#store);
    this.#hydrator = new Hydrator(parts.clock, parts.source, target, this.#fetcher, parts.hydrate || {});
    this.#state = parts.hydrate === false ? 'idle' : 'hydrating';
    if (parts.hydrate !== false) this.#hydrating = this.#hydrate();
    this.#checkComplete();
  }

  get size(): number {
    return this.#journal.geometry.size;
  }

  get blockSize(): number {
    return this.#journal.geometry.blockSize;
  }

  get hydrated(): Promise<void> {
    return this.#hydrated.promise;
  }

  async #hydrate(): Promise<void> {
    try {
      await this.#hydrator.run();
      this.#checkComplete();
    } catch (error) {
      if (this.#closing !== undefined || this.#completing) return;
      this.#state = 'failed';
      this.#hydrated.reject(error);
    }
  }

  /** Once all blocks are synced, makes that durable; called after whatever may have synced the last one. */
  #checkComplete(): void {
    const { map, geometry } = this.#journal;
    if (this.#completing || map.count < geometry.blockCount || this.#closing !== undefined) return;
    this.#completing = true;
    this.#journal.checkpoint().then(
      () => {
        if (this.#state !== 'closed') this.#state = 'hydrated';
        this.#hydrated.resolve();
      },
      (error: unknown) => {
        this.#state = 'failed';
        this.#hydrated.reject(error);
      },
    );
  }

  #checkRange(offset: number, length: number): void {
    if (
      !Number.isSafeInteger(offset) ||
      !Number.isSafeInteger(length) ||
      offset < 0 ||
      length < 0 ||
      offset + length > this.size
    ) {
      throw new RangeError(`bytes ${offset} + ${length} are outside the device of ${this.size} bytes`);
    }
  }

  /** Runs an operation so that {@link close} waits for it. */
  async #operation<T>(task: () => Promise<T>): Promise<T> {
    if (this.#closing !== undefined) throw new CodError('COD_CLOSED', 'the device is closed');
    this.#operations++;
    try {
      return await task();
    } finally {
      if (--this.#operations === 0) this.#drained?.();
    }
  }

  /** A change of the target, which a poisoned journal no longer takes. One function: each more that waits is felt in a write of 4 KiB. */
  async #change(offset: number, length: number, task: () => Promise<void>): Promise<void> {
    if (this.#closing !== undefined) throw new CodError('COD_CLOSED', 'the device is closed');
    this.#operations++;
    try {
      this.#checkRange(offset, length);
      if (this.#journal.poison !== undefined) throw this.#journal.poison;
      if (length === 0) return;
      await task();
      this.#checkComplete();
    } finally {
      if (--this.#operations === 0) this.#drained?.();
    }
  }

  read(into: Uint8Array, offset: number, options: { signal?: AbortSignal } = {}): Promise<void> {
    return this.#operation(async () => {
      this.#checkRange(offset, into.length);
      options.signal?.throwIfAborted();
      if (into.length === 0) return;
      this.#parts.onRead?.(offset, into.length);
      const { start, end } = this.#store.blocksOf(offset, into.length);
      if (this.#journal.map.hasRange(start, end)) {
        await this.#readTarget(into, offset);
      } else {
        for (let at = 0; at < into.length; at += READ_PIECE_BYTES) {
          await this.#readCold(
            into.subarray(at, Math.min(into.length, at + READ_PIECE_BYTES)),
            offset + at,
            options.signal,
          );
        }
      }
      // Asked for at the end: a failed sync may have dropped what was written, and then it is older bytes that were read.
      if (this.#journal.poison !== undefined) throw this.#journal.poison;
    });
  }

  readNow(into: Uint8Array, offset: number): boolean {
    if (this.#journal.poison !== undefined || !this.#isOpenFor(offset, into.length)) return false;
    const done = this.#isFree(offset, into.length, 'shared')
      ? this.#store.readNow(into, offset)
      : this.#fetcher.readNow(into, offset);
    if (done) this.#parts.onRead?.(offset, into.length);
    return done;
  }

  writeNow(from: Uint8Array, offset: number, settled: Settled): boolean {
    if (this.#journal.poison !== undefined || !this.#isOpenFor(offset, from.length)) return false;
    if (this.#isFree(offset, from.length, 'exclusive')) return this.#overwriteNow(from, offset, settled);
    const { blockSize } = this;
    // Parts of blocks may need the map of them tidied first.
    if (offset % blockSize !== 0 || from.length % blockSize !== 0) return false;
    this.#operations++;
    const ended: Settled = (error) => {
      if (--this.#operations === 0) this.#drained?.();
      this.#checkComplete();
      settled(error);
    };
    if (this.#store.writeNow(from, offset, ended)) return true;
    this.#operations--;
    return false;
  }

  #overwriteNow(from: Uint8Array, offset: number, settled: Settled): boolean {
    try {
      if (!this.#store.overwriteNow(from, offset)) return false;
    } catch (error) {
      settled(error);
      return true;
    }
    settled();
    return true;
  }

  commitNow(): void {
    this.#journal.commitNow();
  }

  /** Whether there is such a range, and something in it. */
  #isOpenFor(offset: number, length: number): boolean {
    return this.#closing === undefined && length > 0 && offset >= 0 && offset + length <= this.size;
  }

  /** Whether a range is synced, and nobody's lock is in the way. */
  #isFree(offset: number, length: number, mode: 'shared' | 'exclusive'): boolean {
    const { start, end } = this.#store.blocksOf(offset, length);
    const { map, geometry } = this.#journal;
    return (
      (map.count === geometry.blockCount || map.hasRange(start, end)) && this.#store.locks.isFree(start, end, mode)
    );
  }

  async #readTarget(into: Uint8Array, offset: number): Promise<void> {
    const release = await this.#store.lock(offset, into.length, 'shared');
    try {
      await this.#store.read(into, offset);
    } finally {
      release();
    }
  }

  async #readCold(into: Uint8Array, offset: number, signal: AbortSignal | undefined): Promise<void> {
    for (;;) {
      const missing = this.#missing(offset, into.length);
      const fetched = (await Promise.all(missing.map((blocks) => this.#obtain(blocks, signal)))).flat();
      const release = await this.#store.lock(offset, into.length, 'shared');
      try {
        // Else blocks that the hydrator was about to reach did not arrive: ask again.
        if (this.#missing(offset, into.length).every((blocks) => covers(fetched, blocks))) {
          await this.#assemble(into, offset, fetched);
          return;
        }
      } finally {
        release();
      }
    }
  }

  hydrateRange(offset: number, length: number, options: { signal?: AbortSignal } = {}): Promise<void> {
    return this.#operation(async () => {
      this.#checkRange(offset, length);
      const { blockSize } = this;
      const blocks = this.#store.blocksOf(offset, length);
      const piece = Math.max(1, READ_PIECE_BYTES / blockSize);
      for (let { start } = blocks; start < blocks.end; ) {
        start = this.#journal.map.nextUnsynced(start, blocks.end);
        const end = this.#journal.map.nextSynced(start, Math.min(blocks.end, start + piece));
        if (start < end) await this.#obtain({ start, end }, options.signal);
        start = end;
      }
    });
  }

  extents(offset: number, length: number, limit: number): Promise<readonly DeviceExtent[]> {
    return this.#operation(async () => {
      this.#checkRange(offset, length);
      const states = this.#states(offset, length, limit);
      const extents: DeviceExtent[] = [];
      let at = offset;
      for (const state of states) {
        if (extents.length >= limit) break;
        for (const extent of await this.#zeros(state, at)) append(extents, extent);
        at += state.length;
      }
      return extents.slice(0, limit);
    });
  }

  /** The states of a range, or of its beginning. */
  #states(offset: number, length: number, limit: number): DeviceExtent[] {
    const { map, dirty } = this.#journal;
    const { blockSize } = this;
    const { start: first, end: last } = this.#store.blocksOf(offset, length);
    const limitBlock = dirty.blockCount > 0 ? Math.min(last, first + MAX_STATE_BLOCKS) : last;
    const end = offset + length;
    const states: DeviceExtent[] = [];
    const add = (startBlock: number, endBlock: number, state: DeviceExtent['state']): void => {
      const bytes = Math.min(end, endBlock * blockSize) - Math.max(offset, startBlock * blockSize);
      append(states, { length: bytes, state, zero: false });
    };
    for (const { start, end: stop, synced } of map.extents(first, limitBlock)) {
      if (states.length >= limit) break;
      if (synced) {
        add(start, stop, 'synced');
        continue;
      }
      for (let at = start; at < stop && states.length < limit; ) {
        const next = dirty.nextDirty(at, stop);
        if (at < next) add(at, next, 'unsynced');
        if (next < stop) add(next, next + 1, 'dirty');
        at = next + 1;
      }
    }
    return states;
  }

  /** A run that only the source has, as its extents divide it. */
  async #zeros(extent: DeviceExtent, offset: number): Promise<readonly DeviceExtent[]> {
    const { source } = this.#parts;
    if (extent.state !== 'unsynced' || source.extents === undefined) return [extent];
    const found = await source.extents(offset, extent.length);
    return found.map(({ length, zero }) => ({ length, state: 'unsynced', zero }));
  }

  /** The blocks of a range that the source must be asked for: unsynced, and not written wherever the range touches them. */
  #missing(offset: number, length: number): BlockRange[] {
    const { map, dirty } = this.#journal;
    const blocks = this.#store.blocksOf(offset, length);
    const missing: BlockRange[] = [];
    for (const extent of map.extents(blocks.start, blocks.end)) {
      if (extent.synced) continue;
      let { start, end } = extent;
      while (start < end && dirty.has(start) && this.#isWritten(start, offset, length)) start++;
      while (start < end && dirty.has(end - 1) && this.#isWritten(end - 1, offset, length)) end--;
      if (start < end) missing.push({ start, end });
    }
    return missing;
  }

  #isWritten(block: number, offset: number, length: number): boolean {
    const base = block * this.blockSize;
    const from = Math.max(offset, base);
    const to = Math.min(offset + length, base + this.blockSize);
    return this.#journal.dirty.parts(block).some(([start, end]) => base + start <= from && to <= base + end);
  }

  async #obtain(blocks: BlockRange, signal: AbortSignal | undefined): Promise<readonly Fetch[]> {
    const reaching = this.#hydrator.reaching(blocks);
    if (reaching === undefined) return this.#fetcher.fetch(blocks, signal);
    await withSignal(reaching, signal);
    return [];
  }

  /**
   * Puts a range together from the target and from what was fetched; the caller holds the lock. All that the maps say is taken down before the first await: blocks may become
   * synced meanwhile, which makes their dirty parts unknown but not untrue.
   */
  async #assemble(into: Uint8Array, offset: number, fetched: readonly Fetch[]): Promise<void> {
    const { map, dirty } = this.#journal;
    const { blockSize } = this;
    const end = offset + into.length;
    const blocks = this.#store.blocksOf(offset, into.length);
    const fromTarget: { from: number; to: number }[] = [];
    const take = (start: number, stop: number): void => {
      const from = Math.max(start, offset);
      const to = Math.min(stop, end);
      if (from < to) fromTarget.push({ from, to });
    };
    for (const extent of map.extents(blocks.start, blocks.end)) {
      if (extent.synced) {
        take(extent.start * blockSize, extent.end * blockSize);
        continue;
      }
      for (const fetch of fetched) {
        const base = fetch.start * blockSize;
        const from = Math.max(offset, extent.start * blockSize, base);
        const to = Math.min(end, extent.end * blockSize, base + fetch.bytes.length);
        if (from < to) into.set(fetch.bytes.subarray(from - base, to - base), from - offset);
      }
      if (!dirty.hasAny(extent.start, extent.end)) continue;
      for (let block = extent.start; block < extent.end; block++) {
        for (const [partStart, partEnd] of dirty.parts(block))
          take(block * blockSize + partStart, block * blockSize + partEnd);
      }
    }
    await Promise.all(
      fromTarget.map(({ from, to }) => this.#store.read(into.subarray(from - offset, to - offset), from)),
    );
  }

  write(from: Uint8Array, offset: number, options: { fua?: boolean } = {}): Promise<void> {
    return this.#change(offset, from.length, async () => {
      const crowded = this.#crowded(offset, from.length);
      if (crowded.length > 0) await this.#makeWhole(crowded);
      const locked = this.#store.lock(offset, from.length, 'exclusive');
      const release = typeof locked === 'function' ? locked : await locked;
      try {
        await this.#store.write(from, offset);
      } finally {
        release();
      }
      if (options.fua) await this.#journal.flush();
    });
  }

  /** The blocks at the ends of a write, which they would be dirty after, whose dirty parts have become too many. */
  #crowded(offset: number, length: number): readonly number[] {
    const { map, dirty, geometry } = this.#journal;
    const end = offset + length;
    const isCrowded = (block: number): boolean => {
      const base = block * this.blockSize;
      const whole = offset <= base && base + bytesOfBlock(geometry, block) <= end;
      return !whole && !map.has(block) && (!dirty.hasRoom || dirty.parts(block).length >= MAX_PARTS_OF_BLOCK);
    };
    const first = Math.floor(offset / this.blockSize);
    const last = Math.floor((end - 1) / this.blockSize);
    if (!isCrowded(first) && (first === last || !isCrowded(last))) return NONE;
    return [...new Set([first, last])].filter(isCrowded);
  }

  /** Fetches blocks, so that the map of dirty parts stays bounded. */
  async #makeWhole(blocks: readonly number[]): Promise<void> {
    for (const start of blocks) {
      const block = { start, end: start + 1 };
      for (const fetch of await this.#fetcher.fetch(block, undefined))
        await this.#store.fill(fetch.bytes, fetch.start * this.blockSize);
      await this.#store.filled(block);
    }
  }

  flush(): Promise<void> {
    return this.#operation(() => this.#journal.flush());
  }

  discard(offset: number, length: number): Promise<void> {
    return this.#change(offset, length, async () => {
      const { blockSize, size } = this;
      const start = Math.ceil(offset / blockSize) * blockSize;
      const end = offset + length === size ? size : Math.floor((offset + length) / blockSize) * blockSize;
      if (start < end) await this.#zero(start, end - start);
    });
  }

  writeZeroes(offset: number, length: number): Promise<void> {
    return this.#change(offset, length, async () => {
      await this.#makeWhole(this.#crowded(offset, length));
      await this.#zero(offset, length);
    });
  }

  async #zero(offset: number, length: number): Promise<void> {
    for (let at = offset; at < offset + length; ) {
      // Pieces end at multiples of their length, so that none cuts a block in two that is zeroed as a whole.
      const bytes = Math.min(
        Math.max(ZERO_PIECE_BYTES, this.blockSize) - (at % Math.max(ZERO_PIECE_BYTES, this.blockSize)),
        offset + length - at,
      );
      const release = await this.#store.lock(at, bytes, 'exclusive');
      try {
        await this.#store.writeZeroes(at, bytes);
      } finally {
        release();
      }
      at += bytes;
    }
  }

  checkpoint(): Promise<void> {
    return this.#operation(() => this.#journal.checkpoint());
  }

  status(): DeviceStatus {
    const { geometry, map, dirty, poison } = this.#journal;
    const closed = this.#state === 'closed';
    return {
      size: geometry.size,
      blockSize: geometry.blockSize,
      totalBlocks: geometry.blockCount,
      syncedBlocks: closed ? this.#last.syncedBlocks : map.count,
      dirtyBlocks: closed ? this.#last.dirtyBlocks : dirty.blockCount,
      state: poison !== undefined && !closed ? 'poisoned' : this.#state,
      sourceBytes: this.#fetchedBytes + this.#hydrator.bytes,
      hydrateBytesPerSecond: this.#state === 'hydrating' ? this.#hydrator.bytesPerSecond : 0,
      rateBytesPerSecond: this.#hydrator.limiter.rate,
      metadataBytes: this.#journal.metadataBytes,
    };
  }

  /** Counters at the time of closing: the maps are gone then. */
  #last = { syncedBlocks: 0, dirtyBlocks: 0 };

  syncedBlocks(): SyncedBlocks {
    if (this.#closing !== undefined) throw new CodError('COD_CLOSED', 'the device is closed');
    return this.#journal.map.snapshot();
  }

  dirtyBlocks(): Float64Array<ArrayBuffer> {
    if (this.#closing !== undefined) throw new CodError('COD_CLOSED', 'the device is closed');
    return this.#journal.dirty.blocks();
  }

  setRate(bytesPerSecond: number | undefined): void {
    if (bytesPerSecond !== undefined && !(bytesPerSecond > 0))
      throw new RangeError(`a rate of ${bytesPerSecond} bytes per second`);
    this.#hydrator.limiter.set(bytesPerSecond);
  }

  close(): Promise<void> {
    this.#closing ??= this.#shutDown(() => this.#journal.close());
    return this.#closing;
  }

  async finish(): Promise<void> {
    if (this.#closing !== undefined) throw new CodError('COD_CLOSED', 'the device is closed');
    if (this.#state !== 'hydrated') throw new TypeError('the copy is not complete: wait for `hydrated`');
    this.#closing = this.#shutDown(() => this.#journal.remove());
    await this.#closing;
  }

  async #shutDown(closeJournal: () => Promise<void>): Promise<void> {
    const reason = new CodError('COD_CLOSED', 'the device was closed');
    this.#hydrator.stop(reason);
    try {
      await this.#fetcher.close(reason);
      await this.#hydrating;
      if (this.#operations > 0) await new Promise<void>((resolve) => (this.#drained = resolve));
      const { map, dirty } = this.#journal;
      this.#last = { syncedBlocks: map.count, dirtyBlocks: dirty.blockCount };
      await closeJournal();
    } finally {
      this.#state = 'closed';
      this.#hydrated.reject(reason);
      await this.#parts.target.close();
      await this.#parts.unlock();
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** The target as the background copy sees it. */
function hydrationTarget(store: TargetStore): HydrationTarget {
  const { journal } = store;
  const { geometry, map } = journal;
  return {
    geometry,
    get syncedBlocks() {
      return map.count;
    },
    nextUnsynced: (from, limit) => map.nextUnsynced(from, limit),
    nextSynced: (from, limit) => map.nextSynced(from, limit),
    get preferredWriteBytes() {
      return store.preferredWriteBytes;
    },
    fill: (from, offset) => store.fill(from, offset),
    fillZeroes: (offset, length) => store.fillZeroes(offset, length),
    filled: (blocks) => store.filled(blocks),
    flush: () => journal.flush(),
  };
}

/** Adds a run, as a part of the last one if it is of the same kind. */
function append(extents: DeviceExtent[], extent: DeviceExtent): void {
  const last = extents.at(-1);
  if (last === undefined || last.state !== extent.state || last.zero !== extent.zero) extents.push(extent);
  else extents[extents.length - 1] = { ...last, length: last.length + extent.length };
}

function covers(fetched: readonly Fetch[], blocks: BlockRange): boolean {
  let { start } = blocks;
  for (const fetch of [...fetched].sort((a, b) => a.start - b.start))
    if (fetch.start <= start) start = Math.max(start, fetch.end);
  return start >= blocks.end;
}
