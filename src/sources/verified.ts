/**
 * A source whose bytes are compared with a manifest.
 *
 * Invariants:
 * - No byte leaves this source before the digest of its whole extent has matched.
 * - Reads are widened to whole extents. What a reader did not ask for is kept for a while, so that neighbouring reads
 *   share one request.
 * - Extents of zeros are known from their digests. They are requested only in the middle of a longer request.
 */

import { withSignal } from '../async/with-signal.ts';
import { CodError } from '../errors.ts';
import { addExtent, type ExtentList } from './extents.ts';
import { areEqual, leafOf, type Manifest, mismatches, newBytes, zeroLeaves } from './manifest.ts';
import { checkRange } from './range.ts';
import { type Seed, SeededSource } from './seeded.ts';
import type { InlineSource, InternalStreamOptions, Source, SourceExtent } from './source.ts';
import { wholeExtents } from './whole-extents.ts';

/** Requests for an extent until the source gives up. */
const ATTEMPTS = 3;
/** A long read is a sequence of requests of this length, so that memory stays bounded. Whole extents. */
const PIECE_BYTES = 2 ** 22;
/** Extents that are kept, at most 4 MiB together. */
const MAX_KEPT = 64;

/** Options of {@link verifiedSource}. */
export interface VerifiedSourceOptions {
  /**
   * An older image. Extents with a digest that the manifest has are taken from there, wherever they are, and need no
   * request. Its bytes are compared like all others. Default: none.
   */
  readonly seed?: Seed;
}

/**
 * Returns `source`, of which no byte is used before it matches the manifest. Closing it closes `source`.
 *
 * - An extent that does not match is asked for again, three times in all. Then the call rejects with COD_MISMATCH.
 * - A device over this source behaves as with any other fault: a reader gets the error, the background copy waits and
 *   tries again, and nothing wrong is stored. A device whose source is a function opens it again, which may lead to
 *   another mirror.
 * - Without an identity of its own, the source has that of the manifest.
 * - A seed that cannot be read, or that has changed, is not an error: the source is asked.
 *
 * @throws {@link CodError} COD_SIZE_MISMATCH when the manifest is of an image of another size.
 * @throws `RangeError` when the manifest of the seed has extents of another length.
 * @example
 * ```ts
 * import { bytesSource, createManifest, isCodError, verifiedSource } from 'copyondemand';
 *
 * const image = new Uint8Array(2 ** 20).fill(7);
 * const manifest = await createManifest(bytesSource(image));
 * const damaged = image.slice().fill(8, 99, 100);
 * const source = verifiedSource(bytesSource(damaged), manifest);
 * await source.read(new Uint8Array(512), 65_536); // another extent
 * try {
 *   await source.read(new Uint8Array(512), 512);
 * } catch (error) {
 *   console.log(isCodError(error, 'COD_MISMATCH')); // true
 * }
 * ```
 */
export function verifiedSource(
  source: Source,
  manifest: Manifest,
  options: VerifiedSourceOptions = {},
): Source & AsyncDisposable {
  if (source.size !== manifest.size) {
    const message = `the manifest is of an image of ${manifest.size} bytes, but the source has ${source.size}`;
    throw new CodError('COD_SIZE_MISMATCH', message, {
      details: { size: source.size, manifestSize: manifest.size },
    });
  }
  return new VerifiedSource(source, manifest, options.seed);
}

class VerifiedSource implements InlineSource, AsyncDisposable {
  readonly size: number;
  readonly identity: string;
  readonly mode: number;
  readonly #source: InlineSource;
  /** What is asked first: the source, or a seed before it. */
  readonly #first: InlineSource;
  readonly #manifest: Manifest;
  readonly #kept = new Map<number, Promise<Uint8Array>>();
  #zeros: Promise<(offset: number) => boolean> | undefined;
  #onRetry: InlineSource['onRetry'];
  #isClosed = false;
  declare stream?: NonNullable<InlineSource['stream']>;

  constructor(source: InlineSource, manifest: Manifest, seed: Seed | undefined) {
    this.#source = source;
    this.#first = seed === undefined ? source : new SeededSource(source, manifest, seed);
    this.#manifest = manifest;
    this.size = source.size;
    this.identity = source.identity ?? `manifest:${manifest.root}`;
    this.mode = source.mode ?? 0o666;
    if (source.stream !== undefined) this.stream = (...range) => this.#stream(...range);
  }

  get place(): InlineSource['place'] {
    return this.#source.place;
  }

  get onRetry(): InlineSource['onRetry'] {
    return this.#onRetry;
  }

  set onRetry(onRetry: InlineSource['onRetry']) {
    this.#onRetry = onRetry;
    if ('onRetry' in this.#source) this.#source.onRetry = onRetry;
  }

  async read(into: Uint8Array, offset: number, { signal }: { signal?: AbortSignal } = {}): Promise<void> {
    this.#check(offset, into.length, signal);
    const end = offset + into.length;
    for (let at = offset; at < end; ) {
      const next = Math.min(end, this.#startOf(at) + PIECE_BYTES);
      await this.#readPiece(into.subarray(at - offset, next - offset), at, signal);
      at = next;
    }
  }

  async #readPiece(into: Uint8Array, offset: number, signal: AbortSignal | undefined): Promise<void> {
    const { extentBytes } = this.#manifest;
    const end = offset + into.length;
    const first = this.#startOf(offset);
    const last = this.#startOf(end - 1);
    const parts: Promise<readonly [bytes: Uint8Array, at: number]>[] = [];
    const take = (at: number): boolean => {
      const kept = this.#kept.get(at);
      if (kept !== undefined) parts.push(kept.then((bytes) => [bytes, at]));
      return kept !== undefined;
    };
    const start = take(first) ? first + extentBytes : first;
    const stop = last >= start && take(last) ? last : this.#endOf(last);
    if (start < stop) {
      const shared = [first, last].filter(
        (at, index) =>
          at >= start && at < stop && (index === 0 || first < last) && (at < offset || this.#endOf(at) > end),
      );
      // A request that others may join is not aborted with one of them.
      const reading = this.#fetch(start, stop, shared.length === 0 ? signal : undefined);
      for (const at of shared)
        this.#keep(
          at,
          reading.then((bytes) => bytes.slice(at - start, at - start + extentBytes)),
        );
      parts.push(reading.then((bytes) => [bytes, start]));
    }
    for (const [bytes, at] of await withSignal(Promise.all(parts), signal)) {
      const from = Math.max(offset, at);
      into.set(bytes.subarray(from - at, Math.max(0, end - at)), from - offset);
    }
  }

  #keep(at: number, extent: Promise<Uint8Array>): void {
    this.#kept.set(at, extent);
    extent.catch(() => this.#kept.delete(at));
    for (const oldest of this.#kept.keys()) {
      if (this.#kept.size <= MAX_KEPT) break;
      this.#kept.delete(oldest);
    }
  }

  /** Returns whole extents that match. */
  async #fetch(start: number, end: number, signal: AbortSignal | undefined): Promise<Uint8Array> {
    const bytes = newBytes(end - start);
    let [from, to] = [start, end];
    const isZero = await this.#zeroTest();
    while (from < to && isZero(from)) from = this.#endOf(from);
    while (from < to && isZero(this.#startOf(to - 1))) to = this.#startOf(to - 1);
    if (from < to) {
      const part = bytes.subarray(from - start, to - start);
      await this.#first.read(part, from, signal === undefined ? {} : { signal });
      for (const at of await mismatches(this.#manifest, part, from)) await this.#askAgain(part, from, at, signal);
    }
    return bytes;
  }

  async *#stream(offset: number, length: number, options: InternalStreamOptions = {}): AsyncGenerator<Uint8Array> {
    const { signal } = options;
    this.#check(offset, length, signal);
    if (length === 0) return;
    const { extentBytes } = this.#manifest;
    const end = offset + length;
    const range = { start: this.#startOf(offset), end: this.#endOf(end - 1) };
    let at = range.start;
    for await (const piece of wholeExtents(this.#first, { ...range, extentBytes }, signal, options)) {
      let bytes = piece;
      const wrong = await mismatches(this.#manifest, piece, at);
      if (wrong.length > 0) bytes = piece.slice();
      for (const each of wrong) await this.#askAgain(bytes, at, each, signal);
      yield bytes.subarray(Math.max(0, offset - at), Math.min(bytes.length, end - at));
      at += bytes.length;
    }
  }

  /** Replaces the extent at offset `at`, which does not match, in bytes that begin at `start`. */
  async #askAgain(bytes: Uint8Array, start: number, at: number, signal: AbortSignal | undefined): Promise<void> {
    const extent = bytes.subarray(at - start, at - start + this.#manifest.extentBytes);
    const message = `bytes ${at}-${at + extent.length - 1} of the source do not match the manifest`;
    for (let attempt = 1; ; attempt++) {
      if (attempt === ATTEMPTS) {
        const advice = 'get them from another server, or use the manifest of this image';
        throw new CodError('COD_MISMATCH', `${message} (given up after ${ATTEMPTS} attempts): ${advice}`, {
          details: { offset: at, length: extent.length },
        });
      }
      this.#onRetry?.({ code: 'COD_MISMATCH', message, attempt, delayMs: 0 });
      await this.#source.read(extent, at, signal === undefined ? {} : { signal });
      if ((await mismatches(this.#manifest, extent, at)).length === 0) return;
    }
  }

  async extents(offset: number, length: number): Promise<readonly SourceExtent[]> {
    this.#check(offset, length, undefined);
    const found: ExtentList = [];
    const end = offset + length;
    const isZero = await this.#zeroTest();
    for (let at = offset; at < end; ) {
      const next = Math.min(end, this.#endOf(at));
      addExtent(found, next - at, isZero(this.#startOf(at)));
      at = next;
    }
    return found;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    this.#kept.clear();
    await this.#source.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #check(offset: number, length: number, signal: AbortSignal | undefined): void {
    if (this.#isClosed) throw new CodError('COD_CLOSED', 'the source is closed');
    signal?.throwIfAborted();
    checkRange(this.size, offset, length);
  }

  /** The offset of the extent that has the byte at `offset`. */
  #startOf(offset: number): number {
    return offset - (offset % this.#manifest.extentBytes);
  }

  /** The end of that extent. */
  #endOf(offset: number): number {
    return Math.min(this.size, this.#startOf(offset) + this.#manifest.extentBytes);
  }

  /** Resolves to a function that tells whether the extent at an offset is zero. */
  #zeroTest(): Promise<(offset: number) => boolean> {
    this.#zeros ??= zeroLeaves(this.#manifest).then(([zero, lastZero]) => (offset) => {
      return areEqual(leafOf(this.#manifest, offset), this.#endOf(offset) === this.size ? lastZero : zero);
    });
    return this.#zeros;
  }
}
