/**
 * Reads of a sparse file's holes, past the page cache (`O_DIRECT`, on Linux). Node has no SEEK_HOLE, so holes have to
 * be read. Through the page cache a GiB of a hole costs 0.8 s of the kernel's time, and other programs their memory;
 * past it 0.03 s (ext4 on virtio, 2026).
 */

import * as fs from 'node:fs';
import { areWholePages, PAGE_BYTES, pageBuffer, releasePages } from './pages.ts';
import { isZero } from './zeros.ts';

/** The unit of `blocks` of `stat`, whatever the file system (stat(3type)). */
export const STAT_BLOCK_BYTES = 512;

export class HoleReader {
  readonly #fd: number;
  /** Another open of the file. Undefined before the first read. */
  #direct: Promise<fs.promises.FileHandle> | undefined;
  #isPossible: boolean = fs.constants.O_DIRECT !== undefined;

  /** @param fd of an open file, which stays the caller's */
  constructor(fd: number) {
    this.#fd = fd;
  }

  /** Whether the file has holes at this moment. */
  get isSparse(): boolean {
    if (!this.#isPossible) return false;
    const { blocks, size } = fs.fstatSync(this.#fd);
    return blocks * STAT_BLOCK_BYTES < size;
  }

  /** Whether {@link read} can fill `into`: whole pages of a {@link pageBuffer}, from a page of the file on. */
  canRead(into: Uint8Array, offset: number): boolean {
    return this.#isPossible && offset % PAGE_BYTES === 0 && areWholePages(into);
  }

  /** Fills `into` on the thread pool. Resolves to false if the file ends before, or cannot be read like that. */
  async read(into: Uint8Array, offset: number): Promise<boolean> {
    try {
      this.#direct ??= fs.promises.open(`/proc/self/fd/${this.#fd}`, fs.constants.O_RDONLY | fs.constants.O_DIRECT);
      const { bytesRead } = await (await this.#direct).read(into, 0, into.length, offset);
      return bytesRead === into.length;
    } catch {
      // The file system has no direct reads, or there is no /proc. The page cache serves as well.
      this.#isPossible = false;
      return false;
    }
  }

  /** Whether a range is known to be zero. False, without a read, where the file has no holes. */
  async isHole(offset: number, length: number): Promise<boolean> {
    if (!this.isSparse) return false;
    const buffer = pageBuffer(length);
    try {
      return this.canRead(buffer, offset) && (await this.read(buffer, offset)) && isZero(buffer);
    } finally {
      releasePages(buffer);
    }
  }

  /** Waits for the reads in flight. */
  async close(): Promise<void> {
    this.#isPossible = false;
    await this.#direct?.then((handle) => handle.close()).catch(() => undefined);
  }
}
