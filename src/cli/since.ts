/**
 * What has changed in a copy since one of its snapshots. Reads only.
 *
 * A snapshot is the point in time: its files are durable, and nothing about it is kept elsewhere. A block that users
 * modified in neither of both reads as the source does, in both. Every other block is listed, unless both files hold
 * it with equal bytes. So a missing or damaged snapshot is an error, and never hides a change.
 */

import type { ByteExtent } from '../core/range-set.ts';
import { CodError, isCodError } from '../errors.ts';
import type { File, FileSystem } from '../fs/file-system.ts';
import { type Inspection, inspectMetadata } from '../log/inspect.ts';
import { assertNotOwned } from '../log/ownership.ts';

/** Bytes that are read from each file at a time. */
const PIECE_BYTES = 2 ** 20;

/** Inclusive runs of blocks, ascending. */
type Runs = readonly (readonly [first: number, last: number])[];

/** What the difference needs to know of a copy. */
export type Contents = Pick<Inspection, 'target' | 'size' | 'blockSize' | 'identity' | 'synced' | 'modified'>;

/**
 * Reads what the file `name` holds: a snapshot, or a complete image without metadata, such as a restored one.
 * @throws {@link CodError} COD_LOCKED if it is in use, since it is no fixed point then; COD_SIZE_MISMATCH,
 * COD_SOURCE_CHANGED or COD_UNSUPPORTED if it is no snapshot of `target`; the errors of {@link inspectMetadata}.
 */
export async function contentsSince(fileSystem: FileSystem, target: Contents, name: string): Promise<Contents> {
  await assertNotOwned(fileSystem, name);
  const since = await inspectMetadata(fileSystem, name).catch((error: unknown) => {
    // The same code says that neither metadata nor file is there.
    if (isCodError(error, 'COD_NOT_FOUND')) return imageOf(fileSystem, target, name);
    throw error;
  });
  const refuse = (code: 'COD_SIZE_MISMATCH' | 'COD_SOURCE_CHANGED' | 'COD_UNSUPPORTED', what: string): never => {
    throw new CodError(code, `${name} is no snapshot of ${target.target}: ${what}`, { details: { file: name } });
  };
  if (since.size !== target.size) refuse('COD_SIZE_MISMATCH', `it has ${since.size} bytes, not ${target.size}`);
  if (since.blockSize !== target.blockSize) refuse('COD_UNSUPPORTED', `it has blocks of ${since.blockSize} bytes`);
  if (since.identity !== target.identity) refuse('COD_SOURCE_CHANGED', 'they are copies of different sources');
  return since;
}

/** Nothing is known of an image without metadata, so every block is compared. */
async function imageOf(fileSystem: FileSystem, target: Contents, name: string): Promise<Contents> {
  const file = await fileSystem.open(name, { readOnly: true });
  const size = await file.size().finally(() => file.close());
  const all: Runs = [[0, Math.ceil(size / target.blockSize) - 1]];
  return { ...target, target: name, size, synced: all, modified: all };
}

/**
 * Yields the extents in which `target` may differ from `since`: whole blocks, ascending, merged. What was acknowledged
 * before the call is considered, also if the copy is in use.
 */
export async function* changedSince(
  fileSystem: FileSystem,
  target: Contents,
  since: Contents,
): AsyncGenerator<ByteExtent, void, undefined> {
  const { blockSize, size } = target;
  const comparison = await Comparison.open(fileSystem, target, since);
  let found: ByteExtent | undefined;
  try {
    for (const [first, last] of united(target.modified, since.modified)) {
      for await (const block of comparison.differing(first, last)) {
        const offset = block * blockSize;
        const end = Math.min(offset + blockSize, size);
        if (found !== undefined && found.offset + found.length === offset) {
          found = { offset: found.offset, length: end - found.offset };
          continue;
        }
        if (found !== undefined) yield found;
        found = { offset, length: end - offset };
      }
    }
  } finally {
    await comparison.close();
  }
  if (found !== undefined) yield found;
}

/** Compares blocks of two files, in ascending order. */
class Comparison {
  readonly #contents: Contents;
  readonly #files: readonly [File, File];
  readonly #held: readonly [Cursor, Cursor];
  readonly #pieces = [new Uint8Array(PIECE_BYTES), new Uint8Array(PIECE_BYTES)] as const;

  private constructor(target: Contents, since: Contents, files: readonly [File, File]) {
    this.#contents = target;
    this.#files = files;
    this.#held = [new Cursor(target.synced), new Cursor(since.synced)];
  }

  static async open(fileSystem: FileSystem, target: Contents, since: Contents): Promise<Comparison> {
    const file = await fileSystem.open(target.target, { readOnly: true });
    try {
      const other = await fileSystem.open(since.target, { readOnly: true });
      return new Comparison(target, since, [file, other]);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** Yields the blocks of [first, last] that are not known to be equal. */
  async *differing(first: number, last: number): AsyncGenerator<number, void, undefined> {
    const isHeld = (block: number): boolean => this.#held.every((held) => held.has(block));
    for (let block = first; block <= last; ) {
      if (!isHeld(block)) {
        yield block++;
        continue;
      }
      let end = block + 1;
      const most = block + Math.max(1, Math.floor(PIECE_BYTES / this.#contents.blockSize));
      while (end <= last && end < most && isHeld(end)) end++;
      yield* await this.#compare(block, end);
      block = end;
    }
  }

  /** Returns the blocks of [start, end) that differ. These are one piece, or one block of several pieces. */
  async #compare(start: number, end: number): Promise<number[]> {
    const { blockSize, size } = this.#contents;
    const stop = Math.min(end * blockSize, size);
    const differing = new Set<number>();
    for (let at = start * blockSize; at < stop; at += PIECE_BYTES) {
      const [one, other] = this.#pieces.map((piece) => piece.subarray(0, stop - at)) as [Uint8Array, Uint8Array];
      await Promise.all([this.#files[0].read(one, at), this.#files[1].read(other, at)]);
      const step = Math.min(blockSize, PIECE_BYTES);
      for (let from = 0; from < one.length; from += step) {
        if (Buffer.compare(one.subarray(from, from + step), other.subarray(from, from + step)) !== 0)
          differing.add(Math.floor((at + from) / blockSize));
      }
    }
    return [...differing];
  }

  async close(): Promise<void> {
    await Promise.allSettled(this.#files.map((file) => file.close()));
  }
}

/** Looks up blocks in ascending order. */
export class Cursor {
  readonly #runs: Runs;
  #index = 0;

  constructor(runs: Runs) {
    this.#runs = runs;
  }

  has(block: number): boolean {
    while (this.#index < this.#runs.length && this.#runs[this.#index]![1] < block) this.#index++;
    const run = this.#runs[this.#index];
    return run !== undefined && run[0] <= block;
  }
}

/** The blocks that are in any of both. */
function united(one: Runs, other: Runs): Runs {
  const runs: [number, number][] = [];
  for (const [first, last] of [...one, ...other].sort((a, b) => a[0] - b[0])) {
    const before = runs.at(-1);
    if (before !== undefined && first <= before[1] + 1) before[1] = Math.max(before[1], last);
    else runs.push([first, last]);
  }
  return runs;
}
