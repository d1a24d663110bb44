/**
 * A disk of which nothing is kept: bytes of the source in a bounded cache, and writes in memory.
 *
 * - The cache holds the blocks that were used last, at most `maxCachedBytes`.
 * - A written block stays in memory until the disk is closed. When these are `maxWrittenBytes`, writes are refused.
 */

import { CodError } from '../browser.ts';
import { blobSource, httpSource, imageSource, type Source } from '../index.ts';
import type { DiskStatus, PageDisk } from './page-disk.ts';

const BLOCK_BYTES = 2 ** 16;

interface Limits {
  readonly maxCachedBytes: number;
  readonly maxWrittenBytes: number;
}

const LIMITS: Limits = { maxCachedBytes: 2 ** 26, maxWrittenBytes: 2 ** 26 };

/**
 * Opens the disk in an image.
 * @throws {@link CodError} as `httpSource` and `imageSource`.
 */
export async function openMemoryDisk(image: string | File): Promise<PageDisk> {
  const file = image instanceof File ? blobSource(image) : await httpSource(image);
  try {
    return new MemoryDisk(await imageSource(file));
  } catch (error) {
    await file.close();
    throw error;
  }
}

export class MemoryDisk implements PageDisk {
  readonly size: number;
  readonly blockSize: number = BLOCK_BYTES;
  readonly role = 'owner';
  onRoleChange: (() => void) | undefined;
  /** Nothing is copied, so it never settles. */
  readonly hydrated: Promise<void> = new Promise(() => undefined);
  readonly #source: Source;
  readonly #maxCachedBlocks: number;
  readonly #maxWrittenBlocks: number;
  /** Blocks of the source by index, the one that was used last at the end. */
  readonly #cached = new Map<number, Uint8Array>();
  readonly #written = new Map<number, Uint8Array>();
  readonly #fetches = new Map<number, Promise<Uint8Array>>();
  #sourceBytes = 0;
  #writeCount = 0;

  constructor(source: Source, { maxCachedBytes, maxWrittenBytes }: Limits = LIMITS) {
    this.#source = source;
    this.size = source.size;
    this.#maxCachedBlocks = maxCachedBytes / BLOCK_BYTES;
    this.#maxWrittenBlocks = maxWrittenBytes / BLOCK_BYTES;
  }

  async read(into: Uint8Array, offset: number, { signal }: { signal?: AbortSignal } = {}): Promise<void> {
    this.#check(offset, into.length);
    const first = Math.floor(offset / BLOCK_BYTES);
    const end = Math.ceil((offset + into.length) / BLOCK_BYTES);
    const copy = async (_: unknown, index: number): Promise<void> => {
      const block = await this.#block(first + index);
      signal?.throwIfAborted();
      const at = (first + index) * BLOCK_BYTES - offset;
      into.set(block.subarray(Math.max(0, -at), into.length - at), Math.max(0, at));
    };
    // Browsers bound the requests in flight.
    await Promise.all(Array.from({ length: end - first }, copy));
  }

  /** @throws {@link CodError} COD_NO_MEMORY when the written blocks exceed their limit; nothing is written then. */
  async write(from: Uint8Array, offset: number): Promise<void> {
    this.#check(offset, from.length);
    this.#writeCount++;
    const bytes = from.slice();
    const first = Math.floor(offset / BLOCK_BYTES);
    const end = Math.ceil((offset + bytes.length) / BLOCK_BYTES);
    const blocks = await Promise.all(Array.from({ length: end - first }, (_, index) => this.#block(first + index)));
    const added = blocks.filter((_, index) => !this.#written.has(first + index)).length;
    if (this.#written.size + added > this.#maxWrittenBlocks) {
      const limit = (this.#maxWrittenBlocks * BLOCK_BYTES) / 2 ** 20;
      throw new CodError('COD_NO_MEMORY', `the memory holds ${limit} MiB of writes: copy the image to write more`);
    }
    for (const [index, block] of blocks.entries()) {
      const own = this.#written.get(first + index) ?? block.slice();
      const start = (first + index) * BLOCK_BYTES;
      const from = Math.max(0, start - offset);
      own.set(bytes.subarray(from, start + own.length - offset), Math.max(0, offset - start));
      this.#written.set(first + index, own);
      this.#cached.delete(first + index);
    }
  }

  async flush(): Promise<void> {}

  status(): DiskStatus {
    return {
      blockSize: BLOCK_BYTES,
      totalBlocks: Math.ceil(this.size / BLOCK_BYTES),
      syncedBlocks: this.#cached.size + this.#written.size,
      dirtyBlocks: 0,
      sourceBytes: this.#sourceBytes,
      writes: { count: this.#writeCount },
    };
  }

  async refreshStatus(): Promise<DiskStatus> {
    return this.status();
  }

  async countSynced(
    parts: number,
    { start, end }: { start: number; end: number } = { start: 0, end: this.status().totalBlocks },
  ): Promise<Float64Array> {
    const counts = new Float64Array(parts);
    for (const blocks of [this.#cached, this.#written])
      for (const index of blocks.keys())
        if (index >= start && index < end) counts[Math.floor(((index - start) * parts) / (end - start))]!++;
    return counts;
  }

  async countDirty(parts: number): Promise<Float64Array> {
    return new Float64Array(parts);
  }

  async *events(): AsyncGenerator<never> {}

  setRate(): void {}

  async close(): Promise<void> {
    await this.#source.close();
  }

  #check(offset: number, length: number): void {
    if (!Number.isSafeInteger(offset) || offset < 0 || offset > this.size - length)
      throw new RangeError(`${length} bytes at ${offset} are not within the disk (${this.size} bytes)`);
  }

  async #block(index: number): Promise<Uint8Array> {
    const known = this.#written.get(index) ?? this.#cached.get(index);
    if (known === undefined) return this.#fetch(index);
    if (this.#cached.delete(index)) this.#cached.set(index, known);
    return known;
  }

  /** Several reads may wait for one block. A read that was aborted leaves the fetch to the others. */
  #fetch(index: number): Promise<Uint8Array> {
    const running = this.#fetches.get(index);
    if (running !== undefined) return running;
    const fetch = this.#fetchAnew(index).finally(() => this.#fetches.delete(index));
    this.#fetches.set(index, fetch);
    return fetch;
  }

  async #fetchAnew(index: number): Promise<Uint8Array> {
    const start = index * BLOCK_BYTES;
    const block = new Uint8Array(Math.min(BLOCK_BYTES, this.size - start));
    await this.#source.read(block, start);
    this.#sourceBytes += block.length;
    if (!this.#written.has(index)) this.#cached.set(index, block);
    for (const oldest of this.#cached.keys()) {
      if (this.#cached.size <= this.#maxCachedBlocks) break;
      this.#cached.delete(oldest);
    }
    return this.#written.get(index) ?? block;
  }
}
