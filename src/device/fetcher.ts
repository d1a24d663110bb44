/**
 * Demand fetches: blocks that a reader waits for. Each block is fetched by one request at a time, whoever asks; the bytes stay here until they are in the target,
 * so that a block read ten times is fetched once.
 */

import { withSignal } from '../async/with-signal.ts';
import type { CodError } from '../errors.ts';
import type { InlineSource } from '../sources/source.ts';
import type { BlockRange, TargetStore } from './target-store.ts';

/** Bytes fetched and not yet stored; further readers wait. */
const MAX_BUFFERED_BYTES = 2 ** 25;

/** What is read inside the reader's own turn of the event loop is this long at most, the rest of its blocks included. */
const MAX_NOW_BYTES = 2 ** 16;

/** A fetch under way, or done and not yet in the target. */
export interface Fetch extends BlockRange {
  /** The source's bytes of these blocks, once `done` has resolved. */
  readonly bytes: Uint8Array;
  readonly done: Promise<void>;
}

interface Entry extends Fetch {
  readonly abort: AbortController;
  waiting: number;
}

export class Fetcher {
  readonly #source: InlineSource;
  readonly #store: TargetStore;
  readonly #onFetched: (bytes: number) => void;
  readonly #onStored: () => void;
  readonly #entries = new Set<Entry>();
  readonly #storing = new Set<Promise<void>>();
  /** Blocks that are stored and not recorded yet, by their calls. */
  #recording = 0;
  #onRecorded: (() => void) | undefined;
  #bufferedBytes = 0;
  #room: (() => void)[] = [];
  #inFlight = 0;
  #idle: (() => void)[] = [];
  #closed: CodError | undefined;

  constructor(source: InlineSource, store: TargetStore, hooks: { onFetched(bytes: number): void; onStored(): void }) {
    this.#source = source;
    this.#store = store;
    this.#onFetched = hooks.onFetched;
    this.#onStored = hooks.onStored;
  }

  /** Whether a reader waits for the source at this moment. */
  get busy(): boolean {
    return this.#inFlight > 0;
  }

  /** Resolves when no reader waits for the source. */
  async idle(): Promise<void> {
    while (this.busy) await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  /**
   * Waits for the source's bytes of these blocks: joins what is under way, asks for the rest, one request for each gap.
   * @throws what the source says; the signal's reason.
   */
  async fetch(blocks: BlockRange, signal: AbortSignal | undefined): Promise<readonly Fetch[]> {
    while (this.#bufferedBytes >= MAX_BUFFERED_BYTES) {
      await withSignal(new Promise<void>((resolve) => this.#room.push(resolve)), signal);
    }
    if (this.#closed !== undefined) throw this.#closed;
    const joined: Entry[] = [];
    let { start } = blocks;
    const known = [...this.#entries]
      // What was given up ends with another reader's reason.
      .filter((entry) => entry.start < blocks.end && entry.end > blocks.start && !entry.abort.signal.aborted)
      .sort((a, b) => a.start - b.start);
    for (const entry of known) {
      if (start < entry.start) joined.push(this.#begin({ start, end: entry.start }));
      joined.push(entry);
      start = Math.max(start, entry.end);
    }
    if (start < blocks.end) joined.push(this.#begin({ start, end: blocks.end }));
    for (const entry of joined) entry.waiting++;
    try {
      await withSignal(Promise.all(joined.map((entry) => entry.done)), signal);
      return joined;
    } finally {
      for (const entry of joined) if (--entry.waiting === 0 && signal?.aborted) entry.abort.abort(signal.reason);
    }
  }

  /**
   * Has a range read and its blocks stored, inside the call: false, and nothing done, where the source or the target cannot, or where not all of its blocks are
   * only the source's, or one of them is being fetched already. Not recorded yet when it returns.
   * @throws what the source says.
   */
  readNow(into: Uint8Array, offset: number): boolean {
    const { map, dirty, geometry } = this.#store.journal;
    const { blockSize, size } = geometry;
    const blocks = this.#store.blocksOf(offset, into.length);
    const { start, end } = blocks;
    if (this.#source.readNow === undefined || this.#closed !== undefined) return false;
    const base = start * blockSize;
    const length = Math.min(end * blockSize, size) - base;
    if (length > MAX_NOW_BYTES || map.hasAny(start, end) || dirty.hasAny(start, end)) return false;
    for (const entry of this.#entries) if (entry.start < end && entry.end > start) return false;
    const bytes = length === into.length ? into : new Uint8Array(length);
    if (!this.#source.readNow(bytes, base)) return false;
    try {
      if (!this.#store.fillNow(bytes, base)) return false;
      this.#record(blocks);
    } catch {
      // The reader has its bytes; that they could not be kept is the hydrator's to find out.
    }
    if (bytes !== into) into.set(bytes.subarray(offset - base, offset - base + into.length));
    this.#onFetched(length);
    return true;
  }

  /** Has blocks recorded that are stored; those of one turn of the event loop share an append. */
  #record(blocks: BlockRange): void {
    this.#recording++;
    this.#store.recordFilled(blocks, () => {
      this.#onStored();
      if (--this.#recording === 0) this.#onRecorded?.();
    });
  }

  #begin(blocks: BlockRange): Entry {
    const { blockSize, size } = this.#store.journal.geometry;
    const offset = blocks.start * blockSize;
    const bytes = new Uint8Array(Math.min(blocks.end * blockSize, size) - offset);
    const abort = new AbortController();
    const entry: Entry = {
      ...blocks,
      bytes,
      abort,
      waiting: 0,
      done: this.#run(() => this.#source.read(bytes, offset, { signal: abort.signal })),
    };
    this.#bufferedBytes += bytes.length;
    this.#entries.add(entry);
    const stored = entry.done
      .then(async () => {
        this.#onFetched(bytes.length);
        await this.#store.fill(bytes, offset);
        await this.#store.filled(blocks);
        this.#onStored();
      })
      // The reader has its bytes or its error; that they could not be kept is the hydrator's to find out.
      .catch(() => undefined)
      .finally(() => {
        this.#entries.delete(entry);
        this.#storing.delete(stored);
        this.#bufferedBytes -= bytes.length;
        for (const wake of this.#room.splice(0)) wake();
      });
    this.#storing.add(stored);
    return entry;
  }

  async #run(task: () => Promise<void>): Promise<void> {
    this.#inFlight++;
    try {
      await task();
    } finally {
      this.#inFlight--;
      if (this.#inFlight === 0) for (const wake of this.#idle.splice(0)) wake();
    }
  }

  /** Ends what is under way with `reason`, and waits until nothing touches the target any more. */
  async close(reason: CodError): Promise<void> {
    this.#closed = reason;
    for (const entry of this.#entries) entry.abort.abort(reason);
    while (this.#storing.size > 0) await Promise.all(this.#storing);
    if (this.#recording > 0) await new Promise<void>((resolve) => (this.#onRecorded = resolve));
  }
}
