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
    if (this.#chunks.size === 0) return false;
    for (let at = start; at < end; ) {
      const key = Math.floor(at / CHUNK_BITS);
      const base = key * CHUNK_BITS;
      const stop = Math.min(end - base, CHUNK_BITS);
      const words = this.#chunk(key);
      if (words !== undefined && hasBits(words, at - base, stop)) return true;
      at = base + stop;
    }
    return false;
  }

  /** The first number of the set within [from, limit), or `limit`. Linear in the distance, by chunks of 4096. */
  next(from: number, limit: number): number {
    if (this.#chunks.size === 0) return limit;
    for (let at = from; at < limit; ) {
      const key = Math.floor(at / CHUNK_BITS);
      const base = key * CHUNK_BITS;
      const words = this.#chunks.get(key);
      const found = words === undefined ? CHUNK_BITS : nextBit(words, at - base);
      if (found < CHUNK_BITS) return Math.min(base + found, limit);
      at = base + CHUNK_BITS;
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

function hasBits(words: Uint32Array, start: number, end: number): boolean {
  const first = start >>> 5;
  const last = (end - 1) >>> 5;
  const head = 0xffff_ffff << start;
  const tail = 0xffff_ffff >>> (31 - ((end - 1) & 31));
  if (first === last) return (words[first]! & head & tail) !== 0;
  if ((words[first]! & head) !== 0 || (words[last]! & tail) !== 0) return true;
  for (let index = first + 1; index < last; index++) if (words[index] !== 0) return true;
  return false;
}

/** The first bit from `start` on that is set, or the number of bits. */
function nextBit(words: Uint32Array, start: number): number {
  let index = start >>> 5;
  for (let word = words[index]! & (0xffff_ffff << start); ; word = words[index]!) {
    if (word !== 0) return index * 32 + 31 - Math.clz32(word & -word);
    if (++index === words.length) return CHUNK_BITS;
  }
}
