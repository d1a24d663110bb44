/**
 * Demand fetches: blocks that a reader waits for.
 *
 * - Each block is fetched by one request at a time; further readers of the block join the request.
 * - A fetch answers its readers first. Its bytes are stored when the last reader has released them; until they are
 *   recorded, further readers take them from memory.
 * - Memory is bounded: while {@link MAX_BUFFERED_BYTES} are fetched and not stored, new readers wait. A reader waits
 *   before it holds anything, so readers cannot block each other.
 */

import { type Done, type MaybePromise, reporting, type Settled } from '../async/done.ts';
import { sharedAbort } from '../async/shared-abort.ts';
import { withSignal } from '../async/with-signal.ts';
import { newBytes } from '../core/new-bytes.ts';
import type { BlockRange } from '../core/runs.ts';
import type { CodError } from '../errors.ts';
import type { Clock } from '../platform/clock.ts';
import { AnswerTimes } from './answer-times.ts';
import type { Filler } from './filler.ts';
import type { Origin } from './origin.ts';
import type { Patience, Repeats } from './patience.ts';
import type { Told } from './retries.ts';

const MAX_BUFFERED_BYTES = 2 ** 25;

const ABANDONED = new Error('the blocks are here');
/** What is fetched of blocks that the target holds. */
const NOTHING: Fetched = { fetches: [], release: () => undefined };

/**
 * Longer fetches are never made synchronously. They take longer for their length, so their time does not tell whether
 * the background copy slows readers down.
 */
const SHORT_BYTES = 2 ** 16;

/** The source's bytes of some blocks. */
export interface Fetch extends BlockRange {
  readonly bytes: Uint8Array;
}

/** Fetched blocks, for one reader. */
export interface Fetched {
  readonly fetches: readonly Fetch[];
  /** The reader no longer needs the bytes. Call it exactly once. */
  release(): void;
}

interface Entry extends Fetch {
  /** Undefined once the bytes have arrived. */
  done: Promise<void> | undefined;
  abort: AbortController | undefined;
  readers: number;
  isStoring: boolean;
  /** The bytes came after the call that asked for them had returned. */
  wasLate: boolean;
  /** It continues behind what is read. */
  readonly isLonger: boolean;
}

export class Fetcher {
  readonly #origin: Origin;
  readonly #filler: Filler;
  readonly #clock: Clock;
  readonly #repeats: Repeats | undefined;
  readonly #onBegin: (() => void) | undefined;
  readonly #onFetched: (bytes: number) => void;
  readonly #onStored: () => void;
  readonly #entries = new Set<Entry>();
  readonly #times = new AnswerTimes();
  #bufferedBytes = 0;
  #awaitingRoom: (() => void)[] = [];
  #inFlight = 0;
  #awaitingIdle: (() => void)[] = [];
  #onEmpty: (() => void) | undefined;
  readonly #closed = sharedAbort();

  constructor(parts: {
    origin: Origin;
    filler: Filler;
    clock: Clock;
    /** Default: a fetch that fails is not repeated. */
    patience?: Patience | undefined;
    /** Called for each failure that is repeated, before the delay. */
    onRetry?(retry: Told): void;
    /** Called for each request. */
    onBegin?(): void;
    onFetched(bytes: number): void;
    onStored(): void;
  }) {
    this.#origin = parts.origin;
    this.#filler = parts.filler;
    this.#clock = parts.clock;
    this.#repeats = parts.patience?.begin({ ...parts, closed: this.#closed.signal });
    this.#onBegin = parts.onBegin;
    this.#onFetched = parts.onFetched;
    this.#onStored = parts.onStored;
  }

  /** Whether a reader waits for the source at this moment. */
  get busy(): boolean {
    return this.#inFlight > 0;
  }

  /** How long a piece of the background copy gives way to waiting readers, at most. */
  get giveWayMs(): number {
    return this.#times.giveWayMs;
  }

  /** Resolves when no reader waits for the source. */
  async idle(): Promise<void> {
    while (this.busy) await new Promise<void>((resolve) => this.#awaitingIdle.push(resolve));
  }

  /**
   * Fetches runs of blocks: joins requests in flight and makes one request for each gap. Synchronous if the source is.
   * Of blocks that the target holds when the source fails, nothing is fetched.
   * @param continues fetches what follows too, as far as that hardly delays the blocks
   * @throws the source's error; the signal's reason.
   */
  fetch(runs: readonly BlockRange[], signal: AbortSignal | undefined, continues = false): MaybePromise<Fetched> {
    const attempt = (): MaybePromise<Fetched> => this.#attempt(runs, signal, continues);
    if (this.#repeats === undefined) return attempt();
    return this.#repeats.run({ signal, attempt, unneeded: () => (this.#areHere(runs) ? NOTHING : undefined) });
  }

  /** Waits until there is room for the bytes of a new request, if one is needed. */
  #attempt(runs: readonly BlockRange[], signal: AbortSignal | undefined, continues: boolean): MaybePromise<Fetched> {
    if (this.#bufferedBytes < MAX_BUFFERED_BYTES || runs.every((run) => this.#covers(run)))
      return this.#fetch(runs, signal, continues);
    return withSignal(new Promise<void>((resolve) => this.#awaitingRoom.push(resolve)), signal).then(() =>
      this.#attempt(runs, signal, continues),
    );
  }

  #fetch(runs: readonly BlockRange[], signal: AbortSignal | undefined, continues: boolean): MaybePromise<Fetched> {
    this.#closed.signal.throwIfAborted();
    const entries: Entry[] = [];
    const release = (): void => {
      for (const entry of entries) this.#release(entry, signal);
    };
    try {
      for (const run of runs) this.#join(run, entries, continues);
    } catch (error) {
      release();
      throw error;
    }
    const pending = entries.flatMap(({ done }) => done ?? []);
    const fetched: Fetched = { fetches: entries, release };
    if (pending.length === 0) return fetched;
    return withSignal(Promise.all(pending), signal).then(
      () => fetched,
      (error: unknown) => {
        release();
        if (signal?.aborted || this.#closed.signal.aborted) throw error;
        if (this.#areHere(runs)) return NOTHING;
        // The failure may be that of what follows.
        if (entries.some(({ isLonger }) => isLonger)) return this.#fetch(runs, signal, false);
        throw error;
      },
    );
  }

  /** Whether the target holds all blocks of runs: users wrote them, or the background copy was faster. */
  #areHere(runs: readonly BlockRange[]): boolean {
    return runs.every(({ start, end }) => this.#filler.nextUnsynced(start, end) >= end);
  }

  /** The entries that cover a part of a run, ascending. */
  #known(run: BlockRange): Entry[] {
    return (
      [...this.#entries]
        // An aborted request ends with another reader's reason.
        .filter((entry) => entry.start < run.end && entry.end > run.start && !entry.abort?.signal.aborted)
        .sort((one, other) => one.start - other.start)
    );
  }

  /** Whether every block of a run is fetched or being fetched. */
  #covers(run: BlockRange): boolean {
    let { start } = run;
    for (const entry of this.#known(run)) if (entry.start <= start) start = Math.max(start, entry.end);
    return start >= run.end;
  }

  /** Adds to `entries` what covers a run, as read by one more reader. */
  #join(run: BlockRange, entries: Entry[], continues: boolean): void {
    const add = (entry: Entry): void => {
      // An entry may cover blocks of two runs.
      if (entries.includes(entry)) return;
      entry.readers++;
      entries.push(entry);
    };
    const begin = (gap: BlockRange): void => add(this.#begin(gap, continues ? this.#goodEnd(gap) : gap.end));
    let { start } = run;
    for (const entry of this.#known(run)) {
      if (start < entry.start) begin({ start, end: entry.start });
      add(entry);
      start = Math.max(start, entry.end);
    }
    if (start < run.end) begin({ start, end: run.end });
  }

  /** Where a request for blocks should end: before what is here or on its way. */
  #goodEnd({ start, end }: BlockRange): number {
    const { blockSize, blockCount } = this.#filler.geometry;
    const most = Math.min(blockCount, start + this.#times.fetchBytes / blockSize);
    // A source that answers at once has no latency to share.
    if (most <= end || this.#origin.source?.submitRead !== undefined) return end;
    const limit = this.#filler.nextSynced(end, most);
    return this.#known({ start: end, end: limit })[0]?.start ?? limit;
  }

  /** @param end where the request ends, at `needed` or later */
  #begin({ start, end: needed }: BlockRange, end: number): Entry {
    const { blockSize, size } = this.#filler.geometry;
    const offset = start * blockSize;
    const bytes = newBytes(Math.min(end * blockSize, size) - offset);
    const entry: Entry = {
      start,
      end,
      bytes,
      done: undefined,
      abort: undefined,
      readers: 0,
      isStoring: false,
      wasLate: false,
      isLonger: end > needed,
    };
    this.#onBegin?.();
    const reading = this.#read(entry, offset);
    this.#entries.add(entry);
    this.#bufferedBytes += bytes.length;
    if (reading === undefined) this.#onFetched(bytes.length);
    else this.#await(entry, reading);
    return entry;
  }

  #read(entry: Entry, offset: number): Done {
    const { bytes } = entry;
    const { diagnostics } = this.#origin;
    const read = (): Done => {
      if (this.#origin.source?.submitRead !== undefined && bytes.length <= SHORT_BYTES) {
        return this.#origin.submitRead(bytes, offset);
      }
      entry.abort = new AbortController();
      return this.#origin.read(bytes, offset, entry.abort.signal);
    };
    return diagnostics === undefined ? read() : diagnostics.demand(offset, bytes.length, read);
  }

  #await(entry: Entry, reading: Promise<void>): void {
    const askedMs = this.#clock.now();
    this.#inFlight++;
    entry.wasLate = true;
    entry.done = reading.then(
      () => {
        entry.done = undefined;
        const { length } = entry.bytes;
        if (length <= SHORT_BYTES || entry.isLonger)
          this.#times.answeredAfter(this.#clock.now() - askedMs, length, entry.isLonger);
        this.#arrived();
        this.#repeats?.answered();
        this.#onFetched(length);
        if (entry.readers === 0) this.#storeLater(entry);
      },
      (error: unknown) => {
        if (entry.isLonger) this.#times.failed();
        this.#arrived();
        this.#drop(entry);
        throw error;
      },
    );
    // Every reader gets the error of its own promise.
    entry.done.catch(() => undefined);
  }

  #arrived(): void {
    this.#inFlight--;
    if (this.#inFlight === 0) for (const wake of this.#awaitingIdle.splice(0)) wake();
  }

  #release(entry: Entry, signal: AbortSignal | undefined): void {
    entry.readers--;
    if (entry.readers > 0 || !this.#entries.has(entry)) return;
    if (entry.done !== undefined) {
      if (signal?.aborted) entry.abort?.abort(signal.reason);
    } else if (entry.wasLate) this.#storeLater(entry);
    else this.#store(entry);
  }

  /** Stores an entry once the event loop has turned, so that its readers' answers are sent first. */
  #storeLater(entry: Entry): void {
    const turned = this.#clock.turn?.() ?? Promise.resolve();
    turned.then(
      () => this.#store(entry),
      () => this.#store(entry),
    );
  }

  /**
   * Stores and records an entry. The readers have their bytes: an error here is found by the background copy, which
   * will store the same blocks.
   */
  #store(entry: Entry): void {
    if (entry.isStoring || entry.readers > 0) return;
    entry.isStoring = true;
    const ended: Settled = () => {
      this.#drop(entry);
      this.#onStored();
    };
    const offset = entry.start * this.#filler.geometry.blockSize;
    reporting(
      () => this.#filler.store(entry.bytes, offset),
      (error) => {
        if (error === undefined) this.#filler.record(entry, ended);
        else ended();
      },
    );
  }

  #drop(entry: Entry): void {
    if (!this.#entries.delete(entry)) return;
    this.#bufferedBytes -= entry.bytes.length;
    for (const wake of this.#awaitingRoom.splice(0)) wake();
    if (this.#entries.size === 0) this.#onEmpty?.();
  }

  /** Fetches, stores and records blocks. @throws the error of the source or of the target. */
  async makeWhole(blocks: BlockRange): Promise<void> {
    const { fetches, release } = await this.fetch([blocks], undefined);
    try {
      const { blockSize } = this.#filler.geometry;
      for (const { start, bytes } of fetches) await this.#filler.fill(bytes, start * blockSize);
      await this.#filler.filled(blocks);
    } finally {
      release();
    }
  }

  /** Ends requests in flight, since their blocks have come another way. */
  abandon(): void {
    for (const entry of this.#entries) entry.abort?.abort(ABANDONED);
  }

  /** Aborts requests in flight with `reason`, and resolves when nothing of this touches the target any more. */
  async close(reason: CodError): Promise<void> {
    this.#closed.abort(reason);
    for (const entry of this.#entries) entry.abort?.abort(reason);
    while (this.#entries.size > 0) await new Promise<void>((resolve) => (this.#onEmpty = resolve));
  }
}
