/** Records all operations on a file system, so that they can be replayed elsewhere (trace.ts has the format). */

import { type CodErrorCode, isCodError } from '../errors.ts';
import type { File, FileSystem, OpenOptions } from '../fs/file-system.ts';
import { checksum, encodeBytes, PIECE_BYTES, type TraceStep, traceHeader } from './trace.ts';

/** Options of a {@link FileSystemRecorder}. */
export interface RecorderOptions {
  /**
   * The most bytes of the trace, roughly. A longer trace ends with the step `cut`, and later steps are missing.
   * Default: 2^26.
   */
  readonly maxBytes?: number;
}

/**
 * Passes every call on to a file system, and records a trace.
 *
 * Steps are in the order in which they ended. Calls in flight are not in the trace. A replay gives the same files
 * unless calls on the same bytes overlapped in time, since their order is undefined.
 *
 * @example
 * ```ts
 * import { memfsFileSystem } from 'copyondemand/memfs';
 * import { FileSystemRecorder, replayTrace } from 'copyondemand/testing';
 *
 * const recorder = new FileSystemRecorder(memfsFileSystem());
 * const file = await recorder.fileSystem.open('notes', { create: true });
 * await file.write(new Uint8Array(512).fill(7), 0);
 * await file.close();
 *
 * const steps: string[] = [];
 * for await (const { op } of replayTrace(recorder.trace(), memfsFileSystem())) steps.push(op);
 * console.log(steps.join(' ')); // open write close
 * ```
 */
export class FileSystemRecorder {
  /** The file system to use instead of the recorded one. It has `lock` and `bootId` if that one has them. */
  readonly fileSystem: FileSystem;
  readonly #inner: FileSystem;
  readonly #maxBytes: number;
  readonly #lines: string[];
  readonly #known = new Set<string>();
  #bytes = 0;
  #files = 0;
  #isCut = false;

  /**
   * Makes a recorder.
   *
   * @param inner the file system to record
   */
  constructor(inner: FileSystem, { maxBytes = 2 ** 26 }: RecorderOptions = {}) {
    this.#inner = inner;
    this.#maxBytes = maxBytes;
    this.#lines = [traceHeader(inner.bootId)];
    const { bootId } = inner;
    this.fileSystem = {
      ...(bootId === undefined ? {} : { bootId }),
      open: (name, options) => this.#open(name, options ?? {}),
      remove: (name) => this.#call({ op: 'remove', name }, () => inner.remove(name)),
      ...(inner.lock === undefined ? {} : { lock: (name: string) => inner.lock!(name) }),
      ...(inner.assertNotOwned && { assertNotOwned: (name: string) => inner.assertNotOwned!(name) }),
    };
  }

  /** Whether the trace reached its maximum length and was cut. */
  get isCut(): boolean {
    return this.#isCut;
  }

  /** Returns the trace so far: JSON lines in UTF-8. */
  trace(): Uint8Array {
    return new TextEncoder().encode(`${this.#lines.join('\n')}\n`);
  }

  #add(step: TraceStep): void {
    if (this.#isCut) return;
    const line = JSON.stringify(step);
    this.#bytes += line.length + 1;
    this.#isCut = this.#bytes > this.#maxBytes;
    this.#lines.push(this.#isCut ? JSON.stringify({ op: 'cut' }) : line);
  }

  /** Performs a step, and adds it with its outcome. */
  async #call<T>(
    step: Exclude<TraceStep, { op: 'cut' | 'content' }>,
    work: () => Promise<T>,
    outcome: (result: T) => object = () => ({}),
    failure: () => Promise<object> = async () => ({}),
  ): Promise<T> {
    let result: T;
    try {
      result = await work();
    } catch (error) {
      const left = await failure().catch(() => ({}));
      this.#add({ ...step, ...left, error: codeOf(error) } as TraceStep);
      throw error;
    }
    this.#add({ ...step, ...outcome(result) } as TraceStep);
    return result;
  }

  async #open(name: string, options: OpenOptions): Promise<File> {
    if (!this.#known.has(name)) {
      this.#known.add(name);
      await this.#recordContent(name);
    }
    let number = 0;
    // A replay makes what an `exclusive` call made. Calls that were rejected are not replayed.
    const create = !options.readOnly && (options.create || options.exclusive || false);
    const file = await this.#call(
      { op: 'open', name, create, file: 0 },
      () => this.#inner.open(name, options),
      () => ({ file: (number = ++this.#files) }),
      async () => ({ file: undefined }),
    );
    return this.#record(file, number);
  }

  /** Records what a file holds before its first use. */
  async #recordContent(name: string): Promise<void> {
    let file: File;
    try {
      file = await this.#inner.open(name, { readOnly: true });
    } catch {
      // The file does not exist or cannot be opened; the caller's own call reports that.
      return;
    }
    try {
      const size = await file.size();
      this.#add({ op: 'content', name, size, offset: 0, bytes: encodeBytes(new Uint8Array()) });
      for (let offset = 0; offset < size && !this.#isCut; offset += PIECE_BYTES) {
        const piece = new Uint8Array(Math.min(PIECE_BYTES, size - offset));
        await file.read(piece, offset);
        if (piece.some((byte) => byte !== 0)) this.#add({ op: 'content', name, offset, bytes: encodeBytes(piece) });
      }
    } finally {
      await file.close();
    }
  }

  #record(inner: File, file: number): File {
    let closing: Promise<void> | undefined;
    return {
      size: () =>
        this.#call(
          { op: 'size', file },
          () => inner.size(),
          (size) => ({ size }),
        ),
      read: (into, offset) =>
        this.#call(
          { op: 'read', file, offset, length: into.length },
          () => inner.read(into, offset),
          () => ({ sum: checksum(into) }),
        ),
      write: (from, offset) => {
        const bytes = encodeBytes(from);
        return this.#call(
          { op: 'write', file, offset, bytes },
          () => inner.write(from, offset),
          undefined,
          // Reads what the failed write left, so that the replay leaves the same.
          async () => {
            const size = await inner.size();
            const left = new Uint8Array(Math.max(0, Math.min(from.length, size - offset)));
            await inner.read(left, offset);
            return { size, bytes: encodeBytes(left) };
          },
        );
      },
      truncate: (size) =>
        this.#call(
          { op: 'truncate', file, size },
          () => inner.truncate(size),
          undefined,
          async () => ({ size: await inner.size() }),
        ),
      sync: () => this.#call({ op: 'sync', file }, () => inner.sync()),
      close: () => {
        closing ??= this.#call({ op: 'close', file }, () => inner.close());
        return closing;
      },
    };
  }
}

function codeOf(error: unknown): CodErrorCode | 'other' {
  return isCodError(error) ? error.code : 'other';
}
