/** The bytes of a file in memory, of which only the pages that were written take any. */

const PAGE_BYTES = 4096;

/** Bytes with a size; what was never written reads as zeros. */
export class SparseBytes {
  readonly #pages = new Map<number, Uint8Array>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** What a disk would need for them. */
  get allocatedBytes(): number {
    return this.#pages.size * PAGE_BYTES;
  }

  clone(): SparseBytes {
    const copy = new SparseBytes();
    copy.#size = this.#size;
    for (const [index, page] of this.#pages) copy.#pages.set(index, page.slice());
    return copy;
  }

  /** Fills `into`; behind the end with zeros. */
  read(into: Uint8Array, offset: number): void {
    for (const { index, start, piece } of pieces(into, offset)) {
      const page = this.#pages.get(index);
      if (page === undefined) piece.fill(0);
      else piece.set(page.subarray(start, start + piece.length));
    }
  }

  write(from: Uint8Array, offset: number): void {
    for (const { index, start, piece } of pieces(from, offset)) {
      let page = this.#pages.get(index);
      if (page === undefined) this.#pages.set(index, (page = new Uint8Array(PAGE_BYTES)));
      page.set(piece, start);
    }
    if (from.length > 0) this.#size = Math.max(this.#size, offset + from.length);
  }

  truncate(size: number): void {
    if (size < this.#size) {
      const last = Math.floor(size / PAGE_BYTES);
      for (const index of this.#pages.keys()) if (index > last) this.#pages.delete(index);
      if (size % PAGE_BYTES === 0) this.#pages.delete(last);
      else this.#pages.get(last)?.fill(0, size % PAGE_BYTES);
    }
    this.#size = size;
  }

  /** How many of `length` bytes could be written at `offset` if no more than `freeBytes` can be allocated for them. */
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

/** `bytes`, cut where pages meet. */
function* pieces(bytes: Uint8Array, offset: number): Generator<{ index: number; start: number; piece: Uint8Array }> {
  for (let done = 0; done < bytes.length; ) {
    const position = offset + done;
    const start = position % PAGE_BYTES;
    const piece = bytes.subarray(done, done + PAGE_BYTES - start);
    yield { index: Math.floor(position / PAGE_BYTES), start, piece };
    done += piece.length;
  }
}
