/** Encoding of frames of a log of format 2 (docs/FORMAT.md, Log), in wasm. */
import type { Core } from '../wasm/core.ts';
import { ENCODER } from '../wasm/generated/interface.ts';
import {
  BARRIER,
  BASED,
  BATCH_RECORDS,
  CONTINUED,
  FRAME_BYTES,
  RECORD_BYTES,
  SECTOR_BYTES,
  WRITTEN,
} from './layout.ts';

/** Frames ready to be written. */
export interface SealedFrames {
  /** What belongs at the position asked for, padding between frames included: a view valid until the core's next call. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Offset in the file behind the last frame. */
  readonly end: number;
  readonly frames: number;
}

/** Collects records, and encodes them into frames all at once. */
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

  /** Whether no write fits any more before the next seal. */
  get isFull(): boolean {
    return this.#pending >= BATCH_RECORDS;
  }

  /** Adds a write of `length` bytes at `offset`; one that goes on where the batch's last one ends becomes part of it. */
  written(offset: number, length: number): void {
    if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(offset + length) || offset < 0 || length <= 0) {
      throw new RangeError(`a write of ${length} bytes at ${offset} is none`);
    }
    this.#add(WRITTEN, offset, length);
  }

  /** Adds: the target was synced after the data of all frames below `through` was written. */
  barrier(through: number): void {
    this.#add(BARRIER, 0, through);
  }

  /** Adds: the next log goes on from here. */
  continued(): void {
    this.#add(CONTINUED, 0, 0);
  }

  /** Adds: this log's checkpoint is durable. */
  based(): void {
    this.#add(BASED, 0, 0);
  }

  /** How many bytes {@link seal} would give for `position`. */
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
   * Encodes the batch, and begins another.
   *
   * @param place.position offset in the file of the next frame, a multiple of 8
   * @param place.sequence of the next frame
   * @param place.firm frames below it are durable
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

  /** Forgets the batch. */
  clear(): void {
    this.seal({ position: 0, sequence: 0, firm: 0 });
  }

  /** Gives the memory back. */
  dispose(): void {
    if (this.#handle !== 0 && !this.#core.failure) this.#core.exports.encoderClose(this.#handle);
    this.#handle = 0;
  }

  #add(type: number, first: number, second: number): void {
    const count = this.#core.exports.encoderAdd(this.#open(), type, first, second);
    if (count < 0) throw new RangeError(`the batch is full with ${this.#pending} records: seal it first`);
    this.#pending = count;
  }

  #open(): number {
    if (this.#handle === 0) throw new Error('the encoder was disposed of');
    return this.#handle;
  }
}

function checkPosition(position: number): void {
  if (!Number.isSafeInteger(position) || position < 0 || position % 8 !== 0)
    throw new RangeError(`position ${position} is not one of a frame`);
}
