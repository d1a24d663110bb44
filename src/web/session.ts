/** An open disk: its device, the reads of the page, and the speed of the copy. */

import { CodError, type CodErrorCode, isCodError, openDevice } from '../browser.ts';
import { type Image, idOf, isWithoutSource, keepRecord, nameOf, placeOf, recordOf, storedSource } from './copies.ts';
import type { DiskStatus, PageDisk } from './page-disk.ts';
import type { Bytes } from './volumes/bytes.ts';

/** One read of the page. */
export interface ReadSample {
  readonly atMs: number;
  readonly tookMs: number;
  readonly bytes: number;
}

/** The speed of the copy at one moment. */
export interface RateSample {
  readonly atMs: number;
  readonly bytesPerSecond: number;
}

/** The copy fails again and again, and continues by itself when the cause is gone. */
export interface Trouble {
  readonly error: CodError;
  /** When the copy tries again, on the clock of `performance.now()`. */
  readonly againAtMs: number;
}

const TICK_MS = 250;
const KEPT_MS = 60_000;
/** A source that fails so often and then works is not worth a message. */
const QUIET_ATTEMPTS = 2;
const SMOOTHED_TICKS = 5;
/** Rate of a resting background copy, in bytes per second; demand reads are not limited. */
const RESTING_RATE = 1;

export class Session implements Bytes {
  readonly id: string;
  readonly name: string;
  readonly image: Image;
  readonly device: PageDisk;
  /** False if the disk is in memory only: nothing of it stays in this browser. */
  readonly isKept: boolean;
  /** Byte ranges [start, end) of the reads in flight. */
  readonly reading: Set<{ readonly start: number; readonly end: number }> = new Set();
  readonly reads: ReadSample[] = [];
  readonly rates: RateSample[] = [];
  /** Whether the disk was new when it was opened: nothing of it was here, so nothing was written. */
  readonly #isNew: boolean;
  /** True while a PC runs from the disk. Nothing else may write to the PC's file systems then. */
  hasPc = false;
  /**
   * Called when the copy stops: the source has changed, or the storage has failed. While the background copy is paused,
   * only reads find out that the source has changed.
   */
  onStopped: ((error: unknown) => void) | undefined;
  /** Called when the copy fails again and again, and without a trouble when it continues. */
  onTrouble: ((trouble: Trouble | undefined) => void) | undefined;
  #rate: number | undefined;
  #resting: boolean;
  /**
   * Bytes fetched from the source at the last ticks. The speed is a mean over them, because the device reports its
   * status at intervals of its own.
   */
  #ticks: { atMs: number; sourceBytes: number }[];
  #kept = 0;
  readonly #timer: ReturnType<typeof setInterval>;
  readonly #listeners = new Set<() => void>();

  private constructor(
    image: Image,
    id: string,
    device: PageDisk,
    options: { rate?: number | undefined; isKept: boolean; isNew: boolean },
  ) {
    const { rate, isKept, isNew } = options;
    this.#isNew = isNew;
    this.image = image;
    this.id = id;
    this.isKept = isKept;
    this.name = nameOf(image);
    this.device = device;
    this.#resting = rate === 0;
    this.#rate = rate === 0 ? undefined : rate;
    this.#ticks = [{ atMs: performance.now(), sourceBytes: device.status().sourceBytes }];
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
    this.#keep();
    void this.#follow();
  }

  /**
   * Begins or resumes the copy of an image, or opens a kept copy for what is here. `rate` limits a new copy, in bytes
   * per second.
   * @throws {@link CodError} as {@link openDevice}.
   */
  static async open(image: Image, options: { rate?: number; signal?: AbortSignal } = {}): Promise<Session> {
    const { signal } = options;
    const id = await idOf(image);
    const record = recordOf(id);
    const chosen = record === undefined ? options.rate : record.rate;
    const rate = chosen === 0 ? RESTING_RATE : chosen;
    const device = await openDevice({
      source: isWithoutSource(image) ? undefined : image,
      ...placeOf(id),
      target: placeOf(id).target,
      hydrate: rate === undefined ? {} : { rateBytesPerSecond: rate },
      ...(signal === undefined ? {} : { signal }),
    });
    const { syncedBlocks, dirtyBlocks, blockSize, sourceBytes } = device.status();
    const isNew = record === undefined && dirtyBlocks === 0 && syncedBlocks * blockSize <= sourceBytes;
    return new Session(image, id, device, { rate: chosen, isKept: true, isNew });
  }

  /**
   * Opens an image to look into it. Nothing of it stays in this browser: bytes and writes are in memory.
   * @throws {@link CodError} as `httpSource` and `imageSource`.
   */
  static async look(image: string | File): Promise<Session> {
    const [id, { openMemoryDisk }] = await Promise.all([idOf(image), import('./memory-disk.ts')]);
    return new Session(image, id, await openMemoryDisk(image), { isKept: false, isNew: true });
  }

  /** Whether the disk is as its source has it: nothing was ever written to it. False if that is not known. */
  async isUntouched(): Promise<boolean> {
    return this.#isNew && (await this.device.refreshStatus()).writes.count === 0;
  }

  /** Whether the copy was opened for what is here: nothing more is fetched. */
  get isWithoutSource(): boolean {
    return isWithoutSource(this.image);
  }

  get size(): number {
    return this.device.size;
  }

  get status(): DiskStatus {
    return this.device.status();
  }

  get syncedBytes(): number {
    const { syncedBlocks, blockSize } = this.status;
    return Math.min(this.size, syncedBlocks * blockSize);
  }

  get isComplete(): boolean {
    const { syncedBlocks, totalBlocks } = this.status;
    return syncedBlocks === totalBlocks;
  }

  /** Calls `listener` four times a second. */
  onTick(listener: () => void): void {
    this.#listeners.add(listener);
  }

  /** Reads from the device, which fetches the missing blocks. */
  async read(offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    const range = { start: offset, end: offset + length };
    const begun = performance.now();
    this.reading.add(range);
    try {
      await this.device.read(bytes, offset, signal === undefined ? {} : { signal });
      const atMs = performance.now();
      this.reads.push({ atMs, tookMs: atMs - begun, bytes: length });
      return bytes;
    } catch (error) {
      if (isCodError(error, 'COD_SOURCE_CHANGED')) this.onStopped?.(error);
      throw error;
    } finally {
      this.reading.delete(range);
    }
  }

  get resting(): boolean {
    return this.#resting;
  }

  rest(resting: boolean): void {
    this.#resting = resting;
    this.#applyRate();
  }

  /** Limit of the background copy in bytes per second. `undefined`: no limit. */
  get rate(): number | undefined {
    return this.#rate;
  }

  setRate(bytesPerSecond: number | undefined): void {
    this.#rate = bytesPerSecond;
    this.#applyRate();
  }

  /** The current speed of the copy. */
  get bytesPerSecond(): number {
    return this.rates.at(-1)?.bytesPerSecond ?? 0;
  }

  /** Closes the device and keeps the copy. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    this.#listeners.clear();
    this.#keep();
    await this.device.close();
  }

  #applyRate(): void {
    this.device.setRate(this.#resting ? RESTING_RATE : this.#rate);
    this.#keep();
  }

  #tick(): void {
    const atMs = performance.now();
    const { sourceBytes } = this.status;
    // A new owner counts from 0.
    if (sourceBytes < this.#ticks.at(-1)!.sourceBytes) this.#ticks = [];
    this.#ticks.push({ atMs, sourceBytes });
    this.#ticks.splice(0, this.#ticks.length - SMOOTHED_TICKS);
    const first = this.#ticks[0]!;
    const elapsed = Math.max(0.05, (atMs - first.atMs) / 1000);
    this.rates.push({ atMs, bytesPerSecond: (sourceBytes - first.sourceBytes) / elapsed });
    for (const samples of [this.rates, this.reads]) {
      const old = samples.findIndex((sample) => sample.atMs > atMs - KEPT_MS);
      samples.splice(0, old < 0 ? samples.length : old);
    }
    if (this.#kept !== this.syncedBytes) this.#keep();
    for (const listener of this.#listeners) listener();
  }

  async #follow(): Promise<void> {
    for await (const event of this.device.events()) {
      if (event.type === 'recovered') this.onTrouble?.(undefined);
      if (event.type === 'error' && event.code === 'COD_POISONED')
        this.onStopped?.(new CodError(event.code, event.message));
      if (event.type !== 'retry' && event.type !== 'source-changed') continue;
      const error = new CodError(event.code as CodErrorCode, event.message);
      if (isCodError(error, 'COD_SOURCE_CHANGED') || isCodError(error, 'COD_SIZE_MISMATCH')) this.onStopped?.(error);
      else if (event.type === 'retry' && (event.attempt > QUIET_ATTEMPTS || isCodError(error, 'COD_NO_SPACE')))
        this.onTrouble?.({ error, againAtMs: performance.now() + event.delayMs });
    }
  }

  #keep(): void {
    this.#kept = this.syncedBytes;
    if (!this.isKept) return;
    const { id, name, image, size } = this;
    const rate = this.#resting ? 0 : this.#rate;
    keepRecord({ id, name, ...storedSource(image), size, openedMs: Date.now(), syncedBytes: this.#kept, rate });
  }
}
