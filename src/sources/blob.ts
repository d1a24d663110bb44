/** A source over a Blob or a File: a file picked in a browser, or `fs.openAsBlob` in Node. */

import { CodError } from '../errors.ts';
import { checkRange } from './range.ts';
import type { Source } from './source.ts';

/** A read copies this many bytes at a time: each piece is in memory twice. */
const READ_BYTES = 1 << 26;

/**
 * Returns a source over `blob`. A File's identity is its name, size and modification time. A plain Blob has none, so a
 * resume cannot tell whether it is the same.
 *
 * Reads reject with COD_SOURCE_IO when the file behind the Blob was changed, moved or removed.
 *
 * @example
 * ```ts
 * import { blobSource } from 'copyondemand';
 *
 * const source = blobSource(new Blob(['a disk image']));
 * const into = new Uint8Array(4);
 * await source.read(into, 2);
 * console.log(new TextDecoder().decode(into)); // disk
 * ```
 */
export function blobSource(blob: Blob): Source & AsyncDisposable {
  return new BlobSource(blob);
}

class BlobSource implements Source, AsyncDisposable {
  readonly size: number;
  declare readonly identity?: string;
  readonly #blob: Blob;
  #closed = false;

  constructor(blob: Blob) {
    this.#blob = blob;
    this.size = blob.size;
    if ('name' in blob && 'lastModified' in blob) this.identity = `file:${blob.name}:${blob.size}:${blob.lastModified}`;
  }

  async read(into: Uint8Array, offset: number, options: { signal?: AbortSignal } = {}): Promise<void> {
    this.#check(offset, into.length, options.signal);
    for (let done = 0; done < into.length; ) {
      const length = Math.min(into.length - done, READ_BYTES);
      const start = offset + done;
      const bytes = await this.#guard(start, this.#blob.slice(start, start + length).arrayBuffer());
      this.#check(offset, into.length, options.signal);
      if (bytes.byteLength !== length) throw short(offset, into.length, done + bytes.byteLength);
      into.set(new Uint8Array(bytes), done);
      done += length;
    }
  }

  async *stream(
    offset: number,
    length: number,
    options: { signal?: AbortSignal } = {},
  ): AsyncIterableIterator<Uint8Array> {
    this.#check(offset, length, options.signal);
    const reader = this.#blob
      .slice(offset, offset + length)
      .stream()
      .getReader();
    let done = 0;
    try {
      for (;;) {
        const next = await this.#guard(offset + done, reader.read());
        this.#check(offset, length, options.signal);
        if (next.done) break;
        done += next.value.length;
        yield next.value;
      }
    } finally {
      await reader.cancel().catch(() => {});
    }
    if (done !== length) throw short(offset, length, done);
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

  async #guard<T>(offset: number, reading: Promise<T>): Promise<T> {
    try {
      return await reading;
    } catch (cause) {
      const where = `blob of ${this.size} bytes cannot be read at ${offset}`;
      const message = `${where}: its file was changed, moved or removed; choose it again`;
      throw new CodError('COD_SOURCE_IO', message, { cause, details: { offset } });
    }
  }
}

function short(offset: number, wanted: number, got: number): CodError {
  return new CodError('COD_SHORT_READ', `read blob at offset ${offset}: got ${got} of ${wanted} bytes`, {
    details: { offset, wanted, got },
  });
}
