/** Reads a range of a file from its beginning to its end, as one request where the file allows. */

import type { Source } from '../source.ts';

const READ_BYTES = 2 ** 19;

export class HostReader {
  readonly #pieces: AsyncIterator<Uint8Array>;
  #at: number;
  /** Received and not taken. Valid until the next piece is asked for. */
  #left: Uint8Array = new Uint8Array(0);

  constructor(pieces: AsyncIterator<Uint8Array>, start: number) {
    this.#pieces = pieces;
    this.#at = start;
  }

  /** Returns the bytes from `offset` on, which is not before the end of what was taken: 1 to `limit` of them. */
  async some(offset: number, limit: number): Promise<Uint8Array> {
    while (this.#at + this.#left.length <= offset) {
      this.#at += this.#left.length;
      const { done, value } = await this.#pieces.next();
      // A source that ends early is reported by the length of what the caller gets.
      if (done) return new Uint8Array(0);
      this.#left = value;
    }
    const skip = offset - this.#at;
    const taken = this.#left.subarray(skip, Math.min(this.#left.length, skip + limit));
    this.#left = this.#left.subarray(skip + taken.length);
    this.#at = offset + taken.length;
    return taken;
  }

  /** Returns `length` bytes from `offset` on, or fewer if the source ends early. */
  async all(offset: number, length: number): Promise<Uint8Array> {
    const first = await this.some(offset, length);
    if (first.length === length) return first;
    const bytes = new Uint8Array(length);
    bytes.set(first);
    let filled = first.length;
    for (let more = first; filled < length && more.length > 0; filled += more.length) {
      more = await this.some(offset + filled, length - filled);
      bytes.set(more, filled);
    }
    return bytes.subarray(0, filled);
  }

  async end(): Promise<void> {
    await this.#pieces.return?.();
  }
}

/** The bytes [start, end) of a file, in pieces that are valid until the next one is asked for. */
export function piecesOf(
  file: Source,
  start: number,
  end: number,
  options: { signal: AbortSignal; pieceBytes: number | undefined },
): AsyncIterator<Uint8Array> {
  return file.stream?.(start, end - start, options) ?? reads(file, start, end, options.signal);
}

async function* reads(file: Source, start: number, end: number, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  const buffer = new Uint8Array(Math.min(READ_BYTES, end - start));
  for (let at = start; at < end; ) {
    const piece = buffer.subarray(0, end - at);
    await file.read(piece, at, { signal });
    yield piece;
    at += piece.length;
  }
}
