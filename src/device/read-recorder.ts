/**
 * Records which parts of a device are read first, in what order and when. The next boot's background copy follows that
 * order.
 */

import { type ByteExtent, RangeSet } from '../core/range-set.ts';
import type { Clock } from '../platform/clock.ts';

/** An extent that was read. */
export interface ReadExtent extends ByteExtent {
  /** Time of the extent's first read, in whole milliseconds since the recorder was made. */
  readonly atMs: number;
}

/** A {@link ReadExtent} that may still grow. */
type Noted = { -readonly [Key in keyof ReadExtent]: ReadExtent[Key] };

/** Extents are multiples of this many bytes. */
const UNIT_BYTES = 4096;
/** An ordinary boot has some ten thousand extents. Extents beyond this number are not recorded. */
const MAX_EXTENTS = 2 ** 17;

/**
 * Records which parts of a device are read first, in what order and when. Pass the extents as `hydrate.order` at the
 * next start: the background copy then fetches them first. Extents are multiples of 4096 bytes, but for the device's
 * end. At most 2^17 extents are recorded.
 *
 * @example
 * ```ts
 * import { bytesSource, openDevice, ReadRecorder } from 'copyondemand';
 * import { memfsFileSystem } from 'copyondemand/memfs';
 *
 * const source = bytesSource(new Uint8Array(2 ** 20));
 * const recorder = new ReadRecorder({ size: source.size, clock: performance });
 * const device = await openDevice({
 *   source,
 *   fileSystem: memfsFileSystem(),
 *   target: 'disk.raw',
 *   onRead: (offset, length) => recorder.read(offset, length),
 * });
 * await device.read(new Uint8Array(512), 65_536);
 * const order = recorder.take().map(({ offset, length }) => ({ offset, length }));
 * console.log(JSON.stringify(order)); // [{"offset":65536,"length":4096}]
 * await device.close();
 * ```
 */
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

  /**
   * Makes a recorder. Its time starts at 0 ms.
   *
   * @param options.size bytes of the device
   * @param options.clock measures {@link ReadExtent.atMs}; `performance` is one
   * @param options.known extents of an earlier recording, which are not recorded again. Default: none.
   */
  constructor(options: { size: number; clock: Pick<Clock, 'now'>; known?: readonly ByteExtent[] }) {
    const { size, clock, known = [] } = options;
    this.#size = size;
    this.#clock = clock;
    this.#began = clock.now();
    this.#left = Math.max(0, MAX_EXTENTS - known.length);
    for (const { offset, length } of known) this.#add(offset, length);
  }

  /** Records a read of the bytes `[offset, offset + length)`, which must be inside the device. */
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
