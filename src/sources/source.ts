/** The read-only origin of a copy. */

import type { Done } from '../async/done.ts';
import type { RetryReport } from './retry.ts';

/** A run of bytes of one kind. */
export interface SourceExtent {
  /** Bytes. */
  readonly length: number;
  /** Whether the bytes are known to read as zeros without a fetch. */
  readonly zero: boolean;
}

/** Read-only bytes, possibly slow and remote. All calls may overlap. */
export interface Source {
  /** Bytes. Does not change. */
  readonly size: number;
  /**
   * Names the exact content, for example by ETag, digest, or mtime and inode. A copy does not resume against another
   * identity. Undefined: nothing tells whether the content is still the same, and a copy of changed content of the same
   * size mixes both. Compare a digest of the complete copy then.
   */
  readonly identity?: string;
  /**
   * Fills `into` with the bytes from `offset` on.
   *
   * @param offset bytes from the beginning of the source
   * @throws {@link CodError} COD_SOURCE_IO when the bytes cannot be read; COD_NOT_FOUND when the resource is gone;
   *   COD_SHORT_READ when the source ends before the end of the range; COD_SOURCE_CHANGED when the content is no longer
   *   that at opening; COD_CLOSED after {@link close}.
   * @throws `RangeError` when the range is outside the source.
   * @throws the signal's reason when it is aborted.
   */
  read(into: Uint8Array, offset: number, options?: { signal?: AbortSignal }): Promise<void>;
  /**
   * Reads a range as one long request, for a source where that is faster than many reads. Absent: the device reads.
   *
   * - Yields pieces of any length in order. A piece belongs to the consumer until the consumer asks for the next one.
   * - The source waits while the consumer does not ask.
   * - Ending the iteration early (`return`) ends the request.
   * - A stream that failed may be requested again from the offset where it failed.
   *
   * @throws as {@link read}.
   */
  stream?(offset: number, length: number, options?: { signal?: AbortSignal }): AsyncIterableIterator<Uint8Array>;
  /**
   * Returns which bytes of `[offset, offset + length)` are known to be zeros. The extents are in order and cover
   * `length` bytes. Absent: nothing is known.
   *
   * @throws as {@link read}.
   */
  extents?(offset: number, length: number): Promise<readonly SourceExtent[]>;
  /**
   * Frees files and connections. Aborts or completes calls in flight. Idempotent. Later calls reject with COD_CLOSED.
   */
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
  /** Called for each failed request that is tried again, before the delay. Its owner may set it. */
  onRetry?: ((retry: RetryReport) => void) | undefined;
  /** Names the server. Copies from one server share what they learn of it. */
  readonly place?: string | undefined;
  /** What the server says that the bytes are: the header Content-Type. */
  readonly contentType?: string | undefined;
  /** Permission bits of the file that is read: the copy is not readable for others than the file. Default: 0o666. */
  readonly mode?: number;
  /**
   * As {@link read}, but synchronously where that is fast enough.
   * @throws {@link CodError} as {@link read}, synchronously or by the promise.
   */
  submitRead?(into: Uint8Array, offset: number): Done;
  /**
   * As {@link read}, but synchronously. Returns false, and does nothing, where that might take long.
   * @throws {@link CodError} as {@link read}
   */
  readNow?(into: Uint8Array, offset: number): boolean;
  stream?(offset: number, length: number, options?: InternalStreamOptions): AsyncIterableIterator<Uint8Array>;
}
