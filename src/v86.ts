/**
 * A device as the hard disk of a PC that v86 emulates.
 *
 * v86 tells its guests that the disk has no write cache. Therefore guests never flush, and their journals rely on every
 * completed write. So by default this disk completes a write only when it is durable.
 *
 * @packageDocumentation
 */

import { ReadAhead } from './device/read-ahead.ts';
import { isCodError } from './errors.ts';

/**
 * The part of a device that {@link v86Disk} uses. The devices of `copyondemand` and `copyondemand/browser` have it, and
 * document it.
 */
export interface V86Device {
  /** Bytes of the device. */
  readonly size: number;
  /** Fills `into` with the bytes from `offset` on. Rejects with the signal's reason when the signal is aborted. */
  read(into: Uint8Array, offset: number, options?: { signal?: AbortSignal }): Promise<void>;
  /** Writes all of `from`. With `fua` the write is durable when the promise resolves. */
  write(from: Uint8Array, offset: number, options?: { fua?: boolean }): Promise<void>;
  /** Makes every write that resolved before the call durable. */
  flush(): Promise<void>;
  /** Bytes of a block. The disk reads ahead of a guest on devices that have this and `hydrateRange`. */
  readonly blockSize?: number;
  /** Fetches the missing blocks of a range. */
  hydrateRange?(offset: number, length: number): Promise<void>;
}

/** Options of {@link v86Disk}. */
export interface V86DiskOptions {
  /**
   * Called with the error when a read, a write or a flush fails. v86 has no disk errors: the guest never gets an
   * answer to a failed read or write.
   */
  readonly onError: (error: unknown) => void;
  /**
   * When a write completes. Default: true.
   *
   * - True: when it is durable.
   * - False: when it is acknowledged, which is several times as fast. The disk flushes 1 s after the first unflushed
   *   write. A power cut within that second may lose any writes that the guest believes durable, earlier ones or later
   *   ones. After a power cut, check the guest's file system. A killed browser loses none of them.
   */
  readonly durable?: boolean;
}

/**
 * The interface that v86 expects of a disk passed as `hda` (v86 0.5.462). The declarations of v86 omit it. v86 calls
 * the members; a page only passes the disk on. Offsets and lengths are in bytes.
 */
export interface V86Disk {
  /** Bytes of the disk: the whole 512-byte sectors of the device. */
  readonly byteLength: number;
  /** Called once after {@link load}. v86 sets it. */
  onload: ((event: object) => void) | undefined;
  /** Never called: there is nothing to load. */
  onprogress: ((event: object) => void) | undefined;
  /** Calls {@link onload} in a microtask. */
  load(): void;
  /** Reads, after earlier writes of the same bytes, and calls `done`. An aborted read ends without a call. */
  get(start: number, length: number, done: (bytes: Uint8Array) => void, options?: { signal?: AbortSignal }): void;
  /** As {@link get}, and keeps a copy of the bytes for {@link get_from_cache}. */
  get_and_cache(start: number, length: number, done: (bytes: Uint8Array) => void): void;
  /** Returns the bytes of the last {@link get_and_cache} if it read this range and nothing wrote to it since. */
  get_from_cache(start: number, length: number): Uint8Array | undefined;
  /** Writes, after earlier writes of the same bytes, and calls `done`. `bytes` may change once the call returns. */
  set(start: number, bytes: Uint8Array, done: () => void): void;
  /** Calls `done` without a buffer: the content is not in memory. */
  get_buffer(done: (buffer?: ArrayBuffer) => void): void;
  /** Returns an empty state: a saved state of the emulator does not include the disk. */
  get_state(): unknown[];
  /** Does nothing: the content is on the device. */
  set_state(state: unknown): void;
}

const SECTOR_BYTES = 512;
const FLUSH_DELAY_MS = 1000;
/** A guest reads many short files in sequence: more would bring what it never reads. */
const READ_AHEAD_BYTES = 2 ** 20;

/**
 * Makes a disk for `new V86({ hda: v86Disk(device, …) })`.
 *
 * The disk has the whole sectors of the device. The caller owns the device and closes it when the emulator has stopped.
 * A saved state of the emulator does not include the disk's content.
 *
 * @example
 * ```ts
 * import { openDevice } from 'copyondemand/browser';
 * import { v86Disk } from 'copyondemand/v86';
 * import { V86 } from 'v86';
 *
 * const device = await openDevice({ source: 'https://example.org/disk.raw', target: 'disk.raw' });
 * new V86({
 *   wasm_path: 'v86.wasm',
 *   bios: { url: 'bios.bin' },
 *   // The declarations of v86 list only its own disks.
 *   hda: v86Disk(device, { onError: (error) => console.error(error) }) as never,
 *   autostart: true,
 * });
 * ```
 */
export function v86Disk(device: V86Device, options: V86DiskOptions): V86Disk {
  return new Disk(device, options);
}

interface Write {
  readonly start: number;
  readonly end: number;
  /** Never rejects. */
  readonly over: Promise<void>;
}

class Disk implements V86Disk {
  readonly byteLength: number;
  onload: ((event: object) => void) | undefined;
  onprogress: ((event: object) => void) | undefined;
  readonly #device: V86Device;
  readonly #options: V86DiskOptions;
  readonly #readAhead: ReadAhead | undefined;
  /** Writes in flight. v86 may continue before a write is done. */
  readonly #writes = new Set<Write>();
  #cached: { readonly start: number; readonly bytes: Uint8Array } | undefined;
  #flushing: ReturnType<typeof setTimeout> | undefined;

  constructor(device: V86Device, options: V86DiskOptions) {
    this.#device = device;
    this.#options = options;
    this.byteLength = device.size - (device.size % SECTOR_BYTES);
    const { blockSize } = device;
    if (blockSize !== undefined && device.hydrateRange !== undefined)
      this.#readAhead = new ReadAhead(
        { size: device.size, blockSize },
        (offset, length) => device.hydrateRange!(offset, length),
        READ_AHEAD_BYTES,
      );
  }

  load(): void {
    queueMicrotask(() => this.onload?.({}));
  }

  get(start: number, length: number, done: (bytes: Uint8Array) => void, options: { signal?: AbortSignal } = {}): void {
    this.#read(start, length, options.signal).then(done, (error: unknown) => {
      if (!options.signal?.aborted) this.#options.onError(error);
    });
  }

  get_and_cache(start: number, length: number, done: (bytes: Uint8Array) => void): void {
    this.get(start, length, (bytes) => {
      this.#cached = { start, bytes: bytes.slice() };
      done(bytes);
    });
  }

  get_from_cache(start: number, length: number): Uint8Array | undefined {
    return this.#cached?.start === start && this.#cached.bytes.length === length ? this.#cached.bytes : undefined;
  }

  /** v86 may reuse `bytes` when the call returns. */
  set(start: number, bytes: Uint8Array, done: () => void): void {
    const own = bytes.slice();
    const end = start + own.length;
    if (
      this.#cached !== undefined &&
      start < this.#cached.start + this.#cached.bytes.length &&
      this.#cached.start < end
    )
      this.#cached = undefined;
    const writing = this.#write(own, start, this.#overlapping(start, end));
    const over = writing.then(
      () => undefined,
      () => undefined,
    );
    const write: Write = { start, end, over };
    this.#writes.add(write);
    void over.then(() => this.#writes.delete(write));
    void writing.then(done, this.#options.onError);
  }

  get_buffer(done: (buffer?: ArrayBuffer) => void): void {
    done();
  }

  get_state(): unknown[] {
    return [];
  }

  set_state(): void {}

  async #read(start: number, length: number, signal: AbortSignal | undefined): Promise<Uint8Array> {
    this.#readAhead?.note(start, length);
    await this.#overlapping(start, start + length);
    const bytes = new Uint8Array(length);
    await this.#device.read(bytes, start, signal === undefined ? {} : { signal });
    return bytes;
  }

  async #write(bytes: Uint8Array, start: number, earlier: Promise<unknown>): Promise<void> {
    const { durable = true } = this.#options;
    await earlier;
    await this.#device.write(bytes, start, { fua: durable });
    if (durable) return;
    this.#flushing ??= setTimeout(() => {
      this.#flushing = undefined;
      this.#device.flush().catch((error: unknown) => {
        // Closing has flushed, or has told its caller why it could not.
        if (!isCodError(error, 'COD_CLOSED')) this.#options.onError(error);
      });
    }, FLUSH_DELAY_MS);
  }

  /** Resolves when the earlier writes that overlap [start, end) have ended. */
  #overlapping(start: number, end: number): Promise<unknown> {
    return Promise.all(
      [...this.#writes].filter((write) => start < write.end && write.start < end).map(({ over }) => over),
    );
  }
}
