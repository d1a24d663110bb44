/**
 * Reading logs. {@link LogScan} checks a log and finds the part that counts. {@link Replay} turns logs into synced
 * blocks and dirty parts. Both read a file in pieces, and make no call for each record.
 */

import { CodError } from '../errors.ts';
import { MORE } from '../wasm/codes.ts';
import type { Core } from '../wasm/core.ts';
import { SCAN } from '../wasm/generated/interface.ts';
import type { DirtyMap } from './dirty-map.ts';
import { type Geometry, sliceCount } from './geometry.ts';
import { FILLED, HEADER_BYTES, MAX_BLOCK_PARTS, MODIFIED, SECTOR_BYTES, WRITTEN, WRITTEN_PAIR } from './layout.ts';
import { problemOf } from './log-problems.ts';

/** The types of records that say what the target holds, and that say what users may have changed: bit n for type n. */
const HELD = (1 << WRITTEN) | (1 << WRITTEN_PAIR) | (1 << FILLED);
const CHANGED = (1 << WRITTEN) | (1 << WRITTEN_PAIR) | (1 << MODIFIED);

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

/**
 * Turns logs into synced blocks and the dirty parts of all other blocks, or into the blocks that users changed. Feed
 * any number of logs in any order, then call {@link emitSlices}.
 */
export class Replay {
  readonly #core: Core;
  readonly #geometry: Geometry;
  #handle: number;

  /** @param what `held`: what the target holds; `changed`: each block that users may have changed */
  constructor(core: Core, geometry: Geometry, what: 'held' | 'changed' = 'held') {
    this.#core = core;
    this.#geometry = geometry;
    this.#handle = core.exports.replayOpen(
      geometry.size,
      Math.log2(geometry.blockSize),
      what === 'held' ? HELD : CHANGED,
    );
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
      const kind = this.#core.exports.replayFormat2(this.handle, pointer, bytes, through);
      if (kind === 0) return;
      throw problemOf(this.#core, { kind, pointer, offset: 0 }, { geometry: this.#geometry });
    });
  }

  /** Empties the replay. */
  clear(): void {
    this.#core.exports.replayClear(this.handle);
  }

  /**
   * Moves the surviving parts to `dirty`, in steps after which the event loop may turn. The caller then drops the parts
   * of synced blocks.
   *
   * @throws {@link CodError} COD_CORRUPT if a block has too many parts
   */
  *finishing(dirty: DirtyMap): Generator<void, void, undefined> {
    for (;;) {
      const kind = this.#core.exports.replayFinish(this.handle, dirty.handle);
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
      const length = exports.replayEmit(this.handle, slice) >>> 0;
      if (length > 0) yield [slice, this.#core.view(exports.output(), length)];
    }
  }

  /** Returns the memory to the core. */
  dispose(): void {
    if (this.#handle !== 0 && !this.#core.failure) this.#core.exports.replayClose(this.#handle);
    this.#handle = 0;
  }

  /** The replay in the core. */
  get handle(): number {
    if (this.#handle === 0) throw new Error('the replay is disposed');
    return this.#handle;
  }
}
