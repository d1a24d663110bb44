/** The read-only origin of a copy. */

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
   * As {@link read}, inside the call; false, and nothing done, where that would keep the caller too long. Left out by a source that always would.
   * @throws {@link CodError} as {@link read}.
   */
  readNow?(into: Uint8Array, offset: number): boolean;
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
