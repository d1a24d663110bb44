/**
 * Browser storage: files of the origin private file system (OPFS) over synchronous access handles, which only a
 * dedicated worker can open.
 *
 * Invariants:
 * - Every operation completes synchronously, before its promise is returned.
 * - Every count and size that the browser returns is checked: a private window may refuse large offsets without an
 *   error. In Chromium 156 a write "wrote" 4,294,967,288 bytes, and a truncation did nothing.
 * - An open file is exclusive. No file is ever renamed.
 * - The browser removes names while files are open: the user may remove the site's data. In Chromium 156 the handles
 *   then keep working, in Firefox 153 they are closed. {@link watchNames} finds that out.
 *
 * Flushed data is durable once the file's *name* is. Names become durable within 45 s (measured, ext4), and no call
 * forces them.
 */

import type { Done } from '../async/done.ts';
import { CodError, type CodErrorCode, isCodError } from '../errors.ts';
import type { FileSystem, NameWatch } from './file-system.ts';
import type { InlineFile } from './inline-file.ts';
import { noStorage } from './opfs-refusal.ts';

/** Options of {@link opfsFileSystem}. */
export interface OpfsFileSystemOptions {
  /**
   * Names the boot of the machine, as {@link FileSystem.bootId}. Nothing that is stored depends on it. Default: none.
   */
  readonly bootId?: string;
}

/** A synchronous access handle. TypeScript declares it in its library for workers only. */
interface SyncAccessHandle {
  read(into: Uint8Array, options: { at: number }): number;
  write(from: Uint8Array, options: { at: number }): number;
  truncate(size: number): void;
  getSize(): number;
  flush(): void;
  close(): void;
}

interface SyncFileHandle {
  createSyncAccessHandle(): Promise<SyncAccessHandle>;
}

/** A worker that is terminated during a write keeps its files locked for up to 2.4 s (measured). */
const LOCK_PATIENCE_MS = 5000;
const LOCK_RETRY_MS = 20;

const LOOK_MS = 2000;
/** A look costs 1 to 5 ms (Chromium 156), too much for each flush. */
const RECENT_MS = 1000;

/** The most bytes of one call. */
const CALL_BYTES = 1 << 30;

/**
 * Opens a file system in the origin private file system (OPFS). For a dedicated worker. Names contain no `/`. The call
 * does no I/O. The file system has no `lock`, since an open file is exclusive.
 *
 * - Calls that open or remove a file that is open elsewhere retry for 5 s, then reject with COD_LOCKED. The 5 s outlast
 *   a terminated worker.
 * - Calls reject with COD_UNSUPPORTED where the browser gives no storage, outside a dedicated worker, and for a file
 *   that is too large for a private window.
 * - Calls reject with `TypeError` for a name that OPFS does not allow.
 * - Flushed data is durable once the file's name is, which takes up to 45 s (measured, ext4). No call forces that.
 * - OPFS cannot make a file only if it is new. With `exclusive`, `open` looks first, so only one worker at a time may
 *   make a name.
 *
 * @param directory default: the root of the origin's file system
 * @example
 * ```ts
 * // In a dedicated worker:
 * import { httpSource, openDevice } from 'copyondemand';
 * import { opfsFileSystem } from 'copyondemand/opfs';
 *
 * const source = await httpSource('https://example.org/disk.raw');
 * const device = await openDevice({ source, fileSystem: opfsFileSystem(), target: 'disk.raw' });
 * await device.read(new Uint8Array(512), 0);
 * await device.close();
 * ```
 */
export function opfsFileSystem(directory?: FileSystemDirectoryHandle, options: OpfsFileSystemOptions = {}): FileSystem {
  let root: Promise<FileSystemDirectoryHandle> | undefined;
  const files = new Set<OpfsFile>();
  /** Returns the root of the open files. {@link watchNames} needs it, even if the browser has removed it since. */
  const where = (): Promise<FileSystemDirectoryHandle> => {
    if (files.size === 0) root = undefined;
    root ??= directory === undefined ? privateRoot() : Promise.resolve(directory);
    root.catch(() => (root = undefined));
    return root;
  };
  return {
    open: async (name, { create, exclusive, readOnly } = {}) => {
      const handle = await whileLocked(`open ${name}`, async () => {
        const parent = await where();
        if (exclusive && !readOnly && (await parent.getFileHandle(name).catch(() => undefined)))
          throw new CodError('COD_EXISTS', `${name} exists`);
        const entry = await parent.getFileHandle(name, { create: !readOnly && !!(create || exclusive) });
        if (!('createSyncAccessHandle' in entry)) {
          throw new CodError('COD_UNSUPPORTED', 'OPFS files can be opened in a dedicated worker only');
        }
        return (entry as SyncFileHandle).createSyncAccessHandle();
      });
      if (readOnly)
        handle.write = handle.truncate = () => {
          throw new CodError('COD_READ_ONLY', `${name} is read-only`);
        };
      const file: OpfsFile = new OpfsFile(name, handle, () => files.delete(file));
      files.add(file);
      return file;
    },
    remove: async (name) => removeFile(await where(), name),
    watch: (onRemoved) => watchNames(where, files, onRemoved),
    ...(options.bootId === undefined ? {} : { bootId: options.bootId }),
  };
}

/**
 * Removes a file; resolves if it does not exist. A separate function, so that a page need not load the rest.
 * @throws {@link CodError} as `remove` of {@link opfsFileSystem}.
 */
export async function removeFile(directory: FileSystemDirectoryHandle, name: string): Promise<void> {
  try {
    await whileLocked(`remove ${name}`, () => directory.removeEntry(name));
  } catch (error) {
    if (!isCodError(error, 'COD_NOT_FOUND')) throw error;
  }
}

/**
 * Returns the directory at `path` for {@link opfsFileSystem}. Makes missing directories.
 *
 * @param path names separated by `/`; `''` is the root
 * @throws {@link CodError} COD_UNSUPPORTED when the browser gives no storage; COD_TARGET_IO when one of the names is
 *   that of a file; COD_NO_SPACE when the quota is full.
 * @throws `TypeError` when OPFS does not allow a name.
 * @example
 * ```ts
 * // In a dedicated worker:
 * import { opfsDirectory, opfsFileSystem } from 'copyondemand/opfs';
 *
 * const fileSystem = opfsFileSystem(await opfsDirectory('images/linux'));
 * const file = await fileSystem.open('notes', { create: true });
 * await file.write(new Uint8Array(512), 0);
 * await file.sync();
 * await file.close();
 * ```
 */
export async function opfsDirectory(path: string): Promise<FileSystemDirectoryHandle> {
  let directory = await privateRoot();
  for (const name of path.split('/').filter((part) => part !== '')) {
    try {
      directory = await directory.getDirectoryHandle(name, { create: true });
    } catch (cause) {
      throw opfsError(`open the directory ${path}`, cause, { path });
    }
  }
  return directory;
}

/**
 * Returns the root of the browser storage.
 * @throws {@link CodError} COD_UNSUPPORTED when the browser gives none.
 */
export async function privateRoot(): Promise<FileSystemDirectoryHandle> {
  if (globalThis.navigator?.storage?.getDirectory === undefined) throw noStorage();
  try {
    return await navigator.storage.getDirectory();
  } catch (cause) {
    throw opfsError('open the browser storage (OPFS)', cause);
  }
}

/**
 * Watches the names of `files`, by the handle of their directory: a new handle would lead to what came after a removal.
 * One file is enough, since the browser removes all data of a site together.
 */
function watchNames(
  where: () => Promise<FileSystemDirectoryHandle>,
  files: ReadonlySet<OpfsFile>,
  onRemoved: () => void,
): NameWatch {
  let removed = false;
  let lookedMs = Number.NEGATIVE_INFINITY;
  const check = async (): Promise<string | undefined> => {
    const [file] = files;
    if (file !== undefined && !removed && performance.now() - lookedMs > RECENT_MS) {
      removed = await file.isRemoved(await where());
      lookedMs = performance.now();
    }
    return removed ? 'is gone: the data of this site was removed while it was open' : undefined;
  };
  const look = async (): Promise<void> => {
    if ((await check().catch(() => undefined)) === undefined) return;
    clearInterval(timer);
    onRemoved();
  };
  const timer = setInterval(look, LOOK_MS);
  return { check, end: () => clearInterval(timer) };
}

/**
 * Repeats `call` while the file is open elsewhere, or while the browser removes the site's data, for at most
 * {@link LOCK_PATIENCE_MS}. During a removal Chromium 156 throws InvalidStateError.
 */
async function whileLocked<T>(operation: string, call: () => Promise<T>): Promise<T> {
  const start = performance.now();
  for (;;) {
    try {
      return await call();
    } catch (cause) {
      const error = opfsError(operation, cause);
      const passes = isCodError(error, 'COD_LOCKED') || Object(cause).name === 'InvalidStateError';
      if (!passes || performance.now() - start >= LOCK_PATIENCE_MS) throw error;
      await new Promise((resolve) => setTimeout(resolve, LOCK_RETRY_MS));
    }
  }
}

const CODES: Readonly<Record<string, CodErrorCode>> = {
  NotFoundError: 'COD_NOT_FOUND',
  NoModificationAllowedError: 'COD_LOCKED',
  QuotaExceededError: 'COD_NO_SPACE',
  // Firefox 153 throws this instead of a DOMException for a truncation beyond the quota.
  NS_ERROR_FILE_NO_DEVICE_SPACE: 'COD_NO_SPACE',
};

/** What is clearer than the browser's message. */
const REASONS: Readonly<Record<string, string>> = {
  NoModificationAllowedError: 'the file is open in another tab or worker',
  InvalidStateError: 'the data of this site was removed: reload the page',
};

/** Returns the error of a failed call. Errors of wrong arguments stay as they are. */
function opfsError(operation: string, cause: unknown, details: Readonly<Record<string, unknown>> = {}): Error {
  if (cause instanceof CodError || cause instanceof TypeError || cause instanceof RangeError) return cause;
  // Firefox's own exceptions are not instances of Error. They have a name all the same, and an empty message.
  const { name = '', message = '' } = Object(cause) as Partial<Error>;
  if (name === 'SecurityError') return noStorage(cause);
  const code = CODES[name] ?? 'COD_TARGET_IO';
  const why = REASONS[name] ?? (message || String(cause));
  return new CodError(code, `${operation}: ${why}`, {
    cause,
    details: { ...details, ...(name === '' ? {} : { error: name }) },
  });
}

class OpfsFile implements InlineFile {
  readonly #name: string;
  readonly #handle: SyncAccessHandle;
  readonly #onClosed: () => void;
  #closed = false;

  constructor(name: string, handle: SyncAccessHandle, onClosed: () => void) {
    this.#name = name;
    this.#handle = handle;
    this.#onClosed = onClosed;
  }

  /** Whether the browser has removed the file from `directory`, or put an empty file in its place. */
  async isRemoved(directory: FileSystemDirectoryHandle): Promise<boolean> {
    try {
      const before = this.#handle.getSize();
      const { size } = await (await directory.getFileHandle(this.#name)).getFile();
      return size === 0 && before > 0 && this.#handle.getSize() > 0;
    } catch (cause) {
      if (this.#closed) return false;
      const error = opfsError(`look for ${this.#name}`, cause);
      if (isCodError(error, 'COD_NOT_FOUND') || Object(cause).name === 'InvalidStateError') return true;
      throw error;
    }
  }

  async size(): Promise<number> {
    return this.#attempt('size', 0, 0, () => this.#handle.getSize());
  }

  async read(into: Uint8Array, offset: number): Promise<void> {
    await this.submitRead(into, offset);
  }

  submitRead(into: Uint8Array, offset: number): Done {
    this.#attempt('read', offset, into.length, () => {
      for (let done = 0; done < into.length; ) {
        const part = into.subarray(done, done + CALL_BYTES);
        const count = this.#handle.read(part, { at: offset + done });
        if (count === 0) throw this.#shortRead(into.length, offset, done);
        if (!isCount(count, part.length)) throw new Error(`the browser read ${count} of ${part.length} bytes`);
        done += count;
      }
    });
    return undefined;
  }

  async write(from: Uint8Array, offset: number): Promise<void> {
    await this.submitWrite(from, offset);
  }

  submitWrite(from: Uint8Array, offset: number): Done {
    this.#attempt('write', offset, from.length, () => {
      for (let done = 0; done < from.length; ) {
        const part = from.subarray(done, done + CALL_BYTES);
        const count = this.#handle.write(part, { at: offset + done });
        // Firefox 153 writes nothing where the quota is exceeded, so this need not be a private window.
        if (!isCount(count, part.length))
          throw refused('COD_NO_SPACE', `the browser wrote ${count} of ${part.length} bytes`);
        done += count;
      }
    });
    return undefined;
  }

  async truncate(size: number): Promise<void> {
    this.#attempt('truncate', size, 0, () => {
      this.#handle.truncate(size);
      const found = this.#handle.getSize();
      if (found !== size) throw refused('COD_UNSUPPORTED', `the file has ${found} bytes instead of ${size}`);
    });
  }

  async sync(): Promise<void> {
    this.#attempt('sync', 0, 0, () => this.#handle.flush());
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#onClosed();
    this.#handle.close();
  }

  #shortRead(length: number, offset: number, done: number): CodError {
    return new CodError(
      'COD_SHORT_READ',
      `read ${this.#name} at offset ${offset}: the file ends after ${done} of ${length} bytes`,
      {
        details: { name: this.#name, offset, length, read: done },
      },
    );
  }

  #attempt<T>(operation: string, offset: number, length: number, call: () => T): T {
    if (this.#closed) throw new CodError('COD_CLOSED', `${this.#name} is closed`, { details: { name: this.#name } });
    if (!(Number.isSafeInteger(offset) && offset >= 0 && Number.isSafeInteger(offset + length))) {
      throw new RangeError(`${length} bytes at offset ${offset} are not a range of safe integers`);
    }
    try {
      return call();
    } catch (cause) {
      const details = { name: this.#name, offset, length };
      throw opfsError(`${operation} ${this.#name} at offset ${offset}, ${length} bytes`, cause, details);
    }
  }
}

/** Whether `count` is possible for a call of `length` bytes that moved at least one. */
function isCount(count: number, length: number): boolean {
  return Number.isInteger(count) && count > 0 && count <= length;
}

/** Returns the error for a call that the browser refused without an error. */
function refused(code: CodErrorCode, what: string): CodError {
  return new CodError(code, `${what}: make room, or leave the private window`);
}
