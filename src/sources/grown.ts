/** A source followed by zeros. */

import { checkRange } from './range.ts';
import type { InlineSource, InternalStreamOptions, Source, SourceExtent } from './source.ts';

const ZEROS = new Uint8Array(2 ** 16);
const IDENTITY = /^grown:(\d+):/;

/**
 * Returns a source of `size` bytes: those of `source`, and zeros behind its end. Made for a block device that is larger
 * than the image: a copy of this source has the size of the device. Closing it closes `source`.
 *
 * The identity names the size of `source` too, so a source that was cut short is not taken for the same.
 *
 * @param size bytes, at least the size of `source`
 * @throws `RangeError` when `size` is not a safe integer, or is smaller than `source`.
 * @example
 * ```ts
 * import { bytesSource, grownSource } from 'copyondemand';
 *
 * const source = grownSource(bytesSource(new Uint8Array(4096).fill(7)), 2 ** 20);
 * const bytes = new Uint8Array(2);
 * await source.read(bytes, 4095);
 * console.log(source.size, bytes); // 1048576 Uint8Array(2) [ 7, 0 ]
 * ```
 */
export function grownSource(source: Source, size: number): Source & AsyncDisposable {
  if (!Number.isSafeInteger(size) || size < source.size)
    throw new RangeError(`size must be a safe integer from ${source.size} on, not ${size}`);
  return new GrownSource(source, size);
}

/** Bytes of the source that was grown, according to its identity. Undefined: it was not grown. */
export function bytesBeforeGrowth(identity: string | undefined): number | undefined {
  const found = IDENTITY.exec(identity ?? '');
  return found === null ? undefined : Number(found[1]);
}

class GrownSource implements InlineSource, AsyncDisposable {
  readonly size: number;
  readonly identity: string;
  readonly mode: number;
  readonly #source: InlineSource;
  declare stream?: NonNullable<InlineSource['stream']>;

  constructor(source: InlineSource, size: number) {
    this.#source = source;
    this.size = size;
    this.identity = `grown:${source.size}:${source.identity ?? ''}`;
    this.mode = source.mode ?? 0o666;
    if (source.stream !== undefined) this.stream = (...range) => this.#stream(...range);
  }

  get place(): InlineSource['place'] {
    return this.#source.place;
  }

  get onRetry(): InlineSource['onRetry'] {
    return this.#source.onRetry;
  }

  set onRetry(onRetry: InlineSource['onRetry']) {
    this.#source.onRetry = onRetry;
  }

  /** Bytes of [offset, offset + length) that the source has. */
  #within(offset: number, length: number): number {
    return Math.min(length, Math.max(0, this.#source.size - offset));
  }

  async read(into: Uint8Array, offset: number, options: { signal?: AbortSignal } = {}): Promise<void> {
    checkRange(this.size, offset, into.length);
    const within = this.#within(offset, into.length);
    if (within > 0) await this.#source.read(into.subarray(0, within), offset, options);
    else options.signal?.throwIfAborted();
    into.fill(0, within);
  }

  async *#stream(offset: number, length: number, options: InternalStreamOptions = {}): AsyncGenerator<Uint8Array> {
    checkRange(this.size, offset, length);
    const within = this.#within(offset, length);
    if (within > 0) yield* this.#source.stream!(offset, within, options);
    for (let rest = length - within; rest > 0; rest -= ZEROS.length) {
      options.signal?.throwIfAborted();
      yield ZEROS.slice(0, rest);
    }
  }

  async extents(offset: number, length: number): Promise<readonly SourceExtent[]> {
    checkRange(this.size, offset, length);
    const within = this.#within(offset, length);
    const known = within === 0 ? [] : await this.#source.extents?.(offset, within);
    const found = known ?? [{ length: within, zero: false }];
    return within === length ? found : [...found, { length: length - within, zero: true }];
  }

  close(): Promise<void> {
    return this.#source.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
