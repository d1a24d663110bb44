/**
 * Sources under a test's control. {@link ControlledSource} answers on demand, in any order, correctly or not.
 * {@link TimedSource} answers with a latency and a rate.
 */

import { setImmediate as immediate } from 'node:timers/promises';
import { type Clock, CodError, type Source, type SourceExtent } from '../../src/index.ts';

/** A request that the source received. */
export interface Ask {
  readonly kind: 'read' | 'stream';
  readonly offset: number;
  readonly length: number;
  /** Bytes delivered so far. */
  delivered: number;
  /** The end of the request: all bytes delivered, `return` by the consumer, the signal, an error, or still open. */
  outcome: 'open' | 'done' | 'returned' | 'aborted' | 'failed';
}

/** A pending answer: all of a read, or one piece of a stream. */
export interface PendingAnswer {
  readonly ask: Ask;
  readonly offset: number;
  /** The bytes to deliver. A test may replace them before the release, also by another length. */
  bytes: Uint8Array;
  release(): void;
  /** Fails the request. The buffer of a read then contains garbage. */
  fail(error?: unknown): void;
  /** Ends the stream here, as if it were complete. */
  end(): void;
}

export interface ControlledSourceOptions {
  /** Whether the source has `stream`. Default: true. */
  readonly streams?: boolean;
  /** Length of the next piece of a stream. Default: all that is left. */
  readonly pieceBytes?: (left: number) => number;
  readonly extents?: (offset: number, length: number) => SourceExtent[];
}

export class ControlledSource implements Source {
  readonly size: number;
  readonly identity = 'controlled';
  readonly asks: Ask[] = [];
  /** Pending answers, in the order of the requests. */
  readonly pending: PendingAnswer[] = [];
  stream?: NonNullable<Source['stream']>;
  extents?: NonNullable<Source['extents']>;
  readonly #bytes: Uint8Array;
  readonly #options: ControlledSourceOptions;

  constructor(bytes: Uint8Array, options: ControlledSourceOptions = {}) {
    this.size = bytes.length;
    this.#bytes = bytes;
    this.#options = options;
    if (options.streams ?? true)
      this.stream = (offset, length, { signal } = {}) => this.#stream(offset, length, signal);
    const { extents } = options;
    if (extents !== undefined) this.extents = async (offset, length) => extents(offset, length);
  }

  /** Requests of one kind, as `[offset, length]`. */
  asked(kind?: Ask['kind']): [offset: number, length: number][] {
    return this.asks
      .filter((ask) => kind === undefined || ask.kind === kind)
      .map(({ offset, length }) => [offset, length]);
  }

  /** Bytes delivered by all requests. */
  get deliveredBytes(): number {
    return this.asks.reduce((sum, { delivered }) => sum + delivered, 0);
  }

  /** Resolves to the first pending answer that matches, as soon as there is one. */
  async next(matches: (answer: PendingAnswer) => boolean = () => true): Promise<PendingAnswer> {
    for (let turns = 0; turns < 10_000; turns++) {
      const answer = this.pending.find(matches);
      if (answer !== undefined) return answer;
      await immediate();
    }
    throw new Error('the source received no such request');
  }

  /** Releases matching answers until `work` settles. Returns the outcome of `work`. */
  async serve<T>(work: Promise<T>, matches: (answer: PendingAnswer) => boolean = () => true): Promise<T> {
    let settled = false;
    work
      .catch(() => undefined)
      .finally(() => {
        settled = true;
      });
    while (!settled) {
      for (const answer of this.pending.filter(matches)) answer.release();
      await immediate();
    }
    return work;
  }

  async read(into: Uint8Array, offset: number, { signal }: { signal?: AbortSignal } = {}): Promise<void> {
    const ask = this.#ask('read', offset, into.length);
    const bytes = await this.#answer(ask, this.#bytes.subarray(offset, offset + into.length), offset, signal, () =>
      into.fill(0xdb),
    );
    if (bytes?.length !== into.length) {
      ask.outcome = 'failed';
      throw new CodError('COD_SHORT_READ', `${bytes?.length ?? 0} bytes, ${into.length} expected`);
    }
    into.set(bytes);
    ask.outcome = 'done';
  }

  async *#stream(offset: number, length: number, signal: AbortSignal | undefined): AsyncGenerator<Uint8Array> {
    const ask = this.#ask('stream', offset, length);
    try {
      while (ask.delivered < length) {
        const left = length - ask.delivered;
        const piece = Math.max(1, Math.min(left, this.#options.pieceBytes?.(left) ?? left));
        const at = offset + ask.delivered;
        const bytes = await this.#answer(ask, this.#bytes.slice(at, at + piece), at, signal);
        if (bytes === undefined) break;
        yield bytes;
        bytes.fill(0xdb);
      }
      ask.outcome = 'done';
    } finally {
      if (ask.outcome === 'open') ask.outcome = 'returned';
    }
  }

  async close(): Promise<void> {}

  #ask(kind: Ask['kind'], offset: number, length: number): Ask {
    if (offset < 0 || length <= 0 || offset + length > this.size)
      throw new RangeError(`bytes ${offset} + ${length} are beyond the source (${this.size} bytes)`);
    const ask: Ask = { kind, offset, length, delivered: 0, outcome: 'open' };
    this.asks.push(ask);
    return ask;
  }

  #answer(
    ask: Ask,
    bytes: Uint8Array,
    offset: number,
    signal: AbortSignal | undefined,
    spoil: () => void = () => undefined,
  ): Promise<Uint8Array | undefined> {
    return new Promise((resolve, reject) => {
      const settle = (how: () => void): void => {
        const at = this.pending.indexOf(answer);
        if (at < 0) return;
        this.pending.splice(at, 1);
        signal?.removeEventListener('abort', abort);
        how();
      };
      const abort = (): void =>
        settle(() => {
          ask.outcome = 'aborted';
          reject(signal?.reason);
        });
      const answer: PendingAnswer = {
        ask,
        offset,
        bytes,
        release: () =>
          settle(() => {
            ask.delivered += answer.bytes.length;
            resolve(answer.bytes);
          }),
        fail: (error = new CodError('COD_SOURCE_IO', 'injected failure')) =>
          settle(() => {
            ask.outcome = 'failed';
            spoil();
            reject(error);
          }),
        end: () => settle(() => resolve(undefined)),
      };
      this.pending.push(answer);
      if (signal?.aborted) abort();
      else signal?.addEventListener('abort', abort, { once: true });
    });
  }
}

export interface TimedSourceOptions {
  readonly size: number;
  /** Delay of each request's first byte. */
  readonly latencyMs: number;
  /** Rate of each request, independent of the number of requests. */
  readonly bytesPerMs: number;
  readonly pieceBytes?: number;
  /** Default: true. */
  readonly streams?: boolean;
}

/** A source of zeros with a latency and a rate. Takes no memory for its content. */
export class TimedSource implements Source {
  readonly size: number;
  readonly asks: {
    readonly kind: Ask['kind'];
    readonly offset: number;
    readonly length: number;
    readonly atMs: number;
  }[] = [];
  /** Requests in flight, and the most at a time. */
  open = 0;
  mostOpen = 0;
  deliveredBytes = 0;
  stream?: NonNullable<Source['stream']>;
  readonly #clock: Clock;
  readonly #options: TimedSourceOptions;

  constructor(clock: Clock, options: TimedSourceOptions) {
    this.size = options.size;
    this.#clock = clock;
    this.#options = options;
    if (options.streams ?? true)
      this.stream = (offset, length, { signal } = {}) => this.#stream(offset, length, signal);
  }

  async read(into: Uint8Array, offset: number, { signal }: { signal?: AbortSignal } = {}): Promise<void> {
    this.#begin('read', offset, into.length);
    try {
      await this.#clock.sleep(this.#options.latencyMs + into.length / this.#options.bytesPerMs, signal);
      into.fill(0);
      this.deliveredBytes += into.length;
    } finally {
      this.open--;
    }
  }

  async *#stream(offset: number, length: number, signal: AbortSignal | undefined): AsyncGenerator<Uint8Array> {
    this.#begin('stream', offset, length);
    const { latencyMs, bytesPerMs, pieceBytes = 2 ** 16 } = this.#options;
    const zeros = new Uint8Array(Math.min(pieceBytes, length));
    try {
      // Bytes that arrive while the consumer is busy are ready for its next pull, up to a window of 1 ms.
      let readyAt = this.#clock.now() + latencyMs;
      for (let at = 0; at < length; ) {
        const piece = zeros.subarray(0, Math.min(zeros.length, length - at));
        readyAt = Math.max(readyAt, this.#clock.now() - 1) + piece.length / bytesPerMs;
        await this.#clock.sleep(Math.max(0, readyAt - this.#clock.now()), signal);
        this.deliveredBytes += piece.length;
        yield piece;
        at += piece.length;
      }
    } finally {
      this.open--;
    }
  }

  async close(): Promise<void> {}

  #begin(kind: Ask['kind'], offset: number, length: number): void {
    this.asks.push({ kind, offset, length, atMs: this.#clock.now() });
    this.open++;
    this.mostOpen = Math.max(this.mostOpen, this.open);
  }
}
