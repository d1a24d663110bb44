/**
 * Reading logs of both formats. {@link LogScan} checks a log of format 2 and says how far it counts; {@link Replay} turns
 * logs into synced blocks and dirty parts. Both take a file in pieces, and nothing crosses to JavaScript per record.
 */

import { CodError } from '../errors.ts';
import type { Core } from '../wasm/core.ts';
import { REPLAY, SCAN } from '../wasm/generated/interface.ts';
import type { BlockMap } from './block-map.ts';
import type { DirtyMap } from './dirty-map.ts';
import type { Geometry } from './geometry.ts';
import { FORMAT1_HEADER_BYTES, FORMAT1_WRITTEN_BYTES, HEADER_BYTES, SECTOR_BYTES, SHARD_BLOCKS } from './layout.ts';
import { problemOf } from './log-problems.ts';

/** Room for the beginning of the longest record, and for as much of the next piece. */
const CARRY_BYTES = 2 * FORMAT1_WRITTEN_BYTES;

/** What {@link LogScan} found. Offsets are those in the file. */
export interface LogScanResult {
  /** Frames that count, which is also the sequence after them. */
  readonly frames: number;
  /** `WRITTEN` records in them. */
  readonly records: number;
  /** Behind the last frame that counts. */
  readonly endOffset: number;
  /** Bytes of a frame's beginning, cut short, where the next one was expected; else 0. */
  readonly tornBytes: number;
  /** A later frame is there, so frames from sequence `frames` on are missing. */
  readonly missing: boolean;
  /** A later frame says that the first missing one was durable. */
  readonly missingIsFirm: boolean;
  /** The highest `BARRIER` that counts, 0 if there is none. */
  readonly barrierThrough: number;
  /** Behind the last frame below `barrierThrough`: where applying stops when only barriers count. */
  readonly barrierEndOffset: number;
  /** Whether `CONTINUED` is among the records that count. */
  readonly continued: boolean;
  /** Whether `BASED` is among the records that count. */
  readonly based: boolean;
  /** Whether `BASED` is there at all, be it behind missing frames. */
  readonly basedAnywhere: boolean;
}

/** Reads a log of format 2 and checks all of it (docs/FORMAT.md, 'Reading a log'). Applies nothing. */
export class LogScan {
  readonly #core: Core;
  readonly #capacity: number | undefined;
  #handle: number;
  #fed = HEADER_BYTES;

  /** @param options.capacity bytes of the file, if {@link finish} shall check that all of it was fed */
  constructor(core: Core, geometry: Geometry, options: { epoch: number; capacity?: number }) {
    this.#core = core;
    this.#capacity = options.capacity;
    this.#handle = core.exports.scanOpen(geometry.size, options.epoch % 2 ** 32);
  }

  /**
   * Takes in the next sectors, from offset 512 of the file on.
   *
   * @throws {@link CodError} COD_CORRUPT for anything that no crash leaves behind
   * @throws {RangeError} if it is no whole number of sectors
   */
  feed(sectors: Uint8Array): void {
    if (sectors.length % SECTOR_BYTES !== 0)
      throw new RangeError(`${sectors.length} bytes are no whole number of sectors`);
    try {
      this.#core.feed(sectors, (pointer, length) => {
        const kind = this.#core.exports.scanFeed(this.#open(), pointer, length);
        if (kind !== 0) throw problemOf(this.#core, { kind, pointer, offset: this.#fed });
        this.#fed += length;
      });
    } catch (error) {
      this.dispose();
      throw error;
    }
  }

  /**
   * What was found; ends the scan. Whether missing frames are damage depends on the boot, and is the caller's to say.
   *
   * @throws {@link CodError} COD_CORRUPT if the file is not as long as `capacity`
   */
  finish(): LogScanResult {
    const handle = this.#open();
    const field = (name: keyof typeof SCAN): number => this.#core.u32(handle + SCAN[name]);
    const frames = field('frames');
    const barrierThrough = field('barrierThrough');
    const found: LogScanResult = {
      frames,
      records: field('records'),
      endOffset: this.#core.u64(handle + SCAN.endOffset),
      tornBytes: field('torn'),
      missing: field('missing') !== 0,
      missingIsFirm: field('firmBehind') > frames,
      barrierThrough,
      barrierEndOffset:
        barrierThrough === 0 ? HEADER_BYTES : this.#core.u32(field('ends') + (barrierThrough - 1) * 4) * 8,
      continued: field('continued') !== 0,
      based: field('based') !== 0,
      basedAnywhere: field('basedAnywhere') !== 0,
    };
    this.dispose();
    if (this.#capacity !== undefined && this.#fed !== this.#capacity) {
      throw new CodError('COD_CORRUPT', `log has ${this.#fed} bytes, and its header says ${this.#capacity}`, {
        details: { length: this.#fed, expected: this.#capacity },
      });
    }
    return found;
  }

  /** Gives the memory back, if {@link finish} was not reached. */
  dispose(): void {
    if (this.#handle !== 0 && !this.#core.failure) this.#core.exports.scanClose(this.#handle);
    this.#handle = 0;
  }

  #open(): number {
    if (this.#handle === 0) throw new Error('the scan is over');
    return this.#handle;
  }
}

/** What {@link Replay.endFormat1} says of one log. */
export interface Format1Log {
  readonly records: number;
  /** Bytes of a record that the end of the file cut short. */
  readonly tornBytes: number;
  /** Whether a record of type 0 ended the log before its end. */
  readonly endedByZero: boolean;
}

/**
 * Turns logs into the blocks that they say are synced and the dirty parts of all others. Feed any number of logs, in any
 * order; then {@link emit}.
 */
export class Replay {
  readonly #core: Core;
  readonly #geometry: Geometry;
  #handle: number;
  /** Of the present log: bytes fed, less those of a record that is not all here yet, which are kept in the core's memory. */
  #fed = 0;
  #carried = 0;
  readonly #carryAt: number;

  constructor(core: Core, geometry: Geometry) {
    this.#core = core;
    this.#geometry = geometry;
    this.#carryAt = core.exports.alloc(CARRY_BYTES);
    this.#handle = core.exports.replayOpen(geometry.size, Math.log2(geometry.blockSize));
  }

  /**
   * Takes in the next piece, of any length, of a log of format 1, from behind its header on.
   *
   * @throws {@link CodError} COD_CORRUPT for an unknown record, or one of a block or part that does not exist; COD_NO_SPACE
   */
  format1(piece: Uint8Array): void {
    this.#core.feed(piece, (pointer, length) => {
      let skip = 0;
      if (this.#carried > 0) {
        // So much of the piece is put behind the beginning of the record that it is whole with any luck, and then goes on in the piece.
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

  /** Takes in the whole records from `pointer` on, and returns their bytes; all of them once the log has ended. */
  #takeFormat1(pointer: number, length: number): number {
    if (this.hasEnded) return length;
    const used = this.#core.exports.replayFormat1(this.#open(), pointer, length);
    if (used < 0) throw problemOf(this.#core, { kind: -used, pointer, offset: this.#fed + FORMAT1_HEADER_BYTES });
    this.#fed += used;
    return this.hasEnded ? length : used;
  }

  /** Whether a record of type 0 has ended the present log: what follows need not be fed. */
  get hasEnded(): boolean {
    return this.#core.u32(this.#open() + REPLAY.ended) !== 0;
  }

  /** Ends a log of format 1; what is fed next begins another. */
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
   * Takes in sectors of a log of format 2 that {@link LogScan} has passed. A piece starts at a sector, and only what lies
   * before `length`, from its start, counts.
   *
   * @throws {@link CodError} COD_CORRUPT if they are not what was scanned; COD_NO_SPACE
   */
  format2(sectors: Uint8Array, length: number = sectors.length): void {
    if (sectors.length % SECTOR_BYTES !== 0)
      throw new RangeError(`${sectors.length} bytes are no whole number of sectors`);
    // Taken now: the memory may grow on the way, and then a view over it has no length any more.
    const counted = Math.max(0, Math.min(length, sectors.length));
    let left = counted;
    this.#core.feed(sectors, (pointer, bytes) => {
      const kind = this.#core.exports.replayFormat2(this.#open(), pointer, Math.min(bytes, left));
      if (kind !== 0) throw problemOf(this.#core, { kind, pointer, offset: counted - left });
      left -= Math.min(bytes, left);
    });
  }

  /**
   * Merges what was found into the maps of the checkpoint that the logs stand on. Dirty parts of blocks that are synced then
   * are dropped from `dirty`, and blocks that parts cover wholly are synced. The replay is empty afterwards.
   */
  emit(map: BlockMap, dirty: DirtyMap): void {
    const wasEmpty = map.count === 0;
    for (const [shard, bytes] of this.emitShards(dirty)) map.unionTrusted(shard, bytes);
    if (!wasEmpty && dirty.blockCount > 0) {
      for (const block of map.filter(dirty.blocks())) dirty.remove(block, block + 1);
    }
    this.#core.exports.replayClear(this.#open());
  }

  /**
   * Moves the surviving parts to `dirty`, and then gives for each shard with synced blocks its index and its bitmap in portable
   * Roaring format: a view valid until the next one is asked for.
   */
  *emitShards(dirty: DirtyMap): Generator<[shard: number, portableBytes: Uint8Array], void, undefined> {
    const { exports } = this.#core;
    const kind = exports.replayFinish(this.#open(), dirty.handle);
    if (kind !== 0)
      throw new CodError('COD_CORRUPT', 'a block has more dirty parts than any device makes', {
        details: { blocks: dirty.blockCount },
      });
    for (let shard = 0; shard * SHARD_BLOCKS < this.#geometry.blockCount; shard++) {
      const length = exports.replayEmit(this.#open(), shard) >>> 0;
      if (length > 0) yield [shard, this.#core.view(exports.output(), length)];
    }
  }

  /** Gives the memory back to the core. */
  dispose(): void {
    if (this.#handle !== 0 && !this.#core.failure) {
      this.#core.exports.free(this.#carryAt, CARRY_BYTES);
      this.#core.exports.replayClose(this.#handle);
    }
    this.#handle = 0;
  }

  #open(): number {
    if (this.#handle === 0) throw new Error('the replay was disposed of');
    return this.#handle;
  }
}
