/**
 * A {@link FileSystem} over anything shaped like `node:fs`.
 *
 * Invariants:
 * - Reads and writes name their position, so that overlapping calls do not disturb each other.
 * - Short reads and writes complete synchronously until one of them waits for a disk ({@link InlineCalls}). Longer ones
 *   and every sync leave the event loop free.
 * - A file's descriptor is closed after its last call has returned.
 */

import type { Done } from '../async/done.ts';
import { CodError } from '../errors.ts';
import { errnoOf, ioError } from '../platform/errno.ts';
import { type EventLoop, InlineCalls } from '../platform/inline-calls.ts';
import { areWholePages, PAGE_BYTES } from '../platform/pages.ts';
import type { File, FileSystem, Image, Lease, LeaseOptions, OpenOptions } from './file-system.ts';
import type { InlineFile } from './inline-file.ts';

/** The calls of `node:fs` that every backend of this kind has. Each throws an error with the errno as its `code`. */
export interface FsLike {
  /** Opens the file at `path` and returns its descriptor. `mode`: permission bits of a new file, less the umask. */
  openSync(path: string, flags: number, mode?: number): number;
  /** Closes a descriptor. */
  closeSync(fd: number): void;
  /** Returns the size in bytes, the permission bits, and whether the file is a regular one. */
  fstatSync(fd: number): { readonly size: number; readonly mode: number; isFile(): boolean };
  /** Returns whether the file at `path` is a regular one. Does not follow a link. */
  lstatSync(path: string): { isFile(): boolean };
  /** Sets the permission bits. */
  fchmodSync(fd: number, mode: number): void;
  /** Reads up to `length` bytes at `position` into `into`, from its index `start` on. Returns the number of bytes. */
  readSync(fd: number, into: Uint8Array, start: number, length: number, position: number): number;
  /** Writes up to `length` bytes of `from`, from its index `start` on, at `position`. Returns the number of bytes. */
  writeSync(fd: number, from: Uint8Array, start: number, length: number, position: number): number;
  /** Sets the size in bytes. Added bytes read as zeros. */
  ftruncateSync(fd: number, size: number): void;
  /** Removes the file at `path`. */
  unlinkSync(path: string): void;
}

/** A block device that is open. */
export interface BlockDevice {
  /** The descriptor to use from now on. */
  readonly fd: number;
  readonly bytes: number;
  /** As {@link File.deviceContents}. */
  contents(file: File, image: Image): Promise<string | undefined>;
}

/** A backend, as the adapter uses it. */
export interface FsAdapterOptions {
  readonly fs: FsLike;
  /** Returns the path of a name. */
  resolve(name: string): string;
  /** Flags of `open`. `noFollow`: opening a symbolic link fails. 0 where the platform does not have it. */
  readonly flags: Readonly<Record<'readOnly' | 'readWrite' | 'create' | 'exclusive' | 'noFollow', number>>;
  /**
   * Calls on the thread pool. A call may move fewer bytes than it was given. Absent: every operation is synchronous.
   */
  readonly pool?: {
    readonly loop: EventLoop;
    read(fd: number, into: Uint8Array, position: number): Promise<number>;
    write(fd: number, from: Uint8Array, position: number): Promise<number>;
    /**
     * Opens the file of a descriptor again, for writes that bypass the page cache; returns undefined if that is
     * impossible. Absent: no such writes.
     */
    openDirect?: ((fd: number) => number | undefined) | undefined;
    /** What finds the holes of a descriptor's file. Closed before the descriptor. */
    holesOf?(fd: number): { isHole(offset: number, length: number): Promise<boolean>; close(): Promise<void> };
  };
  /** Makes a file's data and size durable. */
  sync(fd: number): Promise<void>;
  /** Makes the name of an open file durable. */
  syncName(path: string): Promise<void>;
  /** Files are opened for reading, and nothing on the disk is changed. */
  readonly readOnly?: boolean | undefined;
  readonly bootId?: string | undefined;
  /**
   * Returns a block device that was opened. Unless it is only read, no other program has it then. Undefined: the
   * descriptor is none. Absent: there are none.
   */
  readonly deviceOf?: ((fd: number, path: string, readOnly: boolean) => BlockDevice | undefined) | undefined;
  /** As {@link FileSystem.clone}, of paths. Throws the error of the system. */
  readonly clone?: ((from: string, to: string) => Promise<void>) | undefined;
  readonly lock?: ((path: string, options?: LeaseOptions) => Promise<Lease>) | undefined;
  readonly assertNotOwned?: ((path: string) => void | Promise<void>) | undefined;
}

/** One system call moves at most 2^31 - 4096 bytes, and Node takes lengths as 32-bit integers. */
const CALL_BYTES = 1 << 30;
/**
 * A direct write waits for the disk. Consecutive writes of 2 MiB keep it busy, of 128 KiB half of the time (ext4 on
 * virtio, 2026).
 */
const DIRECT_BYTES = 2 << 20;
/** Shorter writes go through the page cache, which joins them to long ones. */
const MIN_DIRECT_BYTES = 128 << 10;

/** Returns the file system that `options` describe. Does no I/O. */
export function fsAdapter(options: FsAdapterOptions): FileSystem {
  const { clone, lock, assertNotOwned } = options;
  return {
    open: async (name, how = {}) => openFile(options, options.resolve(name), how),
    remove: async (name) => removeFile(options, options.resolve(name)),
    ...(options.bootId === undefined ? {} : { bootId: options.bootId }),
    ...(clone === undefined || options.readOnly
      ? {}
      : { clone: async (from: string, to: string) => cloneFile(clone, options.resolve(from), options.resolve(to)) }),
    ...(lock === undefined || options.readOnly
      ? {}
      : { lock: async (name: string, how?: LeaseOptions) => lock(options.resolve(name), how) }),
    ...(assertNotOwned === undefined
      ? {}
      : { assertNotOwned: async (name: string) => assertNotOwned(options.resolve(name)) }),
  };
}

function openFile(options: FsAdapterOptions, path: string, how: OpenOptions): File {
  const { fs } = options;
  const readOnly = options.readOnly || how.readOnly || false;
  const { noFollow = false, mode = 0o666 } = how;
  const exclusive = !readOnly && (how.exclusive ?? false);
  let fd: number | undefined;
  try {
    // Before the open, which has effects of its own on some devices, and follows links on some platforms.
    if (noFollow && isOdd(fs, path)) throw notRegular('COD_EXISTS', path);
    fd = fs.openSync(path, flagsOf(options.flags, { ...how, readOnly }), mode);
    if (!fs.fstatSync(fd).isFile()) {
      const device = noFollow ? undefined : options.deviceOf?.(fd, path, readOnly);
      if (device === undefined) throw notRegular(noFollow ? 'COD_EXISTS' : 'COD_TARGET_IO', path);
      return new AdapterFile(options, path, device.fd, { readOnly, device });
    }
    if (exclusive) keepForOwner(fs, fd);
  } catch (cause) {
    if (fd !== undefined) fs.closeSync(fd);
    const errno = errnoOf(cause);
    if (exclusive && errno === 'EEXIST')
      throw new CodError('COD_EXISTS', `open ${path}: the file exists`, { cause, details: { path } });
    // The link was made after the look at the name.
    if (noFollow && errno === 'ELOOP') throw notRegular('COD_EXISTS', path, cause);
    throw ioError(`open ${path}`, cause, { path });
  }
  return new AdapterFile(options, path, fd, { readOnly });
}

function flagsOf(
  flags: FsAdapterOptions['flags'],
  { create = false, exclusive = false, readOnly = false, noFollow = false }: OpenOptions,
): number {
  const follows = noFollow ? flags.noFollow : 0;
  if (readOnly) return flags.readOnly | follows;
  return flags.readWrite | follows | (exclusive ? flags.create | flags.exclusive : create ? flags.create : 0);
}

/** Whether there is anything but a regular file at `path`. */
export function isOdd(fs: Pick<FsLike, 'lstatSync'>, path: string): boolean {
  try {
    return !fs.lstatSync(path).isFile();
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false;
    throw error;
  }
}

function notRegular(code: 'COD_EXISTS' | 'COD_TARGET_IO', path: string, cause?: unknown): CodError {
  return new CodError(code, `open ${path}: not a regular file`, { cause, details: { path } });
}

/** Lets the owner read and write a new file: an odd umask may have forbidden that. */
export function keepForOwner(fs: Pick<FsLike, 'fstatSync' | 'fchmodSync'>, fd: number): void {
  const { mode } = fs.fstatSync(fd);
  if ((mode & 0o600) !== 0o600) fs.fchmodSync(fd, (mode & 0o777) | 0o600);
}

function removeFile({ fs, readOnly }: FsAdapterOptions, path: string): void {
  if (readOnly) throw readOnlyError(`remove ${path}`, path);
  try {
    fs.unlinkSync(path);
  } catch (cause) {
    if (errnoOf(cause) !== 'ENOENT') throw ioError(`remove ${path}`, cause, { path });
  }
}

/** Errors of a file system that cannot clone files, or not these two, and of a platform without the call. */
const NO_CLONE: ReadonlySet<string> = new Set(['ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'ENOTTY', 'EINVAL', 'EXDEV']);

async function cloneFile(clone: NonNullable<FsAdapterOptions['clone']>, path: string, copyPath: string): Promise<void> {
  try {
    await clone(path, copyPath);
  } catch (cause) {
    const errno = errnoOf(cause) ?? '';
    const code = errno === 'EEXIST' ? 'COD_EXISTS' : NO_CLONE.has(errno) ? 'COD_UNSUPPORTED' : undefined;
    const details = { path: copyPath };
    if (code === undefined) throw ioError(`clone ${path} as ${copyPath}`, cause, details);
    throw new CodError(code, `clone ${path} as ${copyPath}: ${(cause as Error).message}`, { cause, details });
  }
}

function readOnlyError(operation: string, path: string): CodError {
  return new CodError('COD_READ_ONLY', `${operation}: opened for reading only`, { details: { path } });
}

/** Calls on the thread pool. */
type Pool = NonNullable<FsAdapterOptions['pool']>;

class AdapterFile implements InlineFile {
  declare deviceContents?: NonNullable<File['deviceContents']>;
  readonly #options: FsAdapterOptions;
  readonly #path: string;
  readonly #fd: number;
  readonly #readOnly: boolean;
  readonly #deviceBytes: number | undefined;
  readonly #inline: InlineCalls | undefined;
  readonly #holes: ReturnType<NonNullable<Pool['holesOf']>> | undefined;
  /** Another descriptor of the file, for writes that bypass the page cache. */
  readonly #directFd: number | undefined;
  /** False once the file system has refused a direct write. */
  #isDirect: boolean;
  #nameSynced: Promise<void> | undefined;
  #closed: Promise<void> | undefined;
  /** Calls in flight. `close` waits for them. */
  #running = 0;
  #onIdle: (() => void) | undefined;

  constructor(
    options: FsAdapterOptions,
    path: string,
    fd: number,
    { readOnly, device }: { readOnly: boolean; device?: BlockDevice },
  ) {
    this.#options = options;
    this.#path = path;
    this.#fd = fd;
    this.#readOnly = readOnly;
    this.#deviceBytes = device?.bytes;
    if (device !== undefined) this.deviceContents = (image) => device.contents(this, image);
    if (options.pool !== undefined) this.#inline = new InlineCalls(options.pool.loop);
    if (device === undefined) this.#holes = options.pool?.holesOf?.(fd);
    this.#directFd = readOnly ? undefined : options.pool?.openDirect?.(fd);
    this.#isDirect = this.#directFd !== undefined;
  }

  get preferredWriteBytes(): number | undefined {
    return this.#isDirect ? DIRECT_BYTES : undefined;
  }

  async size(): Promise<number> {
    this.#assertOpen();
    return this.#deviceBytes ?? this.#attempt('size', () => this.#options.fs.fstatSync(this.#fd).size);
  }

  async read(into: Uint8Array, offset: number): Promise<void> {
    await (this.submitRead(into, offset) ?? this.pace());
  }

  submitRead(into: Uint8Array, offset: number): Done {
    this.#assertOpen();
    assertRange(offset, into.length);
    const { pool } = this.#options;
    if (pool !== undefined && !this.#inline!.allow(into.length)) return this.#readInPool(pool, into, offset);
    const start = this.#inline?.start() ?? 0;
    this.#readInline(into, offset);
    this.#inline?.ended(start);
    return undefined;
  }

  #readInPool(pool: Pool, into: Uint8Array, offset: number): Promise<void> {
    return this.#run({ name: 'read', offset, length: into.length }, async () => {
      for (let done = 0; done < into.length; ) {
        const count = await pool.read(this.#fd, into.subarray(done, done + CALL_BYTES), offset + done);
        if (count === 0) throw this.#shortRead(into.length, offset, done);
        done += count;
      }
    });
  }

  #readInline(into: Uint8Array, offset: number): void {
    const { fs } = this.#options;
    for (let done = 0; done < into.length; ) {
      const length = Math.min(into.length - done, CALL_BYTES);
      let count: number;
      try {
        count = fs.readSync(this.#fd, into, done, length, offset + done);
      } catch (cause) {
        throw this.#error({ name: 'read', offset, length: into.length }, cause);
      }
      if (count === 0) throw this.#shortRead(into.length, offset, done);
      done += count;
    }
  }

  async isHole(offset: number, length: number): Promise<boolean> {
    this.#assertOpen();
    return (await this.#holes?.isHole(offset, length)) ?? false;
  }

  async write(from: Uint8Array, offset: number): Promise<void> {
    await (this.submitWrite(from, offset) ?? this.pace());
  }

  submitWrite(from: Uint8Array, offset: number): Done {
    this.#assertWritable('write');
    assertRange(offset, from.length);
    const { pool } = this.#options;
    if (pool !== undefined && !this.#inline!.allow(from.length)) return this.#writeInPool(pool, from, offset);
    const start = this.#inline?.start() ?? 0;
    this.#writeInline(from, offset);
    this.#inline?.ended(start);
    return undefined;
  }

  #writeInPool(pool: Pool, from: Uint8Array, offset: number): Promise<void> {
    return this.#run({ name: 'write', offset, length: from.length }, async () => {
      let done = this.#isToBeDirect(from, offset) ? await this.#writeDirect(pool, from, offset) : 0;
      while (done < from.length)
        done += atLeastOne(await pool.write(this.#fd, from.subarray(done, done + CALL_BYTES), offset + done));
    });
  }

  pace(): Done {
    return this.#inline?.pace();
  }

  #isToBeDirect(from: Uint8Array, offset: number): boolean {
    return this.#isDirect && from.length >= MIN_DIRECT_BYTES && offset % PAGE_BYTES === 0 && areWholePages(from);
  }

  /**
   * Writes directly and returns the number of bytes written. A file system may refuse direct writes, or require a unit
   * longer than a page. The caller writes the rest through the page cache.
   */
  async #writeDirect(
    { write }: NonNullable<FsAdapterOptions['pool']>,
    from: Uint8Array,
    offset: number,
  ): Promise<number> {
    let done = 0;
    try {
      while (done < from.length)
        done += atLeastOne(await write(this.#directFd!, from.subarray(done, done + CALL_BYTES), offset + done));
    } catch (cause) {
      if (errnoOf(cause) !== 'EINVAL') throw cause;
      this.#isDirect = false;
    }
    return done;
  }

  #writeInline(from: Uint8Array, offset: number): void {
    const { fs } = this.#options;
    for (let done = 0; done < from.length; ) {
      const length = Math.min(from.length - done, CALL_BYTES);
      try {
        done += atLeastOne(fs.writeSync(this.#fd, from, done, length, offset + done));
      } catch (cause) {
        throw this.#error({ name: 'write', offset, length: from.length }, cause);
      }
    }
  }

  async truncate(size: number): Promise<void> {
    this.#assertWritable('truncate');
    assertRange(size, 0);
    if (this.#deviceBytes !== undefined)
      throw this.#error('truncate', new Error('a block device has a size that cannot change'));
    this.#attempt({ name: 'truncate', offset: size, length: 0 }, () => this.#options.fs.ftruncateSync(this.#fd, size));
  }

  /**
   * Makes data, size and name durable. The first sync of an open file syncs the name even if another process created
   * it: that process may have been killed before its sync.
   */
  async sync(): Promise<void> {
    this.#assertOpen();
    if (this.#readOnly) return;
    const { sync, syncName } = this.#options;
    await this.#run('sync', async () => {
      await sync(this.#fd);
      this.#nameSynced ??= syncName(this.#path);
      await this.#nameSynced.catch((cause: unknown) => {
        this.#nameSynced = undefined;
        throw cause;
      });
    });
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    if (this.#running > 0) await new Promise<void>((resolve) => (this.#onIdle = resolve));
    await this.#holes?.close();
    this.#attempt('close', () => {
      try {
        if (this.#directFd !== undefined) this.#options.fs.closeSync(this.#directFd);
      } finally {
        this.#options.fs.closeSync(this.#fd);
      }
    });
  }

  #assertOpen(): void {
    if (this.#closed !== undefined)
      throw new CodError('COD_CLOSED', `${this.#path} is closed`, { details: { path: this.#path } });
  }

  #assertWritable(operation: string): void {
    this.#assertOpen();
    if (this.#readOnly) throw readOnlyError(`${operation} ${this.#path}`, this.#path);
  }

  #attempt<T>(operation: Operation, call: () => T): T {
    try {
      return call();
    } catch (cause) {
      throw this.#error(operation, cause);
    }
  }

  async #run(operation: Operation, call: () => Promise<void>): Promise<void> {
    this.#running++;
    try {
      await call();
    } catch (cause) {
      throw this.#error(operation, cause);
    } finally {
      if (--this.#running === 0) this.#onIdle?.();
    }
  }

  #error(operation: Operation, cause: unknown): CodError {
    if (typeof operation === 'string') return ioError(`${operation} ${this.#path}`, cause, { path: this.#path });
    const { name, offset, length } = operation;
    return ioError(`${name} ${this.#path} at offset ${offset}, ${length} bytes`, cause, {
      path: this.#path,
      offset,
      length,
    });
  }

  #shortRead(length: number, offset: number, done: number): CodError {
    return new CodError(
      'COD_SHORT_READ',
      `read ${this.#path} at offset ${offset}: the file ends after ${done} of ${length} bytes`,
      {
        details: { path: this.#path, offset, length, read: done },
      },
    );
  }
}

/** An operation, as error messages name it. */
type Operation = string | { readonly name: string; readonly offset: number; readonly length: number };

function assertRange(offset: number, length: number): void {
  if (!(Number.isSafeInteger(offset) && offset >= 0 && Number.isSafeInteger(offset + length))) {
    throw new RangeError(`${length} bytes at offset ${offset} are not a range of safe integers`);
  }
}

function atLeastOne(count: number): number {
  if (count <= 0) throw new Error('no bytes were written');
  return count;
}
