/** A source in memory. */

import { CodError } from '../errors.ts';
import { checkRange } from './range.ts';
import type { Source } from './source.ts';

const PIECE_BYTES = 1 << 20;

/**
 * Returns a source over `bytes`. They are not copied, and must not change while the source is in use.
 *
 * @param options.identity names the content. Default: none, so that a resume cannot tell whether it is the same.
 * @example
 * ```ts
 * import { bytesSource } from 'copyondemand';
 *
 * const source = bytesSource(new Uint8Array(2 ** 20).fill(7), { identity: 'sevens' });
 * console.log(source.size); // 1048576
 * ```
 */
export function bytesSource(bytes: Uint8Array, options: { identity?: string } = {}): Source & AsyncDisposable {
  return new BytesSource(bytes, options.identity);
}

class BytesSource implements Source, AsyncDisposable {
  readonly size: number;
  declare readonly identity?: string;
  readonly #bytes: Uint8Array;
  #closed = false;

  constructor(bytes: Uint8Array, identity?: string) {
    this.#bytes = bytes;
    this.size = bytes.length;
    if (identity !== undefined) this.identity = identity;
  }

  async read(into: Uint8Array, offset: number, options: { signal?: AbortSignal } = {}): Promise<void> {
    this.#check(offset, into.length, options.signal);
    into.set(this.#bytes.subarray(offset, offset + into.length));
  }

  async *stream(
    offset: number,
    length: number,
    options: { signal?: AbortSignal } = {},
  ): AsyncIterableIterator<Uint8Array> {
    this.#check(offset, length, options.signal);
    for (let at = offset; at < offset + length; at += PIECE_BYTES) {
      this.#check(offset, length, options.signal);
      yield this.#bytes.slice(at, Math.min(at + PIECE_BYTES, offset + length));
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #check(offset: number, length: number, signal: AbortSignal | undefined): void {
    if (this.#closed) throw new CodError('COD_CLOSED', 'the source is closed');
    signal?.throwIfAborted();
    checkRange(this.size, offset, length);
  }
}
