/** The interface of every storage backend: named files, and nothing else. */

/**
 * Named files. A backend needs no rename and no directories. `fileSystemSuite` of `copyondemand/testing` tests an
 * implementation.
 */
export interface FileSystem {
  /**
   * Opens `name` for reading and writing.
   *
   * @throws {@link CodError} COD_NOT_FOUND when the file is missing and is not to be made, or its directory is missing;
   *   COD_EXISTS as {@link OpenOptions} say; COD_LOCKED when open files are exclusive and the file is open (OPFS);
   *   COD_NO_SPACE; COD_TARGET_IO.
   */
  open(name: string, options?: OpenOptions): Promise<File>;
  /**
   * Removes `name`; resolves if it does not exist. The removal is not durable by itself.
   *
   * @throws {@link CodError} COD_LOCKED when open files are exclusive and the file is open (OPFS); COD_TARGET_IO.
   */
  remove(name: string): Promise<void>;
  /**
   * Names the current boot of the machine. Helps to tell whether an owner may be alive; proves nothing about data.
   */
  readonly bootId?: string;
  /**
   * Locks `name` for one owner until the lease is released or the owner dies. The file need not exist. Without this
   * method, only a second owner on the same `FileSystem` object is refused.
   *
   * @throws {@link CodError} COD_LOCKED when the name has an owner; COD_NOT_FOUND when its directory is missing;
   *   COD_EXISTS when another program's file is in the way; COD_NO_SPACE; COD_TARGET_IO.
   * @throws the signal's reason when the signal is aborted during a wait.
   */
  lock?(name: string, options?: LeaseOptions): Promise<Lease>;
  /**
   * Watches whether the files that this object has open still have their names, for a platform that removes names from
   * outside: a browser removes the data of a site while it is in use. Absent: only their owner removes names.
   *
   * @param onRemoved is called once, within seconds after the names were removed
   */
  watch?(onRemoved: () => void): NameWatch;
  /**
   * Makes the file `to`, which shares the storage of `from` until one of them changes (reflink). It holds what `from`
   * reads as at a moment of the call, and is durable after a later `sync`. A failed call leaves no file. Optional:
   * without it, bytes are copied.
   *
   * @throws {@link CodError} COD_UNSUPPORTED when the file system cannot do that; COD_EXISTS when `to` exists;
   *   COD_NOT_FOUND; COD_NO_SPACE; COD_TARGET_IO.
   */
  clone?(from: string, to: string): Promise<void>;
  /**
   * Checks that `name` has no owner that may be alive. Takes and changes nothing. A backend with `lock` should have it:
   * without it, a reader cannot tell that another program has the copy open.
   *
   * @throws {@link CodError} COD_LOCKED when the name has an owner; COD_NOT_FOUND when its directory is missing;
   *   COD_EXISTS when another program's file is in the way; COD_TARGET_IO.
   */
  assertNotOwned?(name: string): Promise<void>;
  /**
   * Returns the free bytes of the volume that holds `name`, for the user of this process. With it, a background copy
   * that does not fit on the volume leaves room for users' writes.
   *
   * @throws {@link CodError} or another error when that is not known.
   */
  freeBytes?(name: string): Promise<number>;
  /** Returns the bytes of the volume that holds `name`. Default: unknown. */
  volumeBytes?(name: string): Promise<number>;
  /**
   * Returns the bytes of the volume that the file `name` has already: writes there need no more room. Default: 0.
   *
   * @throws {@link CodError} or another error when that is not known.
   */
  allocatedBytes?(name: string): Promise<number>;
}

/** Made by {@link FileSystem.watch}. */
export interface NameWatch {
  /**
   * Returns why the names are gone, as the end of a sentence about the copy. Undefined: they were there a second ago.
   *
   * @throws {@link CodError} COD_TARGET_IO when that cannot be known.
   */
  check(): Promise<string | undefined>;
  /** Ends the watch. Idempotent. */
  end(): void;
}

/** How {@link FileSystem.lock} treats an owner that may be dead. */
export interface LeaseOptions {
  /**
   * Replaces an owner on another machine when its heartbeat has stood still for 10 s, instead of 30 s. Default: false.
   */
  readonly takeOver?: boolean | undefined;
  /** Aborts the wait for a heartbeat. */
  readonly signal?: AbortSignal | undefined;
  /** What the name is locked for. A backend may let other processes ask for it (`controlOf` of `copyondemand/node`). */
  readonly owner?: LeaseOwner | undefined;
}

/** The copy that a name is locked for. */
export interface LeaseOwner {
  /** Name of the copy in the file system. */
  readonly target: string;
  /** The open `Device`. Undefined: it is being opened. */
  readonly device: unknown;
  /** As `Device.events`, from the beginning of the opening on. */
  events(options: { signal: AbortSignal }): AsyncIterable<unknown>;
}

/** How {@link FileSystem.open} opens a file. */
export interface OpenOptions {
  /** Makes an empty file if none exists. Default: false. */
  readonly create?: boolean;
  /** Makes the file. It must be new, else COD_EXISTS, and no link at its name is followed. Default: false. */
  readonly exclusive?: boolean;
  /**
   * Changes nothing: makes no file, `write` and `truncate` reject with COD_READ_ONLY, and `sync` does nothing. A file
   * that may not be written can be read. Default: false.
   */
  readonly readOnly?: boolean;
  /**
   * Permission bits of a new file, less the umask. The owner may read and write what `exclusive` makes, whatever the
   * umask is. A backend without permissions ignores this. Default: 0o666.
   */
  readonly mode?: number;
  /**
   * Refuses a symbolic link, a directory, a device or a pipe at the name with COD_EXISTS. A backend that has no such
   * things ignores this. Default: false.
   */
  readonly noFollow?: boolean;
}

/** Ownership of a name. */
export interface Lease {
  /**
   * Returns whether the lease still has the name. False: another owner has taken over, which is final.
   *
   * @throws {@link CodError} COD_TARGET_IO when that cannot be known.
   */
  check(): Promise<boolean>;
  /**
   * Whether the last successful {@link check} is so recent that no other owner can be in its place for 10 s. Absent:
   * always, since no owner is ever replaced while it lives.
   */
  readonly isRecent?: boolean;
  /** Who has taken over, once {@link check} has returned false. */
  readonly successor?: string | undefined;
  /** Whether an owner before may still be alive, so that its files must not be used again. Default: false. */
  readonly unproved?: boolean;
  /**
   * Says that the owner's files are made, and new ones are in the place of those that an owner before knows. Ends
   * {@link unproved}, durably.
   */
  renewed?(): Promise<void>;
  /**
   * As {@link FileSystem.remove}, and leaves a file of an owner that has taken over, whenever it did: {@link check}
   * then returns false. A lease that others can take over should have it.
   *
   * @throws {@link CodError} COD_TARGET_IO.
   */
  remove?(name: string): Promise<void>;
  /** Puts back what {@link remove} of an owner before has moved aside, if that is how it removes a name. */
  restore?(): Promise<void>;
  /**
   * Runs `step`. If it rejects with COD_NO_SPACE and the lease keeps room back for a full disk, gives that room up,
   * runs `step` once more, and keeps back what is left. Absent: the backend keeps no room back.
   */
  withRoom?(step: () => void | Promise<void>): Promise<void>;
  /**
   * Releases the name, unless another owner has taken over. Idempotent.
   *
   * @throws {@link CodError} COD_TARGET_IO when the lock file cannot be removed.
   */
  release(): Promise<void>;
}

/** The bytes that a device is to hold. A source is one. */
export interface Image {
  /** Bytes. */
  readonly size: number;
  /** Fills `into` with the bytes from `offset` on. */
  read(into: Uint8Array, offset: number): Promise<void>;
}

/**
 * An open file. Calls may overlap; a backend need not order overlapping calls on the same bytes. Every call but
 * {@link close} rejects with COD_CLOSED once the file is closed. An offset or end that is not a safe integer from 0 on
 * rejects with `RangeError`. A file that was opened with `readOnly` rejects changes with COD_READ_ONLY.
 */
export interface File {
  /**
   * Names what a block device seems to hold, such as a file system, or `image` itself. Undefined: nothing that
   * is known. Absent: the file is no block device. The size of a block device cannot be changed, and it holds any bytes
   * where nothing was written.
   *
   * @throws as the device and the image are read.
   */
  deviceContents?(image: Image): Promise<string | undefined>;
  /**
   * Returns the file's size in bytes.
   *
   * @throws {@link CodError} COD_TARGET_IO; COD_CLOSED.
   */
  size(): Promise<number>;
  /**
   * Fills `into` with the bytes from `offset` on.
   *
   * @param offset bytes from the beginning of the file
   * @throws {@link CodError} COD_SHORT_READ when the file ends before `into` is full; COD_TARGET_IO; COD_CLOSED.
   */
  read(into: Uint8Array, offset: number): Promise<void>;
  /**
   * Writes all of `from`, which must not change until the promise settles. A gap between the old end and `offset`
   * reads as zeros. The write is durable after a later {@link sync}. A rejected write may have written a part.
   *
   * @param offset bytes from the beginning of the file
   * @throws {@link CodError} COD_NO_SPACE; COD_TARGET_IO; COD_CLOSED.
   */
  write(from: Uint8Array, offset: number): Promise<void>;
  /**
   * Sets the size in bytes. Added bytes read as zeros, even if the file was longer before. The size is durable after a
   * later {@link sync}.
   *
   * @throws {@link CodError} COD_NO_SPACE; COD_TARGET_IO; COD_CLOSED.
   */
  truncate(size: number): Promise<void>;
  /**
   * Makes every change that returned before the call durable, and the file's name. OPFS cannot make the name durable
   * within the file's first minute. After a rejection, unsynced changes may be lost, and a second sync proves nothing.
   *
   * @throws {@link CodError} COD_NO_SPACE; COD_TARGET_IO; COD_CLOSED.
   */
  sync(): Promise<void>;
  /**
   * Closes the file after its calls in flight. Idempotent. Makes nothing durable.
   *
   * @throws {@link CodError} COD_TARGET_IO.
   */
  close(): Promise<void>;
}
