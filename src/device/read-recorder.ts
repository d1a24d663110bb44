/** Notes which parts of a device are read for the first time, in what order and when: an order for the background copy of the next boot. */

import { type ByteExtent, RangeSet } from '../core/range-set.ts';
import type { Clock } from '../platform/clock.ts';

/** An extent that was read. */
export interface ReadExtent extends ByteExtent {
  /** When it was first read, in whole ms since the recorder was made. */
  readonly atMs: number;
}

/** A {@link ReadExtent} that may still grow. */
type Noted = { -readonly [Key in keyof ReadExtent]: ReadExtent[Key] };

/** Extents are noted in units of so many bytes. */
const UNIT_BYTES = 4096;
/** A boot of an ordinary system has some ten thousand; what comes after so many is not noted. */
const MAX_EXTENTS = 2 ** 17;

export class ReadRecorder {
  readonly #size: number;
  readonly #clock: Pick<Clock, 'now'>;
  readonly #began: number;
  readonly #seen = new RangeSet();
  /** Noted and not taken yet, in order. */
  #pending: Noted[] = [];
  /** The same by the byte at which each ends, so that reads that go on are one extent. */
  readonly #ends = new Map<number, Noted>();
  #left: number;

  /** For a device of `size` bytes; `known` is noted already and not to be noted again. */
  constructor(options: { size: number; clock: Pick<Clock, 'now'>; known?: readonly ByteExtent[] }) {
    const { size, clock, known = [] } = options;
    this.#size = size;
    this.#clock = clock;
    this.#began = clock.now();
    this.#left = Math.max(0, MAX_EXTENTS - known.length);
    for (const { offset, length } of known) this.#add(offset, length);
  }

  /** Notes a read of bytes within the device. */
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

  /** What was noted since the last call: no byte twice, in the order in which it was first read. */
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
