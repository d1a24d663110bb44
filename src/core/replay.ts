/**
 * Reading logs of both formats. {@link LogScan} checks a log of format 2 and finds the part that counts. {@link Replay}
 * turns logs into synced blocks and dirty parts. Both read a file in pieces, and make no call for each record.
 */

import { CodError } from '../errors.ts';
import { MORE } from '../wasm/codes.ts';
import type { Core } from '../wasm/core.ts';
import { REPLAY, SCAN } from '../wasm/generated/interface.ts';
import type { DirtyMap } from './dirty-map.ts';
import { type Geometry, sliceCount } from './geometry.ts';
import {
  FILLED,
  FORMAT1_HEADER_BYTES,
  FORMAT1_WRITTEN_BYTES,
  HEADER_BYTES,
  MAX_BLOCK_PARTS,
  MODIFIED,
  SECTOR_BYTES,
  WRITTEN,
  WRITTEN_PAIR,
} from './layout.ts';
import { problemOf } from './log-problems.ts';

/** The types of records that say what the target holds, and that say what users may have changed: bit n for type n. */
const HELD = (1 << WRITTEN) | (1 << WRITTEN_PAIR) | (1 << FILLED);
const CHANGED = (1 << WRITTEN) | (1 << WRITTEN_PAIR) | (1 << MODIFIED);

/** Room for the beginning of a record, and for enough bytes of the next piece to complete it. */
const CARRY_BYTES = 2 * FORMAT1_WRITTEN_BYTES;

/** The result of {@link LogScan}. Offsets are offsets in the file. */
export interface LogScanResult {
  /** The number of frames that count, which is also the next sequence. */
  readonly frames: number;
  /** The number of records about bytes of the target in these frames. */
  readonly records: number;
  /** The end of the last frame that counts. */
  readonly endOffset: number;
  /** Bytes after that end that are not zeros, up to the end of their sector. */
  readonly tornBytes: number;
  /** Whether a frame that is missing at that end was durable: the log is damaged. */
  readonly isDamaged: boolean;
  /** The highest `BARRIER` that counts; 0 if there is none. The frames below it are firm. */
  readonly barrierThrough: number;
  /** Whether `BARRIER` is among the records that count: then all frames of the log before are firm. */
  readonly hasBarrier: boolean;
  /** Whether `CONTINUED` is among the records that count. */
  readonly continued: boolean;
  /** Whether `BASED` was found anywhere, even after missing frames. */
  readonly basedAnywhere: boolean;
}

/** Reads and checks a whole log of format 2 (docs/FORMAT.md, 'Reading a log'). Applies nothing. */
export class LogScan {
  readonly #core: Core;
  readonly #geometry: Geometry;
  readonly #capacity: number | undefined;
  #handle: number;
  #fed = HEADER_BYTES;

  /** @param options.capacity bytes of the file; {@link finish} then checks that all of them were fed */
  constructor(core: Core, geometry: Geometry, options: { epoch: number; capacity?: number }) {
    this.#core = core;
    this.#geometry = geometry;
    this.#capacity = options.capacity;
    this.#handle = core.exports.scanOpen(geometry.size, options.epoch % 2 ** 32);
  }

  /**
   * Reads the next sectors. The first sector is at offset 512 of the file.
   *
   * @throws {@link CodError} COD_CORRUPT for records that no writer makes
   * @throws {RangeError} if the length is not a multiple of the sector size
   */
  feed(sectors: Uint8Array): void {
    if (sectors.length % SECTOR_BYTES !== 0)
      throw new RangeError(`${sectors.length} bytes are not whole sectors of ${SECTOR_BYTES} bytes`);
    try {
      this.#core.feed(sectors, (pointer, length) => {
        const kind = this.#core.exports.scanFeed(this.#open(), pointer, length);
        if (kind !== 0) throw this.#problem(kind, pointer);
        this.#fed += length;
      });
    } catch (error) {
      this.dispose();
      throw error;
    }
  }

  /**
   * Ends the scan and returns its result.
   *
   * @throws {@link CodError} COD_CORRUPT if the file is not as long as `capacity`
   */
  finish(): LogScanResult {
    const handle = this.#open();
    const field = (name: keyof typeof SCAN): number => this.#core.u32(handle + SCAN[name]);
    const frames = field('frames');
    const found: LogScanResult = {
      frames,
      records: field('records'),
      endOffset: this.#core.u64(handle + SCAN.endOffset),
      tornBytes: field('torn'),
      isDamaged: field('firmBehind') > frames,
      barrierThrough: field('barrierThrough'),
      hasBarrier: field('barriers') !== 0,
      continued: field('continued') !== 0,
      basedAnywhere: field('basedAnywhere') !== 0,
    };
    this.dispose();
    if (this.#capacity !== undefined && this.#fed !== this.#capacity) {
      throw new CodError('COD_CORRUPT', `log has ${this.#fed} bytes, but its header says ${this.#capacity}`, {
        details: { length: this.#fed, expected: this.#capacity },
      });
    }
    return found;
  }

  /** Returns the memory to the core. {@link finish} does so too. */
  dispose(): void {
    if (this.#handle !== 0 && !this.#core.failure) this.#core.exports.scanClose(this.#handle);
    this.#handle = 0;
  }

  #problem(kind: number, pointer: number): CodError {
    return problemOf(this.#core, { kind, pointer, offset: this.#fed }, { geometry: this.#geometry });
  }

  #open(): number {
    if (this.#handle === 0) throw new Error('the scan is finished');
    return this.#handle;
  }
}

/** The result of {@link Replay.endFormat1} for one log. */
export interface Format1Log {
  readonly records: number;
  /** Bytes of a torn record at the end of the file. */
  readonly tornBytes: number;
  /** Whether a record of type 0 ended the log before its end. */
  readonly endedByZero: boolean;
}

/**
 * Turns logs into synced blocks and the dirty parts of all other blocks, or into the blocks that users changed. Feed
 * any number of logs in any order, then call {@link emitSlices}.
 */
export class Replay {
  readonly #core: Core;
  readonly #geometry: Geometry;
  #handle: number;
  /** Bytes of the present log that are replayed, and bytes of an incomplete record, which are kept at `#carryAt`. */
  #fed = 0;
  #carried = 0;
  readonly #carryAt: number;

  /** @param what `held`: what the target holds; `changed`: each block that users may have changed */
  constructor(core: Core, geometry: Geometry, what: 'held' | 'changed' = 'held') {
    this.#core = core;
    this.#geometry = geometry;
    this.#carryAt = core.exports.alloc(CARRY_BYTES);
    this.#handle = core.exports.replayOpen(
      geometry.size,
      Math.log2(geometry.blockSize),
      what === 'held' ? HELD : CHANGED,
    );
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
        const used = this.#takeFormat1(this.#carryAt, this.#carried + added);
        if (used < this.#carried) {
          this.#carried += added;
          return;
        }
        skip = used - this.#carried;
        this.#carried = 0;
      }
      const used = skip + this.#takeFormat1(pointer + skip, length - skip);
      this.#carried = length - used;
      if (this.#carried > 0)
        this.#core.view(this.#carryAt, this.#carried).set(this.#core.view(pointer + used, this.#carried));
    });
  }

  /** Replays whole records, and returns the number of their bytes. Returns `length` after the end of the log. */
  #takeFormat1(pointer: number, length: number): number {
    if (this.hasEnded) return length;
    const used = this.#core.exports.replayFormat1(this.#open(), pointer, length);
    if (used < 0) {
      const piece = { kind: -used, pointer, offset: this.#fed + FORMAT1_HEADER_BYTES };
      throw problemOf(this.#core, piece, { geometry: this.#geometry });
    }
    this.#fed += used;
    return this.hasEnded ? length : used;
  }

  /** Whether a record of type 0 has ended the present log: the rest need not be fed. */
  get hasEnded(): boolean {
    return this.#core.u32(this.#open() + REPLAY.ended) !== 0;
  }

  /** Ends a log of format 1. The next piece begins another log. */
  endFormat1(): Format1Log {
    const handle = this.#open();
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

  /**
   * Replays frames in sectors of a log of format 2 that {@link LogScan} has checked.
   *
   * @param sectors whole sectors, from the start of a sector on
   * @param through only frames below this sequence count
   * @throws {@link CodError} COD_CORRUPT if the sectors are not the scanned ones; COD_NO_MEMORY if the core cannot grow
   */
  format2(sectors: Uint8Array, through: number): void {
    if (sectors.length % SECTOR_BYTES !== 0)
      throw new RangeError(`${sectors.length} bytes are not whole sectors of ${SECTOR_BYTES} bytes`);
    this.#core.feed(sectors, (pointer, bytes) => {
      const kind = this.#core.exports.replayFormat2(this.#open(), pointer, bytes, through);
      if (kind === 0) return;
      throw problemOf(this.#core, { kind, pointer, offset: 0 }, { geometry: this.#geometry });
    });
  }

  /** Empties the replay. */
  clear(): void {
    this.#core.exports.replayClear(this.#open());
  }

  /**
   * Moves the surviving parts to `dirty`, in steps after which the event loop may turn. The caller then drops the parts
   * of synced blocks.
   *
   * @throws {@link CodError} COD_CORRUPT if a block has too many parts
   */
  *finishing(dirty: DirtyMap): Generator<void, void, undefined> {
    for (;;) {
      const kind = this.#core.exports.replayFinish(this.#open(), dirty.handle);
      if (kind === 0) return;
      if (kind !== MORE) {
        throw new CodError('COD_CORRUPT', `a block has more than ${MAX_BLOCK_PARTS} dirty parts`, {
          details: { blocks: dirty.blockCount },
        });
      }
      yield;
    }
  }

  /**
   * After {@link finishing}: yields each slice with blocks: its index and its bitmap in portable Roaring format,
   * a view that is valid until the next slice.
   */
  *emitSlices(): Generator<[slice: number, portableBytes: Uint8Array], void, undefined> {
    const { exports } = this.#core;
    for (let slice = 0; slice < sliceCount(this.#geometry); slice++) {
      const length = exports.replayEmit(this.#open(), slice) >>> 0;
      if (length > 0) yield [slice, this.#core.view(exports.output(), length)];
    }
  }

  /** Returns the memory to the core. */
  dispose(): void {
    if (this.#handle !== 0 && !this.#core.failure) {
      this.#core.exports.free(this.#carryAt, CARRY_BYTES);
      this.#core.exports.replayClose(this.#handle);
    }
    this.#handle = 0;
  }

  #open(): number {
    if (this.#handle === 0) throw new Error('the replay is disposed');
    return this.#handle;
  }
}
