/**
 * Bytes that are written from front to back. The memory is kept for the next use, since zeroing a new buffer takes as
 * long as writing it.
 *
 * Invariant: an extension that fails for lack of memory changes nothing.
 */

import { newBytes } from './new-bytes.ts';

const FIRST_BYTES = 4096;

export class GrowingBuffer {
  #bytes = new Uint8Array(FIRST_BYTES);
  #length = 0;

  /** Bytes that were added. */
  get length(): number {
    return this.#length;
  }

  /** The bytes that were added: a view, valid until the next call of {@link extend}. */
  get bytes(): Uint8Array<ArrayBuffer> {
    return this.#bytes.subarray(0, this.#length);
  }

  /** Makes room for `count` more bytes at once, so that adding them copies nothing. */
  reserve(count: number): void {
    this.extend(count);
    this.#length -= count;
  }

  /** Adds `count` bytes of undefined content, and returns a view of them that is valid until the next call. */
  extend(count: number): Uint8Array<ArrayBuffer> {
    const end = this.#length + count;
    if (end > this.#bytes.length) {
      const grown = newBytes(end + Math.floor(end / 4));
      grown.set(this.bytes);
      this.#bytes = grown;
    }
    const added = this.#bytes.subarray(this.#length, end);
    this.#length = end;
    return added;
  }

  /** Drops all bytes from `length` on. */
  truncate(length: number): void {
    this.#length = length;
  }
}
