/** A qcow2 image as the disk that it describes. */

import { withSignal } from '../../async/with-signal.ts';
import { CodError } from '../../errors.ts';
import { systemClock } from '../../platform/system-clock.ts';
import { addExtent, type ExtentList } from '../extents.ts';
import { formatOf } from '../format.ts';
import { checkRange } from '../range.ts';
import type { RetryReport } from '../retry.ts';
import type { InlineSource, InternalStreamOptions, Source, SourceExtent } from '../source.ts';
import { Chain, type Qcow2File } from './chain.ts';
import { ClusterCache } from './cluster-cache.ts';
import { type Group, groupsOf, type Part, readerOf } from './groups.ts';
import type { Below } from './layer.ts';
import type { Segment } from './segment.ts';
import { streamOf } from './stream.ts';

/** Options of {@link qcow2Source}. */
export interface Qcow2SourceOptions {
  /**
   * Opens a file that the image names: its backing file or its external data file. Resolves to the file's own bytes;
   * a backing file that is a qcow2 image is read as one. Names come from the maker of the image, so open only what you
   * trust. Default: none, and an image that needs such a file is refused.
   */
  readonly openFile?: (file: Qcow2File) => Promise<Source>;
  /** Aborts opening; has no effect on the opened source. */
  readonly signal?: AbortSignal;
}

/** Reads from this length on are streamed, which takes fewer requests. */
const STREAMED_BYTES = 2 ** 20;
/** Segments that are looked up at a time. */
const LOOKUP = 1024;
/** Requests of one read at a time. */
const CONCURRENCY = 8;
/** Shorter runs of zeros are part of the data around them: they cost nothing there, and a request for each costs. */
const MIN_ZERO_BYTES = 2 ** 20;
/** Look-ups of one call of `extents`. Bytes after them count as data, so that time and memory are bounded. */
const MAX_LOOKUPS = 1024;

/**
 * Returns the disk in a qcow2 image, whose bytes are `source`. Its `size` is that of the disk.
 *
 * - Versions 2 and 3, zlib and zstd, subclusters, backing files, external data files. Snapshots in the image are left
 *   out. The image must not be written meanwhile.
 * - The identity is made of those of all files. If one of them has none, neither has the disk.
 * - Tables and uncompressed clusters take at most 24 MiB of memory, and each stream 5 MiB.
 * - Closing the disk closes `source`, too, and the files that were opened for it. If this call rejects, `source` stays
 *   open.
 *
 * Reads also reject with COD_CORRUPT when a table or a compressed cluster is damaged.
 *
 * @throws {@link CodError} COD_UNSUPPORTED when `source` is no qcow2 image, is encrypted, needs a feature that is not
 *   known, or needs another file without {@link Qcow2SourceOptions.openFile}; COD_CORRUPT when its header is damaged.
 * @throws the errors of the sources.
 * @example
 * ```ts
 * import { qcow2Source } from 'copyondemand';
 * import { fileSource } from 'copyondemand/node';
 *
 * const disk = await qcow2Source(await fileSource('disk.qcow2'));
 * const sector = new Uint8Array(512);
 * await disk.read(sector, 0);
 * await disk.close();
 * ```
 */
export async function qcow2Source(source: Source, options: Qcow2SourceOptions = {}): Promise<Source & AsyncDisposable> {
  const chain = new Chain(options.openFile, formatOf);
  try {
    const disk = await withSignal(chain.open(source), options.signal);
    return new Qcow2Source(disk, chain, source);
  } catch (error) {
    await chain.close();
    throw error;
  }
}

class Qcow2Source implements InlineSource, AsyncDisposable {
  readonly size: number;
  declare readonly identity?: string;
  readonly mode: number;
  readonly #disk: Below;
  readonly #chain: Chain;
  readonly #file: Source;
  readonly #clusters = new ClusterCache();
  #closing: Promise<void> | undefined;

  constructor(disk: Below, chain: Chain, file: Source) {
    this.#disk = disk;
    this.#chain = chain;
    this.#file = file;
    this.size = disk.size;
    this.mode = chain.mode;
    const { identity } = chain;
    if (identity !== undefined) this.identity = identity;
  }

  get place(): InlineSource['place'] {
    const file: InlineSource = this.#file;
    return file.place;
  }

  set onRetry(listener: ((retry: RetryReport) => void) | undefined) {
    const file: InlineSource = this.#file;
    if ('onRetry' in file) file.onRetry = listener;
  }

  async read(into: Uint8Array, offset: number, options: { signal?: AbortSignal } = {}): Promise<void> {
    const { signal } = options;
    this.#check(offset, into.length, signal);
    if (into.length >= STREAMED_BYTES) return this.#readStreamed(into, offset, options);
    const end = offset + into.length;
    for (let at = offset; at < end; ) {
      const segments: Segment[] = [];
      const next = await withSignal(this.#disk.map(at, end, segments, LOOKUP), signal);
      await this.#fill(into.subarray(at - offset, next - offset), segments, signal);
      this.#check(offset, into.length, signal);
      at = next;
    }
  }

  async *stream(
    offset: number,
    length: number,
    options: InternalStreamOptions = {},
  ): AsyncIterableIterator<Uint8Array> {
    this.#check(offset, length, options.signal);
    for await (const piece of streamOf(this.#disk, this.#clusters, offset, length, options)) {
      this.#check(offset, length, options.signal);
      yield piece;
    }
  }

  async extents(offset: number, length: number): Promise<readonly SourceExtent[]> {
    this.#check(offset, length, undefined);
    const extents: ExtentList = [];
    const end = offset + length;
    let at = offset;
    let zeros = 0;
    for (let count = 0; at < end && count < MAX_LOOKUPS; count++) {
      const segments: Segment[] = [];
      at = await this.#disk.map(at, end, segments, LOOKUP);
      await systemClock.turn?.();
      this.#check(offset, length, undefined);
      for (const segment of segments) {
        if (segment.kind === 'zero') {
          zeros += segment.length;
          continue;
        }
        addExtent(extents, zeros, zeros >= MIN_ZERO_BYTES);
        zeros = 0;
        addExtent(extents, segment.length, false);
      }
    }
    addExtent(extents, zeros, zeros >= MIN_ZERO_BYTES || extents.length === 0);
    addExtent(extents, end - at, false);
    return extents;
  }

  close(): Promise<void> {
    this.#closing ??= Promise.all([this.#file.close(), this.#chain.close()]).then(() => undefined);
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #check(offset: number, length: number, signal: AbortSignal | undefined): void {
    if (this.#closing !== undefined) throw new CodError('COD_CLOSED', 'the source is closed');
    signal?.throwIfAborted();
    checkRange(this.size, offset, length);
  }

  async #readStreamed(into: Uint8Array, offset: number, options: { signal?: AbortSignal }): Promise<void> {
    let filled = 0;
    for await (const piece of this.stream(offset, into.length, options)) {
      into.set(piece, filled);
      filled += piece.length;
    }
  }

  /** Fills `into` with the bytes of segments, side by side. */
  async #fill(into: Uint8Array, segments: readonly Segment[], signal: AbortSignal | undefined): Promise<void> {
    let at = 0;
    const parts: Part[] = [];
    for (const segment of segments) {
      const part = into.subarray(at, at + segment.length);
      at += segment.length;
      if (segment.kind === 'zero') part.fill(0);
      else parts.push({ into: part, segment });
    }
    const groups = groupsOf(parts, (segment) => segment.kind === 'packed' && this.#clusters.has(segment));
    if (groups.length < 2) {
      for (const group of groups) await this.#fillGroup(group, signal);
      return;
    }
    const over = new AbortController();
    const either = signal === undefined ? over.signal : AbortSignal.any([signal, over.signal]);
    const work = async (): Promise<void> => {
      try {
        for (let next = groups.shift(); next !== undefined; next = groups.shift()) await this.#fillGroup(next, either);
      } catch (error) {
        groups.length = 0;
        over.abort(error);
      }
    };
    // None may write into the caller's buffer when this has ended.
    await Promise.all(Array.from({ length: Math.min(CONCURRENCY, groups.length) }, work));
    over.signal.throwIfAborted();
  }

  async #fillGroup(group: Group, signal: AbortSignal | undefined): Promise<void> {
    const [{ into, segment }] = group.parts as [Part];
    if (group.parts.length === 1 && segment.kind === 'data')
      return segment.file.read(into, segment.offset, signal === undefined ? {} : { signal });
    const read = readerOf(group);
    // Clusters are uncompressed together, before the cache can drop one of them.
    const wholes = group.parts.map(({ segment }) =>
      segment.kind === 'packed' ? this.#clusters.get(segment, read) : read(segment.offset, segment.length),
    );
    const bytes = await withSignal(Promise.all(wholes), signal);
    for (const [index, { into, segment }] of group.parts.entries()) {
      const skip = segment.kind === 'packed' ? segment.skip : 0;
      into.set(bytes[index]!.subarray(skip, skip + segment.length));
    }
  }
}
