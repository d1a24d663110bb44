/** The interface of a volume that can be browsed, and reading of its files. */

import { type Bytes, MAX_READ_BYTES, VolumeError } from './bytes.ts';

export type EntryKind = 'directory' | 'file' | 'link' | 'other';

export interface Entry {
  readonly name: string;
  readonly kind: EntryKind;
  /** Bytes. `undefined` if only {@link Volume.look} can tell. */
  readonly size: number | undefined;
  /** Time of the last change, in ms since 1970. */
  readonly modifiedMs: number | undefined;
  /** Locates the entry in its volume: the inode or the first cluster. */
  readonly id: number;
}

export interface Listing {
  readonly entries: readonly Entry[];
  /** Whether entries are missing: the directory exceeds {@link MAX_ENTRIES} or the format's limit. */
  readonly cut: boolean;
  /** Damage that left entries out, as words without a full stop. */
  readonly remark?: string;
}

/** A run of a file's bytes. Runs are in the order of the file. */
export interface Run {
  /** Offset in the volume, in bytes. `undefined` for a hole, which reads as zeros. */
  readonly offset: number | undefined;
  /** Bytes, more than 0. */
  readonly length: number;
}

/** The metadata of a file, and the places of its contents. */
export interface FileInfo {
  readonly size: number;
  readonly modifiedMs: number | undefined;
  /** The target, for a symbolic link. */
  readonly linkTarget?: string;
  /** The contents, if the inode itself stores them. */
  readonly inline?: Uint8Array;
  /**
   * Reads bytes of contents that the disk stores in another form, such as compressed. `runs` are the places of that
   * form.
   */
  unpack?(range: { from: number; to: number }, signal?: AbortSignal): AsyncIterable<Uint8Array>;
  /** Yields the places of the contents. Their lengths sum up to `size`. The iteration ends even for a damaged image. */
  runs(signal?: AbortSignal): AsyncIterable<Run>;
}

export interface Volume {
  /** Such as `ext4` or `FAT32`. */
  readonly kind: string;
  readonly label: string;
  /** A fact that the user should know, such as a journal that was not replayed. */
  readonly remark: string | undefined;
  readonly bytes: Bytes;
  readonly root: Entry;
  /** @throws {@link VolumeError} when the image is damaged; the signal's reason. */
  list(directory: Entry, signal?: AbortSignal): Promise<Listing>;
  look(file: Entry, signal?: AbortSignal): Promise<FileInfo>;
}

/** A listing has at most this many entries. */
export const MAX_ENTRIES = 20_000;

/**
 * Yields bytes [from, to) of a file in pieces of at most `pieceBytes`.
 * @throws {@link VolumeError} when the image is damaged or the file is too short; the signal's reason.
 */
export async function* readFile(
  volume: Volume,
  file: FileInfo,
  range: { from: number; to: number },
  options: { pieceBytes?: number; signal?: AbortSignal } = {},
): AsyncGenerator<Uint8Array> {
  const { pieceBytes = 2 ** 20, signal } = options;
  const step = Math.min(pieceBytes, MAX_READ_BYTES);
  const to = Math.min(range.to, file.size);
  if (file.inline !== undefined) {
    if (range.from < to) yield file.inline.slice(range.from, to);
    return;
  }
  if (file.unpack !== undefined) {
    if (range.from < to) yield* file.unpack({ from: range.from, to }, signal);
    return;
  }
  let start = 0;
  for await (const run of file.runs(signal)) {
    const end = start + run.length;
    for (let at = Math.max(start, range.from); at < Math.min(end, to); ) {
      signal?.throwIfAborted();
      const length = Math.min(step, end - at, to - at);
      yield run.offset === undefined
        ? new Uint8Array(length)
        : await volume.bytes.read(run.offset + at - start, length, signal);
      at += length;
    }
    start = end;
    if (start >= to) return;
  }
  if (start < to) throw new VolumeError(`the file ends after ${start} of its ${file.size} bytes`);
}

/**
 * Reads bytes [from, to) of a file into one array.
 * @throws RangeError when they are more than {@link MAX_READ_BYTES}.
 */
export async function readPart(
  volume: Volume,
  file: FileInfo,
  range: { from: number; to: number },
  signal?: AbortSignal,
): Promise<Uint8Array> {
  const length = Math.max(0, Math.min(range.to, file.size) - range.from);
  if (length > MAX_READ_BYTES) throw new RangeError(`${length} bytes are too many for one read`);
  const bytes = new Uint8Array(length);
  let done = 0;
  for await (const piece of readFile(volume, file, range, signal === undefined ? {} : { signal })) {
    bytes.set(piece, done);
    done += piece.length;
  }
  return bytes;
}

/** Joins adjacent runs. */
export class Runs {
  #last: { offset: number | undefined; length: number } | undefined;

  /** Adds a run. Returns the previous run if the new one does not extend it. */
  add(offset: number | undefined, length: number): Run | undefined {
    const last = this.#last;
    const follows =
      last !== undefined &&
      (offset === undefined
        ? last.offset === undefined
        : last.offset !== undefined && last.offset + last.length === offset);
    if (follows) {
      last.length += length;
      return undefined;
    }
    this.#last = { offset, length };
    return last;
  }

  /** Returns the last run, if there is one. */
  end(): Run | undefined {
    const last = this.#last;
    this.#last = undefined;
    return last;
  }
}
