/** The read-only origin of a copy. */

import type { Done } from '../async/done.ts';

/** A run of bytes of one kind; `zero`: known to read as zeros without being fetched. */
export interface SourceExtent {
  readonly length: number;
  readonly zero: boolean;
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
   * Reads `length` bytes from `offset` on as one long request, for a source where that is faster than many reads.
   * Yields pieces of any length in order. A piece belongs to the consumer until the consumer asks for the next one.
   * The source waits while the consumer does not ask. Ending the iteration early (`return`) ends the request.
   * A stream that failed may be requested again from the offset where it failed.
   * @throws {@link CodError} as {@link read}.
   */
  stream?(offset: number, length: number, options?: { signal?: AbortSignal }): AsyncIterableIterator<Uint8Array>;
  /** What is known of `[offset, offset + length)` without fetching it, in order, `length` bytes in all. */
  extents?(offset: number, length: number): Promise<readonly SourceExtent[]>;
  close(): Promise<void>;
}

/** What the device passes to {@link InlineSource.stream}. */
export interface InternalStreamOptions {
  signal?: AbortSignal;
  /** The length of pieces that the consumer prefers, in bytes; such pieces begin on a page of memory if possible. */
  pieceBytes?: number | undefined;
}

/** What our own sources can do beyond {@link Source}. Internal. */
export interface InlineSource extends Source {
  /**
   * As {@link read}, but synchronously where that is fast enough.
   * @throws {@link CodError} as {@link read}, synchronously or by the promise.
   */
  submitRead?(into: Uint8Array, offset: number): Done;
  stream?(offset: number, length: number, options?: InternalStreamOptions): AsyncIterableIterator<Uint8Array>;
}
