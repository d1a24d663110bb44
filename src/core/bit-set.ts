/** A set of whole numbers, few and near each other, such as the cells that were written since the last flush. */

/** Numbers of a chunk. */
const CHUNK_BITS = 4096;
const CHUNK_WORDS = CHUNK_BITS / 32;

export class BitSet {
  readonly #chunks = new Map<number, Uint32Array>();
  /** The chunk that was used last: most calls are about its neighbours. */
  #lastKey = -1;
  #last: Uint32Array | undefined;

  get isEmpty(): boolean {
    return this.#chunks.size === 0;
  }

  /** Adds the numbers [start, end). */
  add(start: number, end: number): void {
    for (let at = start; at < end; ) {
      const key = Math.floor(at / CHUNK_BITS);
      const base = key * CHUNK_BITS;
      const stop = Math.min(end - base, CHUNK_BITS);
      const words = this.#chunk(key) ?? this.#make(key);
      let bit = at - base;
      for (; bit < stop && bit % 32 !== 0; bit++) words[bit >>> 5]! |= 1 << bit;
      for (; bit + 32 <= stop; bit += 32) words[bit >>> 5] = 0xffff_ffff;
      for (; bit < stop; bit++) words[bit >>> 5]! |= 1 << bit;
      at = base + stop;
    }
  }

  /** Whether any of the numbers [start, end) is in the set. */
  hasAny(start: number, end: number): boolean {
    return this.next(start, end) < end;
  }

  /** The first number of the set within [from, limit), or `limit`. Linear in the distance, by chunks of 4096. */
  next(from: number, limit: number): number {
    if (this.#chunks.size === 0) return limit;
    for (let at = from; at < limit; ) {
      const key = Math.floor(at / CHUNK_BITS);
      const base = key * CHUNK_BITS;
      const words = this.#chunk(key);
      const stop = Math.min(limit - base, CHUNK_BITS);
      const found = words === undefined ? stop : nextBit(words, at - base, stop);
      if (found < stop) return base + found;
      at = base + stop;
    }
    return limit;
  }

  #chunk(key: number): Uint32Array | undefined {
    if (key !== this.#lastKey) {
      this.#last = this.#chunks.get(key);
      this.#lastKey = key;
    }
    return this.#last;
  }

  #make(key: number): Uint32Array {
    const words = new Uint32Array(CHUNK_WORDS);
    this.#chunks.set(key, words);
    this.#lastKey = key;
    this.#last = words;
    return words;
  }
}

/** The first bit of [start, end) that is set, or `end`. */
export function nextBit(words: Uint32Array, start: number, end: number): number {
  for (let index = start >>> 5, mask = 0xffff_ffff << start; index * 32 < end; index++, mask = -1) {
    const word = words[index]! & mask;
    if (word !== 0) return Math.min(end, index * 32 + 31 - Math.clz32(word & -word));
  }
  return end;
}
