/**
 * Judges the records behind the last barrier: they count only where the target reads as they say (docs/FORMAT.md,
 * "Which records count").
 *
 * The records of both logs are judged together, in order. For each cell the last sum decides that equals the sum of
 * what the cell reads as: the writes up to that record count for this cell, and later ones do not. A cell without such
 * a sum lost its writes. Nothing but a read of the target is needed, so no name of a boot, volume or machine is.
 */

import type { TurningClock } from '../async/turns.ts';
import type { CopyState } from '../core/copy-state.ts';
import {
  CELL_BYTES,
  FRAME_BYTES,
  FRAME_HEADER_BYTES,
  MAY_READ,
  RECORD_BYTES,
  SECTOR_BYTES,
  WRITTEN,
  WRITTEN_PAIR,
} from '../core/layout.ts';
import { CodError, isCodError } from '../errors.ts';
import type { Core } from '../wasm/core.ts';
import { MAX_CLAIMS } from './firmness.ts';

/** Reads the target: fills `into` with its bytes from `offset` on. */
export type ReadTarget = (into: Uint8Array, offset: number) => Promise<void>;

/** A run of bytes of the target. */
export interface Extent {
  readonly offset: number;
  readonly length: number;
}

/** A writer leaves fewer: it stops at {@link MAX_CLAIMS}, apart from one batch in each log. */
const MAX_CLAIMS_READ = 2 * MAX_CLAIMS;
/** Cells that are judged before the event loop turns: 2 ms. To sort all would take 20 ms. Neighbours share a read. */
const CELLS_A_TURN = 256;

/** What one record says about one cell. */
interface Claim {
  /** The part of the cell that was written, in bytes from its beginning. Empty for `MAY_READ`. */
  readonly start: number;
  readonly end: number;
  readonly sum: number;
}

export class Proof {
  readonly #core: Core;
  readonly #size: number;
  /** The claims about each cell, in the order of the logs. */
  readonly #claims = new Map<number, Claim[]>();
  #count = 0;
  /** The judged cells whose bytes no claim matches, and the sums of their bytes. */
  readonly lost: Map<number, number> = new Map();

  constructor(core: Core, size: number) {
    this.#core = core;
    this.#size = size;
  }

  /** Takes the records of the frames from `through` on in whole sectors of a log that was scanned. */
  collect(sectors: Uint8Array, frames: { from: number; to: number }): void {
    const view = new DataView(sectors.buffer, sectors.byteOffset, sectors.byteLength);
    for (let sector = 0; sector < sectors.length; sector += SECTOR_BYTES) {
      for (let at = sector; at + FRAME_BYTES <= sector + SECTOR_BYTES; ) {
        const length = view.getUint16(at, true);
        const sequence = view.getUint32(at + 8, true);
        if (length < FRAME_BYTES || at + length > sector + SECTOR_BYTES || sequence >= frames.to) break;
        if (sequence >= frames.from) this.#take(view, at + FRAME_HEADER_BYTES, (length - FRAME_BYTES) / RECORD_BYTES);
        at += length;
      }
    }
  }

  #take(view: DataView, records: number, count: number): void {
    for (let at = records; at < records + count * RECORD_BYTES; at += RECORD_BYTES) {
      const low = view.getUint32(at, true);
      const offset = low + (view.getUint32(at + 4, true) & 0xff_ffff) * 2 ** 32;
      const [one, two] = [view.getUint32(at + 8, true), view.getUint32(at + 12, true)];
      const cell = Math.floor(offset / CELL_BYTES);
      switch (view.getUint8(at + 7)) {
        case WRITTEN: {
          const start = offset % CELL_BYTES;
          this.#claim(cell, { start, end: start + one, sum: two });
          break;
        }
        case WRITTEN_PAIR:
          this.#claim(cell, { start: 0, end: CELL_BYTES, sum: one });
          this.#claim(cell + 1, { start: 0, end: CELL_BYTES, sum: two });
          break;
        case MAY_READ:
          this.#claim(cell, { start: 0, end: 0, sum: one });
      }
    }
  }

  #claim(cell: number, claim: Claim): void {
    if (++this.#count > MAX_CLAIMS_READ)
      throw new CodError('COD_CORRUPT', `log has more than ${MAX_CLAIMS_READ} records behind its barrier`);
    const claims = this.#claims.get(cell);
    if (claims === undefined) this.#claims.set(cell, [claim]);
    else claims.push(claim);
  }

  /**
   * Reads every claimed cell once, and applies what is proved to the state.
   *
   * @param seen judges these cells only: first by these sums of what they once read as, and then by a read
   * @returns the cells with proved bytes; neighbours that were claimed about the same time are one extent
   * @throws the error of `read`, unless the target is missing or too short: that proves nothing
   */
  async judge(
    read: ReadTarget,
    state: CopyState,
    clock: TurningClock,
    seen?: ReadonlyMap<number, number>,
  ): Promise<Extent[]> {
    const proved: { offset: number; length: number }[] = [];
    const all = [...this.#claims.keys()].filter(
      (cell) => !seen || (seen.has(cell) && !this.#apply(state, cell, seen.get(cell)!)),
    );
    const buffer = new Uint8Array(CELLS_A_TURN * CELL_BYTES);
    for (let from = 0; from < all.length; from += CELLS_A_TURN) {
      const cells = all.slice(from, from + CELLS_A_TURN).sort((one, other) => one - other);
      for (let index = 0; index < cells.length; ) {
        const first = cells[index]!;
        let count = 1;
        while (cells[index + count] === first + count) count++;
        const start = first * CELL_BYTES;
        const bytes = buffer.subarray(0, Math.min(count * CELL_BYTES, this.#size - start));
        const isThere = await readWhole(read, bytes, start);
        for (let cell = first; isThere && cell < first + count; cell++) {
          const at = (cell - first) * CELL_BYTES;
          const content = bytes.subarray(at, at + CELL_BYTES);
          const sum = this.#core.cellSum(content);
          if (!this.#apply(state, cell, sum)) {
            this.lost.set(cell, sum);
            continue;
          }
          const offset = start + at;
          const last = proved.at(-1);
          if (last && last.offset + last.length === offset) last.length += content.length;
          else proved.push({ offset, length: content.length });
        }
        index += count;
      }
      await clock.turn?.();
    }
    return proved;
  }

  /** Applies the writes of a cell up to the last claim with this sum. Returns whether there is such a claim. */
  #apply(state: CopyState, cell: number, sum: number): boolean {
    const claims = this.#claims.get(cell)!;
    let last = claims.length - 1;
    while (last >= 0 && claims[last]!.sum !== sum) last--;
    for (const { start, end } of claims.slice(0, last + 1)) {
      const offset = cell * CELL_BYTES + start;
      const length = Math.min(end - start, this.#size - offset);
      if (length > 0) state.apply(offset, length);
    }
    return last >= 0;
  }
}

async function readWhole(read: ReadTarget, into: Uint8Array, offset: number): Promise<boolean> {
  try {
    await read(into, offset);
    return true;
  } catch (error) {
    if (isCodError(error, 'COD_NOT_FOUND') || isCodError(error, 'COD_SHORT_READ')) return false;
    throw error;
  }
}
