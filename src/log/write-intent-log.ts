/**
 * One write-intent log: the file of one epoch (docs/FORMAT.md).
 *
 * Invariants: the file has its full size from the start and is zeros behind the last frame; frames are appended one call at a time; a place
 * whose write failed is made zeros again before anything else is written there, in steps each of which reads as a frame cut short.
 * An append resolves when its frames are in the file, not when they are durable: that is `sync`.
 */

import type { Done } from '../async/done.ts';
import { FrameEncoder } from '../core/frames.ts';
import type { Geometry } from '../core/geometry.ts';
import { encodeLogHeader } from '../core/headers.ts';
import { HEADER_BYTES, SECTOR_BYTES } from '../core/layout.ts';
import type { File } from '../fs/file-system.ts';
import { writeFile } from '../fs/inline-file.ts';
import type { Core } from '../wasm/core.ts';
import { bootNameBytes } from './boot.ts';

/** Kept free in each log for the frames that steer it: a barrier, `CONTINUED`, `BASED`. */
const RESERVED_BYTES = 2048;

/** A frame's length, and the same inverted. */
const LENGTH_BYTES = 4;

/** Where in the file the frames are that `bytes` hold, which stand at `position`; between them, zeros lead to the next sector. */
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

/** Runs a sync and sees to it that a failed one is not tried again. */
type GuardSync = (sync: () => Promise<void>) => Promise<void>;

export class WriteIntentLog {
  readonly epoch: number;
  /** Bytes of the file. */
  readonly capacity: number;
  readonly #file: File;
  readonly #encoder: FrameEncoder;
  readonly #guardSync: GuardSync;
  #position = HEADER_BYTES;
  #sequence = 0;
  #firm = 0;
  /** What the last append wrote at {@link #position}, if it failed: any beginning of it may be there. */
  #failed: Uint8Array | undefined;

  private constructor(core: Core, file: File, names: { epoch: number; capacity: number; guardSync?: GuardSync }) {
    this.#file = file;
    this.#guardSync = names.guardSync ?? ((sync) => sync());
    this.epoch = names.epoch;
    this.capacity = names.capacity;
    this.#encoder = new FrameEncoder(core, { epoch: names.epoch });
  }

  /**
   * Makes `file` an empty log, in place of whatever it was; it must be void. Nothing is durable yet. `guardSync` runs the syncs that an append needs by itself.
   */
  static async create(
    core: Core,
    file: File,
    geometry: Geometry,
    names: { session: Uint8Array; epoch: number; capacity: number; bootId: string | undefined; guardSync?: GuardSync },
  ): Promise<WriteIntentLog> {
    await file.truncate(0);
    await file.truncate(names.capacity);
    const header = encodeLogHeader(core, {
      session: names.session,
      epoch: names.epoch,
      size: geometry.size,
      blockSize: geometry.blockSize,
      capacity: names.capacity,
      bootName: bootNameBytes(names.bootId),
    });
    await file.write(header, 0);
    return new WriteIntentLog(core, file, names);
  }

  /** Number of frames so far, which is the sequence of the next. */
  get sequence(): number {
    return this.#sequence;
  }

  /** Bytes of the file that are used. */
  get usedBytes(): number {
    return this.#position;
  }

  /** Adds a record to the next append: these bytes of the target hold the truth. */
  addWritten(offset: number, length: number): void {
    this.#encoder.written(offset, length);
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

  /** Forgets what was added since the last append. */
  discardPending(): void {
    this.#encoder.clear();
  }

  /** Whether what was added would leave no room for the frames that steer the log. */
  get isFull(): boolean {
    return this.#position + this.#encoder.sealedLength(this.#position) > this.capacity - RESERVED_BYTES;
  }

  /**
   * Appends what was added, with one write: synchronously if the file can. If it fails, nothing of it counts and it is
   * forgotten.
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
    const sealed = this.#encoder.seal({ position: this.#position, sequence: this.#sequence, firm: this.#firm });
    const written = (): void => {
      this.#failed = undefined;
      this.#position = sealed.end;
      this.#sequence += sealed.frames;
    };
    // A copy: the encoder's memory may move while an asynchronous write is in flight.
    const bytes = sealed.bytes.slice();
    // Until the write has returned, any beginning of it may be in the file.
    this.#failed = bytes;
    const writing = writeFile(this.#file, bytes, this.#position);
    if (writing !== undefined) return writing.then(written);
    written();
    return undefined;
  }

  /**
   * Makes the place of a failed append zeros again, frame by frame from the last one on. First goes a frame's last byte, so that it is one cut short; then
   * all but its length; then that. A new frame over the rest of an old one, or zeros and then such a rest, would be damage to a reader. Zeros in other sectors than
   * the next frame's are made durable: after a power cut an old frame there would have the sequence of a new one.
   */
  async scrub(): Promise<void> {
    if (this.#failed === undefined) return;
    const inOneSector = (this.#position % SECTOR_BYTES) + this.#failed.length <= SECTOR_BYTES;
    for (const { start, end } of framesIn(this.#failed, this.#position).reverse()) {
      await this.#file.write(new Uint8Array(1), end - 1);
      await this.#file.write(new Uint8Array(end - start - LENGTH_BYTES), start + LENGTH_BYTES);
      await this.#file.write(new Uint8Array(LENGTH_BYTES), start);
    }
    if (!inOneSector) await this.#guardSync(() => this.sync());
    this.#failed = undefined;
  }

  /** Gives the core's memory back; nothing can be added from then on. */
  dispose(): void {
    this.#encoder.dispose();
  }

  /** All frames of before the call are durable when it resolves. */
  async sync(): Promise<void> {
    const sequence = this.#sequence;
    await this.#file.sync();
    this.#firm = Math.max(this.#firm, sequence);
  }
}
