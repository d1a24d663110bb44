/** A source over a local file or block device. */

import { type BigIntStats, fstatSync, promises, readSync, statSync } from 'node:fs';
import type { Done } from '../async/done.ts';
import { CodError } from '../errors.ts';
import { blockDeviceBytes } from '../platform/block-device.ts';
import { HoleReader } from '../platform/hole-reader.ts';
import { InlineCalls } from '../platform/inline-calls.ts';
import { nodeEventLoop } from '../platform/node-event-loop.ts';
import { pieceBuffer, releasePages } from '../platform/pages.ts';
import { HoleExtents } from './hole-extents.ts';
import { checkRange } from './range.ts';
import type { InlineSource, InternalStreamOptions, Source, SourceExtent } from './source.ts';

/** Length of a stream's pieces: two such buffers fit into a core's cache. */
const PIECE_BYTES = 128 << 10;
/** The file is checked for changes after this many bytes or reads, before the last of them is handed out. */
const CHECK_BYTES = 64 << 10;
const CHECK_READS = 1024;
/** The most bytes of one system call: Node takes lengths as 32-bit integers. */
const CALL_BYTES = 1 << 30;

/**
 * Opens the file or block device at `path` as a source. An empty file is a source of size 0. A file's identity is its
 * inode, size and modification time. The number of its volume changes at each mount, so it does not count. A block
 * device has no identity.
 *
 * Reads reject with COD_SHORT_READ when the file was truncated, and with COD_SOURCE_CHANGED when it was written to,
 * even by a program that puts the modification time back. The source checks for changes at least once for each 64 KiB,
 * for each 1024 reads, and at the end of the file, before the last of these reads resolves. When another file takes the
 * path, the source still reads the file that it opened.
 *
 * `extents` tells the holes of a sparse file on Linux, by reading them past the page cache, 4 MiB at a time.
 *
 * @param path absolute, or relative to the working directory
 * @throws {@link CodError} COD_NOT_FOUND when the path does not exist; COD_SOURCE_IO when the path is a directory, a
 *   pipe, a socket or a character device, or when reading it is not permitted.
 * @example
 * ```ts
 * import { fileSource } from 'copyondemand/node';
 *
 * const source = await fileSource('image.raw');
 * const sector = new Uint8Array(512);
 * await source.read(sector, 0);
 * await source.close();
 * ```
 */
export async function fileSource(path: string): Promise<Source & AsyncDisposable> {
  try {
    // Checked before the open, which would block on a writer if this is a pipe.
    refuseOddKinds(path, await promises.stat(path, { bigint: true }));
    const handle = await promises.open(path, 'r');
    try {
      const stats = fstatSync(handle.fd, { bigint: true });
      refuseOddKinds(path, stats);
      const size = stats.isBlockDevice() ? blockDeviceBytes(stats.rdev) : Number(stats.size);
      return new FileSource(path, handle, size, stats);
    } catch (error) {
      await handle.close();
      throw error;
    }
  } catch (error) {
    throw asCodError(path, error);
  }
}

class FileSource implements InlineSource, AsyncDisposable {
  readonly size: number;
  declare readonly identity?: string;
  readonly mode: number;
  readonly #path: string;
  readonly #handle: promises.FileHandle;
  readonly #isFile: boolean;
  /** The file at opening; its ctime, mode, owner and links at the last check. */
  #seen: BigIntStats;
  #closing: Promise<void> | undefined;
  readonly #inline = new InlineCalls(nodeEventLoop);
  readonly #holes: HoleExtents | undefined;
  #bytesSinceCheck = 0;
  #readsSinceCheck = 0;

  constructor(path: string, handle: promises.FileHandle, size: number, stats: BigIntStats) {
    this.#path = path;
    this.#handle = handle;
    this.#isFile = stats.isFile();
    if (this.#isFile) this.#holes = new HoleExtents(new HoleReader(handle.fd));
    this.#seen = stats;
    this.size = size;
    this.mode = Number(stats.mode) & 0o777;
    if (stats.isFile()) this.identity = `file:${stats.ino}:${stats.size}:${stats.mtimeNs}`;
  }

  async read(into: Uint8Array, offset: number, options: { signal?: AbortSignal } = {}): Promise<void> {
    options.signal?.throwIfAborted();
    await (this.submitRead(into, offset) ?? this.#inline.pace());
    options.signal?.throwIfAborted();
  }

  submitRead(into: Uint8Array, offset: number): Done {
    this.#check(offset, into.length, undefined);
    if (!this.#inline.allow(into.length)) return this.#readInPool(into, offset);
    this.#readAtOnce(into, offset);
    return undefined;
  }

  readNow(into: Uint8Array, offset: number): boolean {
    this.#check(offset, into.length, undefined);
    if (!this.#inline.allows(into.length)) return false;
    this.#readAtOnce(into, offset);
    return true;
  }

  #readAtOnce(into: Uint8Array, offset: number): void {
    try {
      const start = this.#inline.start();
      this.#readInline(into, offset);
      this.#inline.ended(start);
      this.#count(into.length, offset);
    } catch (error) {
      throw this.#explain(error);
    }
  }

  async #readInPool(into: Uint8Array, offset: number): Promise<void> {
    try {
      for (let done = 0; done < into.length; ) {
        const length = Math.min(into.length - done, CALL_BYTES);
        const { bytesRead } = await this.#handle.read(into, done, length, offset + done);
        if (bytesRead === 0) throw this.#short(offset + done, into.length - done);
        done += bytesRead;
      }
      this.#count(into.length, offset);
    } catch (error) {
      throw this.#explain(error);
    }
  }

  async *stream(offset: number, length: number, options: InternalStreamOptions = {}): AsyncGenerator<Uint8Array, void> {
    this.#check(offset, length, options.signal);
    const end = offset + length;
    const read = (into: Uint8Array, at: number) => {
      const piece = into.subarray(0, end - at);
      const reading = this.read(piece, at, options).then(() => piece);
      // The loop below reports the failure, unless the consumer stops before.
      reading.catch(() => undefined);
      return reading;
    };
    // The consumer holds one buffer while the other is filled.
    const buffer = () => pieceBuffer(options.pieceBytes, PIECE_BYTES, length);
    let [next, free] = [buffer(), buffer()];
    let reading = read(next, offset);
    try {
      for (let at = offset; at < end; ) {
        const piece = await reading;
        at += piece.length;
        [next, free] = [free, next];
        if (at < end) reading = read(next, at);
        yield piece;
      }
    } finally {
      await reading.catch(() => undefined);
      for (const each of [next, free]) releasePages(each);
    }
  }

  async extents(offset: number, length: number): Promise<readonly SourceExtent[]> {
    this.#check(offset, length, undefined);
    if (this.#holes === undefined) return [{ length, zero: false }];
    const extents = await this.#holes.of(offset, length);
    this.#check(offset, length, undefined);
    try {
      if (extents.some(({ zero }) => zero)) this.#checkUnchanged();
    } catch (error) {
      throw this.#explain(error);
    }
    return extents;
  }

  close(): Promise<void> {
    this.#closing ??= Promise.resolve(this.#holes?.close()).then(() => this.#handle.close());
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #check(offset: number, length: number, signal: AbortSignal | undefined): void {
    if (this.#closing !== undefined) throw closed(this.#path);
    signal?.throwIfAborted();
    checkRange(this.size, offset, length);
  }

  #readInline(into: Uint8Array, offset: number): void {
    for (let done = 0; done < into.length; ) {
      const count = readSync(this.#handle.fd, into, done, into.length - done, offset + done);
      if (count === 0) throw this.#short(offset + done, into.length - done);
      done += count;
    }
  }

  /** Counts a read, and checks for changes when enough was read. */
  #count(bytes: number, offset: number): void {
    this.#bytesSinceCheck += bytes;
    const isEnd = offset + bytes === this.size;
    if (this.#bytesSinceCheck >= CHECK_BYTES || ++this.#readsSinceCheck >= CHECK_READS || isEnd) this.#checkUnchanged();
  }

  /** Each read checks again once the file was found changed. */
  #checkUnchanged(): void {
    if (!this.#isFile) return;
    const before = this.#seen;
    const now = fstatSync(this.#handle.fd, { bigint: true });
    const isSame = now.size === before.size && now.mtimeNs === before.mtimeNs;
    if (isSame && (now.ctimeNs === before.ctimeNs || isAttributeChange(before, now) || this.#hasLostItsPath())) {
      this.#seen = now;
      this.#bytesSinceCheck = 0;
      this.#readsSinceCheck = 0;
      return;
    }
    const details = { path: this.#path, sizeAtOpen: this.size, size: Number(now.size) };
    throw new CodError(
      'COD_SOURCE_CHANGED',
      `${this.#path} changed during the copy: stop the program that writes it, and start a new copy`,
      {
        details,
      },
    );
  }

  /** Whether the file was moved or removed, which sets its ctime. */
  #hasLostItsPath(): boolean {
    const there = statSync(this.#path, { bigint: true, throwIfNoEntry: false });
    return there?.ino !== this.#seen.ino || there.dev !== this.#seen.dev;
  }

  #short(offset: number, missing: number): CodError {
    const message =
      `${this.#path} ends at ${offset}, but had ${this.size} bytes at opening: ` +
      'stop the program that truncated it, and start a new copy';
    return new CodError('COD_SHORT_READ', message, { details: { path: this.#path, offset, missing } });
  }

  #explain(error: unknown): unknown {
    return this.#closing !== undefined ? closed(this.#path) : asCodError(this.#path, error);
  }
}

/** Whether mode, owner or links tell why the ctime differs. If nothing does, a program may have put the mtime back. */
function isAttributeChange(before: BigIntStats, now: BigIntStats): boolean {
  return (['mode', 'uid', 'gid', 'nlink'] as const).some((name) => now[name] !== before[name]);
}

function closed(path: string): CodError {
  return new CodError('COD_CLOSED', `${path}: the source is closed`);
}

function refuseOddKinds(path: string, stats: BigIntStats): void {
  if (stats.isFile() || stats.isBlockDevice()) return;
  const kinds = [
    ['a directory', stats.isDirectory()],
    ['a pipe', stats.isFIFO()],
    ['a socket', stats.isSocket()],
  ] as const;
  const [kind] = kinds.find(([, is]) => is) ?? ['a character device'];
  throw new CodError('COD_SOURCE_IO', `${path} is ${kind}: name a disk image or a block device`, { details: { path } });
}

function asCodError(path: string, cause: unknown): unknown {
  if (!(cause instanceof Error) || !('code' in cause) || cause instanceof CodError) return cause;
  const details = { path, errno: cause.code };
  if (cause.code === 'ENOENT' || cause.code === 'ENOTDIR') {
    return new CodError('COD_NOT_FOUND', `${path} does not exist: check the path`, { cause, details });
  }
  if (cause.code === 'EACCES' || cause.code === 'EPERM') {
    return new CodError('COD_SOURCE_IO', `this user may not read ${path}: change its mode or run as another user`, {
      cause,
      details,
    });
  }
  return new CodError('COD_SOURCE_IO', `${path} cannot be read: ${cause.message}`, { cause, details });
}
