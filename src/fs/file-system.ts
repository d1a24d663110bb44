/** The interface of every storage backend: named files, and nothing else. */

/** Named files. A backend needs no rename and no directories. */
export interface FileSystem {
  /**
   * Opens `name` for reading and writing.
   * @throws {@link CodError} COD_NOT_FOUND if it is missing and `create` is not set; COD_TARGET_IO, COD_NO_SPACE.
   */
  open(name: string, options?: { create?: boolean }): Promise<File>;
  /** Removes `name`; resolves if it does not exist. Not durable by itself. */
  remove(name: string): Promise<void>;
  /**
   * Names the current boot of the machine. While it stays the same, everything that was written is there, synced or
   * not. Absent (as in a browser): after a restart only what was synced may be believed.
   */
  readonly bootId?: string;
  /**
   * Locks `name` for one owner until the lease is released or the owner dies. Without it, only a second owner on the
   * same `FileSystem` object is refused.
   * @throws {@link CodError} COD_LOCKED if it has an owner.
   */
  lock?(name: string): Promise<Lease>;
}

/** Ownership of a name. */
export interface Lease {
  /** Releases the name. Idempotent. */
  release(): Promise<void>;
}

/** An open file. Calls may overlap; a backend need not order overlapping calls on the same bytes. */
export interface File {
  /** The file's size in bytes. */
  size(): Promise<number>;
  /**
   * Fills `into` with the bytes from `offset` on.
   * @throws {@link CodError} COD_SHORT_READ if the file ends before; COD_TARGET_IO.
   */
  read(into: Uint8Array, offset: number): Promise<void>;
  /**
   * Writes all of `from` at `offset`. A gap between the old end and `offset` reads as zeros.
   * @throws {@link CodError} COD_NO_SPACE, COD_TARGET_IO.
   */
  write(from: Uint8Array, offset: number): Promise<void>;
  /** Sets the size in bytes. Added bytes read as zeros, even if the file was longer before. */
  truncate(size: number): Promise<void>;
  /** Makes every change that returned before the call durable, and the file's name. */
  sync(): Promise<void>;
  /** Closes the file after its calls in flight. Idempotent. Other calls reject with COD_CLOSED from then on. */
  close(): Promise<void>;
}
