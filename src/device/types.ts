/** What users of a device hold: the interface, its status, its extents and its events. */

import type { Done, Settled } from '../async/done.ts';
import type { ByteExtent } from '../core/range-set.ts';

/** What a device is doing. `failed`: the background copy cannot continue; reads and writes still work. */
export type DeviceState = 'hydrating' | 'idle' | 'hydrated' | 'failed' | 'poisoned' | 'closed';

/** How the background copy works; the device chooses what is not given. */
export interface HydrateOptions {
  /** Stretches in flight at a time, 1 or more. Default: as many as make the copy faster, at most 8. */
  readonly concurrency?: number;
  /** Length of a stretch in bytes. Default: fitted to the source's latency and to the rate. */
  readonly extentBytes?: number;
  /** Bytes per second that the copy takes from the source, demand reads included. Default: no limit. */
  readonly rateBytesPerSecond?: number;
  /**
   * Extents to copy first, in this order, as a {@link ReadRecorder} recorded them in another run. The rest follows.
   * Extents may overlap. Default: none.
   */
  readonly order?: readonly ByteExtent[];
}

/** The state of a device at one moment. */
export interface DeviceStatus {
  /** Bytes. */
  readonly size: number;
  /** Bytes. */
  readonly blockSize: number;
  /** `ceil(size / blockSize)`. */
  readonly totalBlocks: number;
  /** Blocks that the target holds completely. */
  readonly syncedBlocks: number;
  /** Blocks that were written in part and that only the source holds completely. */
  readonly dirtyBlocks: number;
  readonly state: DeviceState;
  /** Bytes taken from the source since the device was opened, by demand reads and by the background copy. */
  readonly sourceBytes: number;
  /** Current speed of the background copy. */
  readonly hydrateBytesPerSecond: number;
  /** The rate limit, if one is set. */
  readonly rateBytesPerSecond: number | undefined;
  /** Bytes written to logs and checkpoints since the device was opened. */
  readonly metadataBytes: number;
}

/** A maximal run of bytes in one state. */
export interface DeviceExtent {
  /** Bytes. */
  readonly length: number;
  /** What the target holds: all of it, nothing, or parts that were written. */
  readonly state: 'synced' | 'unsynced' | 'dirty';
  /** Known to read as zeros, and not allocated on the target. */
  readonly zero: boolean;
}

/** An event of {@link Device.events}. */
export type DeviceEvent =
  /** The device's state changed. */
  | { readonly type: 'state'; readonly state: DeviceState }
  /** A checkpoint is durable; `bytes` is its size. */
  | { readonly type: 'checkpoint'; readonly bytes: number }
  /** The background copy or the log failed; `code` is that of a `CodError`, or the error's name. */
  | { readonly type: 'error'; readonly code: string; readonly message: string }
  /** This consumer was too slow and missed `count` events. */
  | { readonly type: 'lost'; readonly count: number };

/** An image that is usable while it is copied. Any range inside the device is allowed; outside: `RangeError`. */
export interface Device extends AsyncDisposable {
  /** Bytes. */
  readonly size: number;
  /** Bytes. */
  readonly blockSize: number;
  /**
   * Fills `into` with the bytes from `offset` on.
   * @throws {@link CodError} COD_SOURCE_IO, COD_SOURCE_CHANGED, COD_TARGET_IO, COD_POISONED, COD_CLOSED.
   * The signal's reason if it is aborted.
   */
  read(into: Uint8Array, offset: number, options?: { signal?: AbortSignal }): Promise<void>;
  /**
   * Writes all of `from`, which must not change until the promise settles. A resolved write is acknowledged: it
   * survives the death of the process. It survives power loss too with `fua`, or after a later {@link flush}.
   * @throws {@link CodError} COD_NO_SPACE or COD_TARGET_IO, and the range may be written in part; COD_POISONED,
   * COD_CLOSED.
   */
  write(from: Uint8Array, offset: number, options?: { fua?: boolean }): Promise<void>;
  /**
   * Makes every write that was acknowledged before the call durable. @throws {@link CodError} COD_POISONED, COD_CLOSED.
   */
  flush(): Promise<void>;
  /** Makes the whole blocks of the range read as zeros; they are never fetched. Parts of blocks at the ends stay. */
  discard(offset: number, length: number): Promise<void>;
  /** Makes every byte of the range read as zero. */
  writeZeroes(offset: number, length: number): Promise<void>;
  /** Makes the present state durable as a checkpoint, so that recovery replays next to nothing. */
  checkpoint(): Promise<void>;
  /**
   * Fetches the unsynced blocks of a range ahead of the background copy. Resolves when their bytes are here; storing
   * them may still be in flight.
   * @throws {@link CodError} as {@link read}.
   */
  hydrateRange(offset: number, length: number, options?: { signal?: AbortSignal }): Promise<void>;
  /**
   * Returns the states of a range, from `offset` on: at least one extent, at most `limit`, together `length` bytes or
   * fewer. Neighbours differ.
   */
  extents(offset: number, length: number, limit: number): Promise<readonly DeviceExtent[]>;
  status(): DeviceStatus;
  /**
   * Yields events from now on until the device is closed or the signal is aborted. A slow consumer never delays the
   * device: it misses events and is told how many.
   */
  events(options?: { signal?: AbortSignal }): AsyncIterable<DeviceEvent>;
  /**
   * Resolves when the target is a complete and durable copy. Rejects with COD_CLOSED if the device is closed first,
   * or with the cause if the copy cannot continue. Never an unhandled rejection.
   */
  readonly hydrated: Promise<void>;
  /** Limits the background copy to a rate from now on; `undefined` removes the limit. */
  setRate(bytesPerSecond: number | undefined): void;
  /**
   * Aborts reads that wait for the source, completes writes in flight, takes a checkpoint and closes the files.
   * Idempotent; loses nothing. The source stays open: it belongs to the caller.
   */
  close(): Promise<void>;
  /**
   * Closes a complete copy and removes its metadata: the target is then an ordinary file.
   * @throws {@link CodError} COD_INCOMPLETE if the copy is not complete; COD_CLOSED.
   */
  finish(): Promise<void>;
}

/** What our own NBD server and worker use beside {@link Device}: calls that complete before they return if they can. */
export interface InlineDevice extends Device {
  /** As {@link Device.read}. `into` belongs to the device until the read is done. May throw. */
  submitRead(into: Uint8Array, offset: number, signal?: AbortSignal): Done;
  /** As {@link Device.write}. `settled` is called synchronously, by {@link commitWrites}, or later. */
  submitWrite(from: Uint8Array, offset: number, fua: boolean, settled: Settled): void;
  /** Commits the writes that were submitted in this turn of the event loop, synchronously if possible. */
  commitWrites(): void;
  /** The number of synced, and of dirty, blocks in each of `parts` equal parts of the blocks [start, end). */
  countBlocks(start: number, end: number, parts: number): { synced: Float64Array; dirty: Float64Array };
}
