/** The one interface that every storage backend stands behind: named files, and nothing else. */

/** Named files. A backend needs no rename and no directories. */
export interface FileSystem {
  /**
   * Opens `name` for reading and writing.
   * @throws {@link CodError} COD_NOT_FOUND if it is missing and `create` is not set; COD_TARGET_IO, COD_NO_SPACE.
   */
  open(name: string, options?: { create?: boolean }): Promise<File>;
  /** Removes `name`; resolves if it is not there. Not durable by itself. */
  remove(name: string): Promise<void>;
  /**
   * Names the present boot of the machine. While it stays the same, whatever was written is there, synced or not.
   * Absent (as in a browser): only what was synced may be believed after a restart.
   */
  readonly bootId?: string;
  /**
   * Locks `name` for one owner until the lease is released or the owner dies. Without it, only a second owner on the
   * same `FileSystem` object is refused.
   * @throws {@link CodError} COD_LOCKED if it has an owner.
   */
  lock?(name: string): Promise<Lease>;
}

/** The ownership of a name. */
export interface Lease {
  /** Lets others own the name. Idempotent. */
  release(): Promise<void>;
}

/** An open file. Calls may overlap; a backend need not order overlapping calls on the same bytes. */
export interface File {
  /** The file's size in bytes. */
  size(): Promise<number>;
  /** Fills `into` from `offset` on. @throws {@link CodError} COD_SHORT_READ if the file ends before, COD_TARGET_IO. */
  read(into: Uint8Array, offset: number): Promise<void>;
  /** Writes all of `from` at `offset`; a gap behind the old end reads as zeros. @throws {@link CodError} COD_NO_SPACE, COD_TARGET_IO. */
  write(from: Uint8Array, offset: number): Promise<void>;
  /** Sets the size; what is gained reads as zeros, also where the file was longer before. */
  truncate(size: number): Promise<void>;
  /** Data, size and the file's name are durable when it resolves. */
  sync(): Promise<void>;
  /** Idempotent. */
  close(): Promise<void>;
}
