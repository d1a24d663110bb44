/** Reading logs of format 1. */

import type { Core } from '../wasm/core.ts';
import { REPLAY } from '../wasm/generated/interface.ts';
import type { Geometry } from './geometry.ts';
import { FORMAT1_HEADER_BYTES, FORMAT1_WRITTEN_BYTES } from './layout.ts';
import { problemOf } from './log-problems.ts';
import { Replay } from './replay.ts';

/** Room for the beginning of a record, and for enough bytes of the next piece to complete it. */
const CARRY_BYTES = 2 * FORMAT1_WRITTEN_BYTES;

/** The result of {@link Format1Replay.endFormat1} for one log. */
export interface Format1Log {
  readonly records: number;
  /** Bytes of a torn record at the end of the file. */
  readonly tornBytes: number;
  /** Whether a record of type 0 ended the log before its end. */
  readonly endedByZero: boolean;
}

/** A {@link Replay} that reads logs of format 1 too. */
export class Format1Replay extends Replay {
  readonly #core: Core;
  readonly #geometry: Geometry;
  /** Bytes of the present log that are replayed, and bytes of an incomplete record, which are kept at `#carryAt`. */
  #fed = 0;
  #carried = 0;
  #carryAt: number;

  constructor(core: Core, geometry: Geometry) {
    super(core, geometry);
    this.#core = core;
    this.#geometry = geometry;
    this.#carryAt = core.exports.alloc(CARRY_BYTES);
  }

  /**
   * Replays the next piece, of any length, of a log of format 1. The first piece starts after the header.
   *
   * @throws {@link CodError} COD_CORRUPT for a record of an unknown type, or of a block or part that does not exist;
   * COD_NO_MEMORY if the core cannot grow
   */
  format1(piece: Uint8Array): void {
    this.#core.feed(piece, (pointer, length) => {
      let skip = 0;
      if (this.#carried > 0) {
        // The longest record is complete with this many bytes of the piece. Replay then continues in the piece.
        const added = Math.min(length, FORMAT1_WRITTEN_BYTES);
        this.#core.view(this.#carryAt + this.#carried, added).set(this.#core.view(pointer, added));
        const used = this.#take(this.#carryAt, this.#carried + added);
        if (used < this.#carried) {
          this.#carried += added;
          return;
        }
        skip = used - this.#carried;
        this.#carried = 0;
      }
      const used = skip + this.#take(pointer + skip, length - skip);
      this.#carried = length - used;
      if (this.#carried > 0)
        this.#core.view(this.#carryAt, this.#carried).set(this.#core.view(pointer + used, this.#carried));
    });
  }

  /** Replays whole records, and returns the number of their bytes. Returns `length` after the end of the log. */
  #take(pointer: number, length: number): number {
    if (this.hasEnded) return length;
    const used = this.#core.exports.replayFormat1(this.handle, pointer, length);
    if (used < 0) {
      const piece = { kind: -used, pointer, offset: this.#fed + FORMAT1_HEADER_BYTES };
      throw problemOf(this.#core, piece, { geometry: this.#geometry });
    }
    this.#fed += used;
    return this.hasEnded ? length : used;
  }

  /** Whether a record of type 0 has ended the present log: the rest need not be fed. */
  get hasEnded(): boolean {
    return this.#core.u32(this.handle + REPLAY.ended) !== 0;
  }

  /** Ends a log of format 1. The next piece begins another log. */
  endFormat1(): Format1Log {
    const { handle } = this;
    const { words } = this.#core;
    const log = {
      records: words[(handle + REPLAY.records) >>> 2]!,
      tornBytes: this.#carried,
      endedByZero: words[(handle + REPLAY.ended) >>> 2] !== 0,
    };
    words.fill(0, (handle + REPLAY.records) >>> 2, (handle + REPLAY.ended + 4) >>> 2);
    this.#fed = 0;
    this.#carried = 0;
    return log;
  }

  override dispose(): void {
    if (this.#carryAt !== 0 && !this.#core.failure) this.#core.exports.free(this.#carryAt, CARRY_BYTES);
    this.#carryAt = 0;
    super.dispose();
  }
}
