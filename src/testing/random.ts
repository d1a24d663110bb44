/** Reproducible randomness. */

/** A stream of numbers that is the same for the same seed. */
export interface Random {
  /**
   * Returns an integer from 0 to `limit - 1`.
   *
   * @param limit 1 to 2^32
   */
  below(limit: number): number;
  /** Returns true with probability `1 / count`. */
  oneIn(count: number): boolean;
  /** Fills `into` with random bytes and returns it. */
  fill<T extends Uint8Array>(into: T): T;
  /** Shuffles `items` in place and returns it. */
  shuffle<T>(items: T[]): T[];
  /** Returns a separate stream: draws from it do not advance this one. */
  fork(): Random;
}

/**
 * Returns the stream of a seed: sfc32 (Chris Doty-Humphrey, PractRand), started as its author does.
 *
 * @param seed a 32-bit integer
 * @example
 * ```ts
 * import { seededRandom } from 'copyondemand/testing';
 *
 * console.log(seededRandom(1).below(1000) === seededRandom(1).below(1000)); // true
 * ```
 */
export function seededRandom(seed: number): Random {
  let a = 0;
  let b = 0;
  let c = seed | 0;
  let counter = 1;

  function next(): number {
    const result = (a + b + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + result) | 0;
    return result >>> 0;
  }
  for (let round = 0; round < 12; round++) next();

  const random: Random = {
    below: (limit) => Math.floor((next() / 2 ** 32) * limit),
    oneIn: (count) => random.below(count) === 0,
    fill(into) {
      for (let index = 0; index < into.length; index++) into[index] = next();
      return into;
    },
    shuffle(items) {
      for (let index = items.length - 1; index > 0; index--) {
        const other = random.below(index + 1);
        [items[index], items[other]] = [items[other]!, items[index]!];
      }
      return items;
    },
    fork: () => seededRandom(next()),
  };
  return random;
}
