/** The writes to a volume that is lost. A seed determines them, so that two processes derive the same writes. */

import { seededRandom } from '../../src/testing/random.ts';

/** The argument of the process that writes, as JSON. */
export interface LostVolumeOrder {
  readonly source: string;
  readonly directory: string;
  readonly size: number;
  readonly seed: number;
}

/** A write of the bytes that `seed` gives. */
export interface LostVolumeWrite {
  readonly offset: number;
  readonly length: number;
  readonly seed: number;
}

/** Returns writes of all lengths, many of them to the same cells. */
export function lostVolumeWrites({ size, seed }: Pick<LostVolumeOrder, 'size' | 'seed'>): {
  flushed: LostVolumeWrite[];
  unflushed: LostVolumeWrite[];
} {
  const random = seededRandom(seed);
  const writes = (count: number): LostVolumeWrite[] =>
    Array.from({ length: count }, () => {
      const isWhole = random.oneIn(2);
      const length = isWhole ? 4096 * (1 + random.below(4)) : 1 + random.below(3000);
      const offset = isWhole ? 4096 * random.below((size - length) / 4096) : random.below(size / 4);
      return { offset, length, seed: random.below(2 ** 31) };
    });
  return { flushed: writes(30), unflushed: writes(60) };
}
