/** The read-only origin of a copy. */

import type { Done } from '../async/done.ts';

/** A run of bytes of one kind. `zero`: known to read as zeros without a fetch. */
export interface SourceExtent {
  readonly length: number;
  readonly zero: boolean;
}

/** Read-only bytes, possibly slow and remote. All calls may overlap. */
export interface Source {
  /** Bytes. */
  readonly size: number;
  /**
   * Names the exact content, for example by ETag, digest, or mtime and inode. A resume against another identity is
   * refused.
   */
  readonly identity?: string;
  /**
   * Fills `into` with the bytes from `offset` on.
   * @throws {@link CodError} COD_SOURCE_IO when the bytes cannot be read.
   * @throws {@link CodError} COD_SHORT_READ when the source ends before them.
   * @throws {@link CodError} COD_SOURCE_CHANGED when the content is no longer that at opening.
   * @throws {@link CodError} COD_CLOSED after {@link close}.
   * @throws the signal's reason when it is aborted.
   */
  read(into: Uint8Array, offset: number, options?: { signal?: AbortSignal }): Promise<void>;
  /**
   * Reads `length` bytes from `offset` on as one long request, for a source where that is faster than many reads.
   * Yields pieces of any length in order. A piece belongs to the consumer until the consumer asks for the next one.
   * While the consumer does not ask, the source waits. Ending the iteration early (`return`) ends the request.
   * A stream that failed may be requested again from the offset where it failed.
   * @throws {@link CodError} as {@link read}.
   */
  stream?(offset: number, length: number, options?: { signal?: AbortSignal }): AsyncIterableIterator<Uint8Array>;
  /**
   * Returns what is known of `[offset, offset + length)` without a fetch. The extents are in order and cover `length`
   * bytes.
   */
  extents?(offset: number, length: number): Promise<readonly SourceExtent[]>;
  close(): Promise<void>;
}

/** What the device passes to {@link InlineSource.stream}. */
export interface InternalStreamOptions {
  signal?: AbortSignal;
  /** Preferred length of a piece in bytes. Such pieces begin on a page of memory if possible. */
  pieceBytes?: number | undefined;
}

/** What our own sources offer beyond {@link Source}. Internal. */
export interface InlineSource extends Source {
  /**
   * As {@link read}, but synchronously where that is fast enough.
   * @throws {@link CodError} as {@link read}, synchronously or by the promise.
   */
  submitRead?(into: Uint8Array, offset: number): Done;
  stream?(offset: number, length: number, options?: InternalStreamOptions): AsyncIterableIterator<Uint8Array>;
}
