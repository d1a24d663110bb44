/**
 * The bytes of a file in memory. Only pages that were written take memory. Copies share pages until one of the copies
 * writes.
 */

const PAGE_BYTES = 4096;

interface Page {
  readonly bytes: Uint8Array;
  /** Whether a copy may share the page, which must not change then. */
  shared: boolean;
}

/** Bytes with a size. Bytes that were never written read as zeros. */
export class SparseBytes {
  readonly #pages: Map<number, Page>;
  #size = 0;

  constructor(pages: Map<number, Page> = new Map()) {
    this.#pages = pages;
  }

  get size(): number {
    return this.#size;
  }

  /** Bytes that a disk would allocate. */
  get allocatedBytes(): number {
    return this.#pages.size * PAGE_BYTES;
  }

  clone(): SparseBytes {
    for (const page of this.#pages.values()) page.shared = true;
    const copy = new SparseBytes(new Map(this.#pages));
    copy.#size = this.#size;
    return copy;
  }

  /** Fills `into`; beyond the end with zeros. */
  read(into: Uint8Array, offset: number): void {
    into.fill(0);
    const first = Math.floor(offset / PAGE_BYTES);
    const end = Math.ceil((offset + into.length) / PAGE_BYTES);
    const copy = (index: number, page: Page | undefined): void => {
      if (page === undefined) return;
      const at = index * PAGE_BYTES - offset;
      into.set(page.bytes.subarray(Math.max(0, -at), Math.min(PAGE_BYTES, into.length - at)), Math.max(0, at));
    };
    if (end - first > this.#pages.size) {
      for (const [index, page] of this.#pages) if (index >= first && index < end) copy(index, page);
    } else {
      for (let index = first; index < end; index++) copy(index, this.#pages.get(index));
    }
  }

  write(from: Uint8Array, offset: number): void {
    for (let done = 0; done < from.length; ) {
      const start = (offset + done) % PAGE_BYTES;
      const bytes = Math.min(PAGE_BYTES - start, from.length - done);
      this.#ownPage(Math.floor((offset + done) / PAGE_BYTES)).set(from.subarray(done, done + bytes), start);
      done += bytes;
    }
    if (from.length > 0) this.#size = Math.max(this.#size, offset + from.length);
  }

  truncate(size: number): void {
    if (size < this.#size) {
      const last = Math.floor(size / PAGE_BYTES);
      for (const index of this.#pages.keys()) if (index > last) this.#pages.delete(index);
      if (size % PAGE_BYTES === 0) this.#pages.delete(last);
      else if (this.#pages.has(last)) this.#ownPage(last).fill(0, size % PAGE_BYTES);
    }
    this.#size = size;
  }

  /** Returns a page that only this file has. Makes it if it does not exist, and copies it if it is shared. */
  #ownPage(index: number): Uint8Array {
    const page = this.#pages.get(index);
    if (page !== undefined && !page.shared) return page.bytes;
    const bytes = page === undefined ? new Uint8Array(PAGE_BYTES) : page.bytes.slice();
    this.#pages.set(index, { bytes, shared: false });
    return bytes;
  }

  /** Returns how many of `length` bytes fit at `offset` if at most `freeBytes` can be allocated for them. */
  fitting(offset: number, length: number, freeBytes: number): number {
    let free = freeBytes;
    for (let done = 0; done < length; ) {
      const position = offset + done;
      if (!this.#pages.has(Math.floor(position / PAGE_BYTES)) && (free -= PAGE_BYTES) < 0) return done;
      done += PAGE_BYTES - (position % PAGE_BYTES);
    }
    return length;
  }
}
