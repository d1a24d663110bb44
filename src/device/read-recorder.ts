/**
 * Records which parts of a device are read first, in what order and when. The next boot's background copy follows that
 * order.
 */

import { type ByteExtent, RangeSet } from '../core/range-set.ts';
import type { Clock } from '../platform/clock.ts';

/** An extent that was read. */
export interface ReadExtent extends ByteExtent {
  /** Time of the first read, in whole ms since the recorder was made. */
  readonly atMs: number;
}

/** A {@link ReadExtent} that may still grow. */
type Noted = { -readonly [Key in keyof ReadExtent]: ReadExtent[Key] };

/** Extents are multiples of this many bytes. */
const UNIT_BYTES = 4096;
/** An ordinary boot has some ten thousand extents. Extents beyond this number are not recorded. */
const MAX_EXTENTS = 2 ** 17;

export class ReadRecorder {
  readonly #size: number;
  readonly #clock: Pick<Clock, 'now'>;
  readonly #began: number;
  readonly #seen = new RangeSet();
  /** Extents recorded and not taken yet, in order. */
  #pending: Noted[] = [];
  /** The same extents by the offset of their end, so that contiguous reads become one extent. */
  readonly #ends = new Map<number, Noted>();
  #left: number;

  /** Makes a recorder for a device of `size` bytes. Bytes of `known` are not recorded again. */
  constructor(options: { size: number; clock: Pick<Clock, 'now'>; known?: readonly ByteExtent[] }) {
    const { size, clock, known = [] } = options;
    this.#size = size;
    this.#clock = clock;
    this.#began = clock.now();
    this.#left = Math.max(0, MAX_EXTENTS - known.length);
    for (const { offset, length } of known) this.#add(offset, length);
  }

  /** Records a read of bytes within the device. */
  read(offset: number, length: number): void {
    if (this.#left === 0 || length === 0) return;
    for (const [start, end] of this.#add(offset, length)) {
      let extent = this.#ends.get(start);
      if (extent !== undefined) this.#ends.delete(start);
      else {
        if (this.#left === 0) return;
        this.#left--;
        extent = { offset: start, length: 0, atMs: Math.round(this.#clock.now() - this.#began) };
        this.#pending.push(extent);
      }
      extent.length += end - start;
      this.#ends.set(end, extent);
    }
  }

  /** Returns what was recorded since the last call, in the order of first reads. No byte comes twice. */
  take(): ReadExtent[] {
    const taken = this.#pending;
    this.#pending = [];
    this.#ends.clear();
    return taken;
  }

  #add(offset: number, length: number): [start: number, end: number][] {
    const start = Math.floor(offset / UNIT_BYTES) * UNIT_BYTES;
    const end = Math.min(this.#size, Math.ceil((offset + length) / UNIT_BYTES) * UNIT_BYTES);
    return this.#seen.add(start, end);
  }
}
