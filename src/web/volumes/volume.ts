/** A volume that can be browsed, whatever its format. */

import { type Bytes, MAX_READ_BYTES, VolumeError } from './bytes.ts';

export type EntryKind = 'directory' | 'file' | 'link' | 'other';

export interface Entry {
  readonly name: string;
  readonly kind: EntryKind;
  /** Bytes; `undefined` where it is only known once the file is looked at. */
  readonly size: number | undefined;
  /** When it was last changed, in ms since 1970. */
  readonly modifiedMs: number | undefined;
  /** Where it is found: the inode or the first cluster, by the format. */
  readonly id: number;
}

export interface Listing {
  readonly entries: readonly Entry[];
  /** Whether there are more than {@link MAX_ENTRIES}, or so the image says. */
  readonly cut: boolean;
}

/** A run of a file's bytes, in order. */
export interface Run {
  /** Where it lies in the volume; `undefined` for a hole, which reads as zeros. */
  readonly offset: number | undefined;
  /** Bytes, more than 0. */
  readonly length: number;
}

/** A file that was looked at. */
export interface FileInfo {
  readonly size: number;
  readonly modifiedMs: number | undefined;
  /** Where a symbolic link points to. */
  readonly linkTarget?: string;
  /** Its contents, where they lie beside the blocks. */
  readonly inline?: Uint8Array;
  /** Its contents; the lengths sum up to its size. Each step gets further, so that it ends. */
  runs(signal?: AbortSignal): AsyncIterable<Run>;
}

export interface Volume {
  /** Such as `ext4` or `FAT32`. */
  readonly kind: string;
  readonly label: string;
  /** What the user should know of it, such as that a journal was not replayed. */
  readonly remark: string | undefined;
  readonly bytes: Bytes;
  readonly root: Entry;
  /** @throws VolumeError for damage; the signal's reason. */
  list(directory: Entry, signal?: AbortSignal): Promise<Listing>;
  look(file: Entry, signal?: AbortSignal): Promise<FileInfo>;
}

/** No directory is listed further. */
export const MAX_ENTRIES = 20_000;

/** Reads bytes [from, to) of a file in pieces of at most `pieceBytes`. @throws VolumeError; the signal's reason. */
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

/** Bytes [from, to) of a file as one array. */
export async function readPart(
  volume: Volume,
  file: FileInfo,
  range: { from: number; to: number },
  signal?: AbortSignal,
): Promise<Uint8Array> {
  const length = Math.max(0, Math.min(range.to, file.size) - range.from);
  if (length > MAX_READ_BYTES) throw new RangeError(`${length} bytes at once are too many`);
  const bytes = new Uint8Array(length);
  let done = 0;
  for await (const piece of readFile(volume, file, range, signal === undefined ? {} : { signal })) {
    bytes.set(piece, done);
    done += piece.length;
  }
  return bytes;
}

/** Runs that follow each other are one. */
export class Runs {
  #last: { offset: number | undefined; length: number } | undefined;

  /** Takes one more; gives the one before, if it is over. */
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

  /** What is left. */
  end(): Run | undefined {
    const last = this.#last;
    this.#last = undefined;
    return last;
  }
}
