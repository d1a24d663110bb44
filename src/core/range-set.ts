/** Ranges of bytes, and sets of them. */

/** Bytes `[offset, offset + length)`. */
export interface ByteExtent {
  /** Bytes from the beginning of the device, 0 or more. */
  readonly offset: number;
  /** Bytes, 0 or more. */
  readonly length: number;
}

/** A set of numbers, kept as sorted ranges that neither overlap nor touch. It is small if its members are adjacent. */
export class RangeSet {
  readonly #starts: number[] = [];
  readonly #ends: number[] = [];

  /** Adds `[start, end)` and returns the parts of it that were not in the set, ascending. */
  add(start: number, end: number): [start: number, end: number][] {
    if (start >= end) return [];
    // The ranges [first, after) overlap or touch [start, end).
    const first = firstWhere(this.#ends, (rangeEnd) => rangeEnd >= start);
    const after = firstWhere(this.#starts, (rangeStart) => rangeStart > end);
    const added: [number, number][] = [];
    let at = start;
    for (let index = first; index < after; index++) {
      if (this.#starts[index]! > at) added.push([at, this.#starts[index]!]);
      at = Math.max(at, this.#ends[index]!);
    }
    if (at < end) added.push([at, end]);
    if (added.length > 0) {
      const merged =
        first < after ? [Math.min(start, this.#starts[first]!), Math.max(end, this.#ends[after - 1]!)] : [start, end];
      this.#starts.splice(first, after - first, merged[0]!);
      this.#ends.splice(first, after - first, merged[1]!);
    }
    return added;
  }
}

/** The index of the first of the ascending `numbers` for which the monotonic `holds` is true. */
function firstWhere(numbers: readonly number[], holds: (number: number) => boolean): number {
  let low = 0;
  let high = numbers.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (holds(numbers[middle]!)) high = middle;
    else low = middle + 1;
  }
  return low;
}
