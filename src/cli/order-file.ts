/**
 * Order files: the order in which an image is read, so that its next copy begins with what is needed first.
 *
 * A file is text with one extent per line:
 *
 *     copyondemand order 1
 *     size 1073741824
 *     0 0 4096
 *     12 1048576 65536
 *
 * A line of an extent has the time of its first read in ms, its offset and its length in bytes. A last line without a
 * newline was torn by a crash and does not count.
 */

import { nodeFileSystem } from '../control/node-file-system.ts';
import type { ByteExtent } from '../core/range-set.ts';
import { type ReadExtent, ReadRecorder } from '../device/read-recorder.ts';
import { CodError } from '../errors.ts';
import type { File, FileSystem, Lease } from '../fs/file-system.ts';

const VERSION = 1;
const TITLE = /^copyondemand order (\d{1,9})$/;
const SIZE = /^size (\d{1,16})$/;
const EXTENT = /^\d{1,16} (\d{1,16}) (\d{1,16})$/;
/** A recorder notes at most 131,072 extents, each in at most 50 characters. */
const MAX_FILE_BYTES = 2 ** 23;
/** Reads are written to the file after this time. Contiguous reads within it become one line. */
const WRITE_AFTER_MS = 50;

/** A recording in progress. */
export interface OrderRecording {
  /** Notes a read. To be passed to `openDevice`. */
  readonly onRead: (offset: number, length: number) => void;
  /** Writes the rest, syncs and closes the file. Idempotent. */
  close(): Promise<void>;
}

/** An order, and the image that it is for. */
export interface Order {
  readonly path: string;
  /** Bytes of the image. */
  readonly size: number;
  readonly extents: readonly ByteExtent[];
}

/**
 * Returns the order in the file at `path`.
 * @throws {@link CodError} COD_NOT_FOUND; COD_CORRUPT, naming the line, if it is no order file; COD_VERSION.
 */
export async function readOrder(path: string): Promise<Order> {
  const file = await nodeFileSystem('.', { readOnly: true }).open(path);
  try {
    const { extents, size } = parseOrder(await textOf(file, path), path);
    return { path, size, extents };
  } finally {
    await file.close();
  }
}

/** @throws {@link CodError} COD_SIZE_MISMATCH if an order is for another image than one of `size` bytes. */
export function checkOrderSize({ path, size: found }: Pick<Order, 'path' | 'size'>, size: number): void {
  if (found === size) return;
  throw new CodError('COD_SIZE_MISMATCH', `${path} is for an image of ${found} bytes, but this image has ${size}`, {
    details: { path, size, orderSize: found },
  });
}

/**
 * Records the reads of an image of `size` bytes into the file at `path`: a new file, or one of an earlier run, which is
 * continued. A failed write ends the recording and disturbs no reader.
 * @param onProblem called with the error of a failed write or sync, at most once
 * @throws {@link CodError} COD_EXISTS if the file is no order file; COD_LOCKED if another process records into it;
 * COD_SIZE_MISMATCH, COD_VERSION as {@link readOrder}.
 */
export async function recordOrder(
  path: string,
  size: number,
  onProblem: (error: unknown) => void,
  fileSystem: FileSystem = nodeFileSystem(),
): Promise<OrderRecording> {
  const lease = await fileSystem.lock?.(path);
  let file: File | undefined;
  try {
    file = await fileSystem.open(path, { create: true });
    const known = await beginOrContinue(file, { path, size });
    return new Recording({
      file,
      lease,
      onProblem,
      at: known.bytes,
      recorder: new ReadRecorder({ size, clock: performance, known: known.extents }),
    });
  } catch (error) {
    await file?.close();
    await lease?.release();
    throw error;
  }
}

class Recording implements OrderRecording {
  readonly #file: File;
  readonly #lease: Lease | undefined;
  readonly #onProblem: (error: unknown) => void;
  readonly #recorder: ReadRecorder;
  #at: number;
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> = Promise.resolve();
  #failed = false;
  #closing: Promise<void> | undefined;

  constructor(parts: {
    file: File;
    lease: Lease | undefined;
    onProblem: (error: unknown) => void;
    at: number;
    recorder: ReadRecorder;
  }) {
    this.#file = parts.file;
    this.#lease = parts.lease;
    this.#onProblem = parts.onProblem;
    this.#at = parts.at;
    this.#recorder = parts.recorder;
  }

  readonly onRead = (offset: number, length: number): void => {
    if (this.#failed || this.#closing !== undefined) return;
    this.#recorder.read(offset, length);
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#write();
    }, WRITE_AFTER_MS);
  };

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    clearTimeout(this.#timer);
    this.#write();
    await this.#writing;
    if (!this.#failed) await this.#file.sync().catch((error: unknown) => this.#onProblem(error));
    await this.#file.close();
    await this.#lease?.release();
  }

  /** Writes follow one another, so that a crash tears only the end. */
  #write(): void {
    this.#writing = this.#writing.then(async () => {
      const lines = this.#recorder.take();
      if (lines.length === 0 || this.#failed) return;
      const bytes = Buffer.from(lines.map(lineOf).join(''), 'latin1');
      try {
        await this.#file.write(bytes, this.#at);
        this.#at += bytes.length;
      } catch (error) {
        this.#failed = true;
        this.#onProblem(error);
      }
    });
  }
}

function lineOf({ atMs, offset, length }: ReadExtent): string {
  return `${atMs} ${offset} ${length}\n`;
}

function headOf(size: number): string {
  return `copyondemand order ${VERSION}\nsize ${size}\n`;
}

async function textOf(file: File, path: string): Promise<string> {
  const size = await file.size();
  if (size > MAX_FILE_BYTES) throw corrupt(path, `the file has ${size} bytes, more than ${MAX_FILE_BYTES}`);
  const bytes = Buffer.alloc(size);
  await file.read(bytes, 0);
  return bytes.toString('latin1');
}

/** Returns what the file holds. Afterwards it has a complete head and no torn end. */
async function beginOrContinue(file: File, { path, size }: Named): Promise<ParsedOrder> {
  const text = await textOf(file, path);
  const head = headOf(size);
  if (head.startsWith(text)) {
    // A new file, or one whose head was torn by a crash.
    await file.write(Buffer.from(head, 'latin1'), 0);
    return { extents: [], bytes: head.length, size };
  }
  if (!TITLE.test(text.slice(0, text.indexOf('\n')))) {
    throw new CodError('COD_EXISTS', `${path} exists and is not an order file: remove it or use another path`, {
      details: { path },
    });
  }
  const known = parseOrder(text, path);
  checkOrderSize({ path, size: known.size }, size);
  await file.truncate(known.bytes);
  return known;
}

interface Named {
  readonly path: string;
  readonly size: number;
}

interface ParsedOrder {
  readonly extents: ByteExtent[];
  /** Length up to the end of the last complete line. */
  readonly bytes: number;
  /** Bytes of the image. */
  readonly size: number;
}

/** @throws as {@link readOrder} */
export function parseOrder(text: string, path: string): ParsedOrder {
  const bytes = text.lastIndexOf('\n') + 1;
  const [title = '', sizeLine = '', ...lines] = text.slice(0, bytes).split('\n').slice(0, -1);
  const version = TITLE.exec(title)?.[1];
  if (version === undefined) throw corrupt(path, 'not an order file: it does not begin with `copyondemand order`');
  if (Number(version) !== VERSION) {
    throw new CodError('COD_VERSION', `${path} has version ${version}, but this program reads version ${VERSION}`, {
      details: { path },
    });
  }
  const found = SIZE.exec(sizeLine)?.[1];
  if (found === undefined) throw corrupt(path, 'line 2 must be like `size 1073741824`');
  const size = Number(found);
  const extents = lines.map((line, index) => {
    const match = EXTENT.exec(line);
    const extent = { offset: Number(match?.[1]), length: Number(match?.[2]) };
    // NaN fails this comparison.
    if (!(extent.length > 0 && extent.offset + extent.length <= size)) {
      throw corrupt(
        path,
        `line ${index + 3} must be like \`12 1048576 65536\`: ms, offset and length within the image`,
      );
    }
    return extent;
  });
  return { extents, bytes, size };
}

function corrupt(path: string, what: string): CodError {
  return new CodError('COD_CORRUPT', `${path}: ${what}`, { details: { path } });
}
