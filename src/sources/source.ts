/** The read-only origin of a copy. */

import type { Done } from '../async/done.ts';

/** A run of bytes of one kind; `zero`: known to read as zeros without being fetched. */
export interface SourceExtent {
  readonly length: number;
  readonly zero: boolean;
}

/** How a stretch is to be streamed. */
export interface StreamOptions {
  signal?: AbortSignal;
  pieceBytes?: number | undefined;
}

/** Read-only bytes that may be slow and far away. All calls may overlap. */
export interface Source {
  /** Bytes. */
  readonly size: number;
  /** Names this very content: ETag, mtime and inode, digest. A resume against another identity is refused. */
  readonly identity?: string;
  /**
   * Fills `into` from `offset` on.
   * @throws {@link CodError} COD_SOURCE_IO, COD_SHORT_READ, COD_SOURCE_CHANGED; the signal's reason if it is aborted.
   */
  read(into: Uint8Array, offset: number, options?: { signal?: AbortSignal }): Promise<void>;
  /**
   * The bytes from `offset` on as one long request, for a source where that is faster than many reads: pieces of any length, in order, `length`
   * bytes in all. A piece belongs to the consumer until it asks for the next one; not asking holds the source back. Ending the
   * iteration early (`return`) ends the request. Errors as with {@link read}; a stream that broke may be asked for again from where it broke.
   * `pieceBytes`: how long the consumer would like them, out of a {@link pageBuffer} if they can be.
   */
  stream?(offset: number, length: number, options?: StreamOptions): AsyncIterableIterator<Uint8Array>;
  /** What is known of `[offset, offset + length)` without fetching it, in order, `length` bytes in all. */
  extents?(offset: number, length: number): Promise<readonly SourceExtent[]>;
  close(): Promise<void>;
}

/** Sources of our own: reads that can complete before they return. */
export interface InlineSource extends Source {
  /** As {@link Source.read}: synchronously if the read is short. May throw. */
  submitRead?(into: Uint8Array, offset: number): Done;
}
