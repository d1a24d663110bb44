/** Encoding of frames of a log of format 2 (docs/FORMAT.md, Log), in wasm. */
import type { Core } from '../wasm/core.ts';
import { ENCODER } from '../wasm/generated/interface.ts';
import { BARRIER, BASED, BATCH_RECORDS, CONTINUED, FRAME_BYTES, RECORD_BYTES, SECTOR_BYTES } from './layout.ts';

/** Frames ready to be written. */
export interface SealedFrames {
  /** The bytes for the requested position, with padding between frames: a view, valid until the core's next call. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** The end of the last frame: an offset in the file. */
  readonly end: number;
  readonly frames: number;
}

/** Collects a batch of records, and encodes it into frames. */
export class FrameEncoder {
  readonly #core: Core;
  #handle: number;
  #pending = 0;

  constructor(core: Core, options: { epoch: number }) {
    this.#core = core;
    this.#handle = core.exports.encoderOpen(options.epoch % 2 ** 32);
  }

  /** Records since the last seal. */
  get pendingRecords(): number {
    return this.#pending;
  }

  /** Whether the batch has room for no further record about bytes of the target. */
  get isFull(): boolean {
    return this.#pending >= BATCH_RECORDS;
  }

  /**
   * Adds a record about bytes of the target.
   *
   * @param type FILLED, WRITTEN, WRITTEN_PAIR or MAY_READ
   * @param first offset on the device in bytes
   * @param low the low, `high` the high half of the second word
   */
  data(type: number, first: number, low: number, high: number): void {
    this.#add(type, first, low, high);
  }

  /** Adds a mark: the target was synced after the data of all frames below `through` was written. */
  barrier(through: number): void {
    this.#add(BARRIER, 0, through, 0);
  }

  /** Adds a mark: the next log continues from here. */
  continued(): void {
    this.#add(CONTINUED, 0, 0, 0);
  }

  /** Adds a mark: the checkpoint of this log is durable. */
  based(): void {
    this.#add(BASED, 0, 0, 0);
  }

  /** The number of bytes that {@link seal} would return for `position`. */
  sealedLength(position: number): number {
    checkPosition(position);
    let at = position;
    let left = this.#pending;
    if (left > 0) {
      const room = SECTOR_BYTES - (at % SECTOR_BYTES);
      const first = Math.min(left, Math.max(0, Math.floor((room - FRAME_BYTES) / RECORD_BYTES)));
      if (first > 0) {
        at += FRAME_BYTES + first * RECORD_BYTES;
        left -= first;
      }
    }
    if (left === 0) return at - position;
    const perSector = Math.floor((SECTOR_BYTES - FRAME_BYTES) / RECORD_BYTES);
    const whole = Math.ceil(left / perSector) - 1;
    return (
      Math.ceil(at / SECTOR_BYTES) * SECTOR_BYTES +
      whole * SECTOR_BYTES +
      FRAME_BYTES +
      (left - whole * perSector) * RECORD_BYTES -
      position
    );
  }

  /**
   * Encodes the batch, and begins a new one.
   *
   * @param place.position offset in the file of the first frame, a multiple of 8
   * @param place.sequence sequence of the first frame
   * @param place.firm frames below this sequence are durable
   */
  seal(place: { position: number; sequence: number; firm: number }): SealedFrames {
    const { position, sequence, firm } = place;
    checkPosition(position);
    const { exports } = this.#core;
    const length = exports.encoderSeal(this.#open(), position, sequence, firm);
    this.#pending = 0;
    return {
      bytes: this.#core.view(exports.output(), length),
      end: position + length,
      frames: this.#core.u32(this.#open() + ENCODER.frames),
    };
  }

  /** Drops the batch. */
  clear(): void {
    this.seal({ position: 0, sequence: 0, firm: 0 });
  }

  /** Returns the memory to the core. */
  dispose(): void {
    if (this.#handle !== 0 && !this.#core.failure) this.#core.exports.encoderClose(this.#handle);
    this.#handle = 0;
  }

  #add(type: number, first: number, low: number, high: number): void {
    const count = this.#core.exports.encoderAdd(this.#open(), type, first, low, high);
    if (count < 0) throw new RangeError(`the batch is full (${this.#pending} records): seal it first`);
    this.#pending = count;
  }

  #open(): number {
    if (this.#handle === 0) throw new Error('the encoder is disposed');
    return this.#handle;
  }
}

function checkPosition(position: number): void {
  if (!Number.isSafeInteger(position) || position < 0 || position % 8 !== 0)
    throw new RangeError(`position ${position} of a frame is not a multiple of 8`);
}
