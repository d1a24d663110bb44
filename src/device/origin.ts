/**
 * The source of a device, or its absence.
 *
 *            ┌─ a function: opened, checked ─┐
 *   absent ──┤                               ├─► present ──► (a request failed) ──► absent
 *            └─ an object: always present ───┘
 *
 * - A source is used only if it holds the image that the copy was made from: size and identity are equal.
 * - The sources that a function returns belong to the device, which closes them. A source object belongs to the caller.
 * - A source of a function that fails a request is opened again, since only that tells whether it is still the same.
 * - One attempt to open is in flight at a time. A demand read joins it or begins one, and waits 30 s at most.
 */

import type { Done } from '../async/done.ts';
import type { EventStream } from '../async/event-stream.ts';
import { sharedAbort } from '../async/shared-abort.ts';
import { withSignal } from '../async/with-signal.ts';
import { CodError, isCodError } from '../errors.ts';
import type { Clock } from '../platform/clock.ts';
import type { InlineSource, Source } from '../sources/source.ts';
import type { Diagnostics } from './diagnostics.ts';
import { describe, type SourceRetry } from './retries.ts';
import type { DeviceEvent } from './types.ts';

/** A demand read waits at most so long for a source that is being opened. */
const PATIENCE_MS = 30_000;
/** A source that gives the same wrong answer so often, and for so long, holds another image. */
const PROVING_ANSWERS = 3;
const PROVING_MS = 60_000;

/** What to do about a source that is not the copy's. */
const OTHER_SOURCE =
  'use the original source or another target, or remove the copy (`copyondemand remove`, `removeCopy`); ' +
  'if the content is the same, accept it with `sameSource` (`--same-source`)';

/** The copy, as far as its source is concerned. */
export interface OriginCopy {
  readonly size: number;
  readonly identity: string | undefined;
  /** Stores another identity of the same content. */
  rename(identity: string | undefined): Promise<void>;
}

export interface OriginOptions {
  readonly clock: Clock;
  readonly events: EventStream<DeviceEvent>;
  readonly diagnostics?: Diagnostics | undefined;
  readonly source: Source | (() => Promise<Source>) | undefined;
  /** Accepts another identity as the same content. */
  readonly sameSource: boolean;
  /** A demand read waits so long for a source that is being opened. Default, and at most: 30 s. */
  readonly patienceMs?: number | undefined;
}

export class Origin {
  /** Called after a source came or went. */
  onChange: () => void = () => undefined;
  /** Called when a source tries a request again by itself. */
  onRetry: (retry: SourceRetry) => void = () => undefined;
  readonly #options: OriginOptions;
  readonly #open: (() => Promise<Source>) | undefined;
  readonly #closed = sharedAbort();
  #copy: OriginCopy | undefined;
  #source: InlineSource | undefined;
  #opening: Promise<InlineSource> | undefined;
  /** Why there is no source. */
  #why: unknown = new CodError('COD_SOURCE_IO', 'the copy was opened without its source');
  /** Answers of another image, all alike. */
  #other: { readonly key: string; readonly sinceMs: number; answers: number; isTold: boolean } | undefined;

  constructor(options: OriginOptions) {
    const { source } = options;
    this.#options = options;
    if (typeof source === 'function') {
      this.#open = source;
      this.#why = new CodError('COD_SOURCE_IO', 'the source is being opened');
    } else this.#source = source;
  }

  /** Publishes requests to the source. */
  get diagnostics(): Diagnostics | undefined {
    return this.#options.diagnostics;
  }

  /** The source, if it can be used at this moment. */
  get source(): InlineSource | undefined {
    return this.#source;
  }

  /** Whether there may ever be a source that can be used. */
  get mayCome(): boolean {
    return this.#source !== undefined || this.#open !== undefined;
  }

  /** Returns the source of a new copy. @throws the error of the function. */
  async first(signal: AbortSignal | undefined): Promise<InlineSource> {
    if (this.#source === undefined) {
      const opening = this.#opened();
      this.#source = await withSignal(opening, signal);
    }
    if (this.#source.size === 0)
      throw new CodError('COD_SIZE_MISMATCH', 'the source is empty (0 bytes): there is nothing to copy');
    return this.#source;
  }

  /** From now on, sources are checked against a copy. One that is there and differs is not used. */
  async bind(copy: OriginCopy): Promise<void> {
    this.#copy = copy;
    const source = this.#source;
    if (source === undefined) return;
    try {
      await this.#accept(source);
      this.#listen(source);
    } catch (error) {
      this.#source = undefined;
      this.#why = error;
      if (this.#open !== undefined) await this.#discard(source);
      // A source object stays as it is, so there is nothing to wait for.
      else this.#tell(error);
    }
  }

  /** Resolves to the source: the present one, or that of one attempt to open it. */
  obtain(): Promise<InlineSource> {
    if (this.#source !== undefined) return Promise.resolve(this.#source);
    this.#opening ??= this.#obtain().finally(() => {
      this.#opening = undefined;
    });
    return this.#opening;
  }

  async #obtain(): Promise<InlineSource> {
    try {
      const source = await this.#opened();
      try {
        await this.#accept(source);
      } catch (error) {
        await this.#discard(source);
        throw error;
      }
      this.#listen(source);
      this.#source = source;
    } catch (error) {
      this.#why = error;
      if (isOther(error)) this.#noteOther(error.message, error);
      throw error;
    }
    this.answered();
    this.onChange();
    return this.#source;
  }

  /** Calls the function. What it returns after the end is closed. */
  async #opened(): Promise<InlineSource> {
    if (this.#open === undefined) throw this.#why;
    const source = await this.#open();
    if (!this.#closed.signal.aborted) return source;
    await this.#discard(source);
    throw this.#closed.signal.reason;
  }

  /** @throws {@link CodError} COD_SIZE_MISMATCH, COD_SOURCE_CHANGED if a source holds another image. */
  async #accept({ size, identity }: Source): Promise<void> {
    const copy = this.#copy!;
    if (size !== copy.size) {
      const message = `the copy has ${copy.size} bytes, but the source has ${size}: ${OTHER_SOURCE}`;
      throw new CodError('COD_SIZE_MISMATCH', message, { details: { size: copy.size, sourceSize: size } });
    }
    if (identity === copy.identity) return;
    if (!this.#options.sameSource && copy.identity !== undefined && lasting(copy.identity) !== lasting(identity)) {
      const message = `the copy was made from ${copy.identity}, but the source is ${identity ?? 'without identity'}`;
      throw new CodError('COD_SOURCE_CHANGED', `${message}: ${OTHER_SOURCE}`, {
        details: { identity: copy.identity, sourceIdentity: identity },
      });
    }
    await copy.rename(identity);
  }

  #listen(source: InlineSource): void {
    if ('onRetry' in source) source.onRetry = (retry) => this.onRetry(retry);
  }

  /** Counts an answer of another image. Tells of it once, when the answers prove it. */
  #noteOther(key: string, error: unknown): void {
    const now = this.#options.clock.now();
    if (this.#other?.key !== key) this.#other = { key, sinceMs: now, answers: 0, isTold: false };
    const other = this.#other;
    other.answers++;
    if (other.isTold || other.answers < PROVING_ANSWERS || now - other.sinceMs < PROVING_MS) return;
    other.isTold = true;
    this.#tell(error);
  }

  #tell(error: unknown): void {
    this.#options.events.emit({ type: 'source-changed', ...describe(error) });
  }

  /** A request was answered. */
  answered(): void {
    this.#other = undefined;
  }

  /** A request to `source` has failed. Returns the error to report. */
  failed(source: InlineSource, error: unknown): unknown {
    // Another request has found that this source cannot be used, and has ended this one.
    if (source !== this.#source) return this.#unavailable();
    if (this.#open === undefined) {
      if (isCodError(error, 'COD_SOURCE_CHANGED')) this.#noteOther('read', error);
      return error;
    }
    this.#source = undefined;
    this.#why = error;
    void this.#discard(source);
    this.onChange();
    return error;
  }

  /** Returns the source. @throws {@link CodError} COD_SOURCE_IO if there is none at this moment. */
  required(): InlineSource {
    if (this.#source === undefined) throw this.#unavailable();
    return this.#source;
  }

  #unavailable(cause: unknown = this.#why): CodError {
    return new CodError('COD_SOURCE_IO', `the source is not available: ${describe(cause).message}`, { cause });
  }

  /** Reads for a user, from the present source or from one that is opened now. @throws as {@link Source.read}. */
  async read(into: Uint8Array, offset: number, signal: AbortSignal): Promise<void> {
    for (;;) {
      const source = this.#source ?? (await this.obtainSoon(signal));
      try {
        await source.read(into, offset, { signal });
        return;
      } catch (error) {
        signal.throwIfAborted();
        if (source === this.#source) throw this.failed(source, error);
      }
    }
  }

  /**
   * Resolves to the source: the present one, or one that is opened now.
   *
   * @param withinMs waits at most so long, and at most 30 s
   * @throws {@link CodError} COD_SOURCE_IO; the signal's reason.
   */
  async obtainSoon(
    signal: AbortSignal | undefined,
    withinMs: number = this.#options.patienceMs ?? PATIENCE_MS,
  ): Promise<InlineSource> {
    if (this.#source !== undefined) return this.#source;
    const patience = new AbortController();
    const { clock } = this.#options;
    const late = clock.sleep(Math.min(PATIENCE_MS, withinMs), patience.signal).then(() => Promise.reject(this.#why));
    try {
      return await withSignal(Promise.race([this.obtain(), late]), signal);
    } catch (error) {
      signal?.throwIfAborted();
      throw this.#unavailable(error);
    } finally {
      patience.abort();
    }
  }

  /** As {@link InlineSource.submitRead}. The source must have it. */
  submitRead(into: Uint8Array, offset: number): Done {
    const source = this.required();
    const failed = (error: unknown): never => {
      throw this.failed(source, error);
    };
    try {
      return source.submitRead!(into, offset)?.catch(failed);
    } catch (error) {
      return failed(error);
    }
  }

  /** Closes what belongs to the device. Idempotent. */
  async close(reason: unknown): Promise<void> {
    if (this.#closed.signal.aborted) return;
    this.#closed.abort(reason);
    if (this.#open !== undefined && this.#source !== undefined) await this.#discard(this.#source);
  }

  async #discard(source: Source): Promise<void> {
    await source.close().catch(() => undefined);
  }
}

/** Whether an error says that a source holds another image. */
function isOther(error: unknown): error is CodError {
  return isCodError(error, 'COD_SOURCE_CHANGED') || isCodError(error, 'COD_SIZE_MISMATCH');
}

/** An identity without the number of a file's device, which an earlier version stored: it changes at each mount. */
function lasting(identity: string | undefined): string | undefined {
  return identity?.replace(/^file:\d+:(?=\d+:\d+:\d+$)/, 'file:');
}
