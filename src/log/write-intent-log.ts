/**
 * One write-intent log: the file of one epoch (docs/FORMAT.md).
 *
 * Invariants:
 * - The file has its full size from the start. The sector of the last frame ends with zeros; any later sector may hold
 *   frames of an earlier epoch.
 * - Control frames always have allocated room: frames of data do not enter the last {@link RESERVED_BYTES} of it.
 * - At most one append is in flight.
 * - The place of a failed append is zeroed before anything else is written there. At every step of that a reader sees a
 *   torn frame.
 * - An append resolves when its frames are in the file. They are durable only after `sync`.
 */

import type { Done } from '../async/done.ts';
import { FrameEncoder } from '../core/frames.ts';
import type { Geometry } from '../core/geometry.ts';
import { encodeLogHeader } from '../core/headers.ts';
import { HEADER_BYTES, SECTOR_BYTES } from '../core/layout.ts';
import type { CodError } from '../errors.ts';
import type { Core } from '../wasm/core.ts';
import type { GuardSync, LogFile } from './log-file.ts';

/** Bytes kept free in each log, and in what is allocated of it, for control frames: a barrier, `CONTINUED`, `BASED`. */
const RESERVED_BYTES = 2048;

/** Bytes behind the last frame that are allocated before they are needed, with {@link RESERVED_BYTES}. */
const AHEAD_BYTES = 16_384;

/** Bytes of a buffer for appends, which is used again: a new one for each append would cost more than its write. */
const BUFFER_BYTES = 4096;

/** Bytes of a frame's length and its inverse. */
const LENGTH_BYTES = 4;

/**
 * Returns where in the file the frames of `bytes` are. `bytes` stands at `position`. Zeros between frames lead to the
 * next sector.
 */
function framesIn(bytes: Uint8Array, position: number): { start: number; end: number }[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const frames: { start: number; end: number }[] = [];
  for (let at = 0; at + LENGTH_BYTES <= bytes.length; ) {
    const start = position + at;
    const length = view.getUint16(at, true);
    if (length > 0) frames.push({ start, end: start + length });
    at += length > 0 ? length : SECTOR_BYTES - (start % SECTOR_BYTES);
  }
  return frames;
}

/**
 * Copies frames that stand at `position`, into `room` if they fit, with zeros up to the end of the last sector if they
 * begin it. So whatever an earlier log left there is gone.
 */
function toEndOfNewSector(frames: Uint8Array, position: number, room: Uint8Array): Uint8Array {
  const end = position + frames.length;
  const lastSector = end - (end % SECTOR_BYTES);
  const length = (lastSector < position ? end : Math.ceil(end / SECTOR_BYTES) * SECTOR_BYTES) - position;
  const bytes = length <= room.length ? room.subarray(0, length) : new Uint8Array(length);
  bytes.set(frames);
  bytes.fill(0, frames.length);
  return bytes;
}

interface LogNames {
  readonly epoch: number;
  readonly capacity: number;
  readonly guardSync?: GuardSync;
  readonly poisoning?: () => CodError | undefined;
}

export class WriteIntentLog {
  readonly epoch: number;
  /** Bytes of the file. */
  readonly capacity: number;
  readonly #file: LogFile;
  readonly #encoder: FrameEncoder;
  readonly #guardSync: GuardSync;
  readonly #poisoning: () => CodError | undefined;
  #position = HEADER_BYTES;
  #sequence = 0;
  #firm = 0;
  #firmPosition = HEADER_BYTES;
  /** The bytes of a failed append at `#position`. Any beginning of them may be in the file. */
  #failed: Uint8Array | undefined;
  /** The buffer of the next append. Undefined: a write has kept it. */
  #buffer: Uint8Array | undefined;
  /** Whether data was added since the last append. */
  #hasData = false;
  /** Whether the disk had no room for more: the log ends where its allocated bytes end. */
  #isShort = false;

  private constructor(core: Core, file: LogFile, names: LogNames) {
    this.#file = file;
    this.#guardSync = names.guardSync ?? ((sync) => sync());
    this.#poisoning = names.poisoning ?? (() => undefined);
    this.epoch = names.epoch;
    this.capacity = names.capacity;
    this.#encoder = new FrameEncoder(core, { epoch: names.epoch });
  }

  /**
   * Makes `file` an empty log, in place. What it held before must be void. Nothing is durable yet.
   * @param names.guardSync runs the syncs that an append itself needs
   * @param names.poisoning why nothing may be appended any more
   */
  static async create(
    core: Core,
    file: LogFile,
    geometry: Geometry,
    names: LogNames & { session: Uint8Array },
  ): Promise<WriteIntentLog> {
    const header = encodeLogHeader(core, {
      session: names.session,
      epoch: names.epoch,
      size: geometry.size,
      blockSize: geometry.blockSize,
      capacity: names.capacity,
    });
    const log = new WriteIntentLog(core, file, names);
    try {
      await file.begin(header, names.capacity, log.#guardSync);
      return log;
    } catch (error) {
      log.dispose();
      throw error;
    }
  }

  /** Number of frames so far, which is the sequence number of the next frame. */
  get sequence(): number {
    return this.#sequence;
  }

  /** Bytes of the file that are used. */
  get usedBytes(): number {
    return this.#position;
  }

  /** Bytes of the file that frames may use: fewer than {@link capacity} if the disk is full. */
  get limit(): number {
    return this.#isShort ? this.#file.allocated : this.capacity;
  }

  /** Adds a record about bytes of the target to the next append. */
  addData(type: number, first: number, low: number, high: number): void {
    this.#encoder.data(type, first, low, high);
    this.#hasData = true;
  }

  addBarrier(through: number): void {
    this.#encoder.barrier(through);
  }

  addContinued(): void {
    this.#encoder.continued();
  }

  addBased(): void {
    this.#encoder.based();
  }

  /** Drops what was added since the last append. */
  discardPending(): void {
    this.#encoder.clear();
    this.#hasData = false;
  }

  /** Whether frames in sectors before the next frame's are not known to be durable. */
  get needsSyncBeforeBarrier(): boolean {
    return this.#firmPosition < this.#position - (this.#position % SECTOR_BYTES);
  }

  /** Whether what was added would leave no room for the control frames. */
  get isFull(): boolean {
    return this.#bytesNeeded > this.limit;
  }

  /** Bytes of the file after an append, with those that stay free for control frames. */
  get #bytesNeeded(): number {
    return this.#position + this.#encoder.sealedLength(this.#position) + RESERVED_BYTES;
  }

  /**
   * Appends what was added with one write, synchronously if the file can. If it fails, nothing of it counts, and it is
   * dropped. Control frames never fail for want of room.
   * @throws {@link CodError} COD_NO_SPACE if data needs room that the disk does not have; COD_TARGET_IO.
   */
  append(): Done {
    return this.#failed === undefined ? this.#append() : this.#appendAfterScrub();
  }

  async #appendAfterScrub(): Promise<void> {
    try {
      await this.scrub();
    } catch (error) {
      this.discardPending();
      throw error;
    }
    await this.#append();
  }

  #append(): Done {
    if (!this.#hasData) return this.#write();
    const room = this.#allocate(this.#bytesNeeded, (error) => {
      this.discardPending();
      throw error;
    });
    return room === undefined ? this.#write() : room.then(() => this.#write());
  }

  /** Allocates the bytes below `end`. If the disk has no room, this log ends earlier. */
  #allocate(end: number, failed?: (error: unknown) => void): Done {
    if (end <= this.#file.allocated) return undefined;
    const tooShort = (error: unknown): undefined => {
      this.#isShort = true;
      failed?.(error);
    };
    try {
      return this.#file.allocate(this.#position, end)?.catch(tooShort);
    } catch (error) {
      return tooShort(error);
    }
  }

  #write(): Done {
    const sealed = this.#encoder.seal({ position: this.#position, sequence: this.#sequence, firm: this.#firm });
    this.#hasData = false;
    // A copy: the encoder's memory may move while an asynchronous write is in flight.
    const buffer = this.#buffer ?? new Uint8Array(BUFFER_BYTES);
    this.#buffer = undefined;
    const bytes = toEndOfNewSector(sealed.bytes, this.#position, buffer);
    // Until the write has returned, any beginning of it may be in the file.
    this.#failed = bytes;
    const writing = this.#file.write(bytes, this.#position);
    if (writing === undefined) {
      this.#buffer = buffer;
      return this.#written(sealed);
    }
    return writing.then(() => {
      const poisoning = this.#poisoning();
      return poisoning === undefined ? this.#written(sealed) : this.#retract(poisoning);
    });
  }

  #written({ end, frames }: { readonly end: number; readonly frames: number }): Done {
    this.#failed = undefined;
    this.#position = end;
    this.#sequence += frames;
    // So that later appends find the room taken.
    return this.#isShort ? undefined : this.#allocate(end + AHEAD_BYTES);
  }

  /**
   * Zeroes an append that ended after a sync had failed. The kernel may have dropped the frames before it in its
   * sector, and a frame behind missing ones is damage to a reader.
   */
  async #retract(poisoning: CodError): Promise<never> {
    await this.#zeroFailed().catch(() => undefined);
    throw poisoning;
  }

  /**
   * Zeroes the place of a failed append, from the last frame to the first.
   *
   * Zeroes each frame in three writes: last byte, body, length. After each step a reader sees a torn frame. To a
   * reader, a new frame followed by the rest of an old one is damage, and so are zeros followed by such a rest.
   *
   * Zeros beyond the next frame's sector are made durable. After a power cut, an old frame there would have the
   * sequence number of a new one.
   */
  async scrub(): Promise<void> {
    if (this.#failed === undefined) return;
    const inOneSector = (this.#position % SECTOR_BYTES) + this.#failed.length <= SECTOR_BYTES;
    await this.#zeroFailed();
    if (!inOneSector) await this.#guardSync(() => this.sync());
    this.#failed = undefined;
  }

  async #zeroFailed(): Promise<void> {
    for (const { start, end } of framesIn(this.#failed!, this.#position).reverse()) {
      await this.#file.write(new Uint8Array(1), end - 1);
      await this.#file.write(new Uint8Array(end - start - LENGTH_BYTES), start + LENGTH_BYTES);
      await this.#file.write(new Uint8Array(LENGTH_BYTES), start);
    }
  }

  /** Frees the encoder's memory. Nothing can be added afterwards. */
  dispose(): void {
    this.#encoder.dispose();
  }

  /** Makes every frame that was appended before the call durable. */
  async sync(): Promise<void> {
    const sequence = this.#sequence;
    const position = this.#position;
    await this.#file.sync();
    this.#firm = Math.max(this.#firm, sequence);
    this.#firmPosition = Math.max(this.#firmPosition, position);
  }
}
