/** What users of a device hold: the interface, its status, its extents and its events. */

import type { Done, Settled } from '../async/done.ts';
import type { ByteExtent } from '../core/range-set.ts';
import type { ModifiedRuns } from '../core/views.ts';
import type { CallCount, TransferCount } from './counters.ts';

export type { CallCount, TransferCount };

/**
 * What a device is doing.
 *
 * - `hydrating`: the background copy runs.
 * - `paused`: the background copy waits for {@link Device.resume}.
 * - `waiting`: the background copy waits for its source, or for room on the disk. It continues by itself.
 * - `idle`: there is no background copy, and the target is not complete.
 * - `hydrated`: the target is a complete, durable copy.
 * - `poisoned`: a sync failed. Reads, writes and flushes reject with COD_POISONED. Opening again recovers the durable
 *   state.
 * - `closed`: the device was closed or finished.
 */
export type DeviceState = 'hydrating' | 'paused' | 'waiting' | 'idle' | 'hydrated' | 'poisoned' | 'closed';

/** How the background copy works. The device chooses what is not given. */
export interface HydrateOptions {
  /** Requests in flight at a time, 1 or more. Default: as many as make the copy faster, at most 8. */
  readonly concurrency?: number;
  /** Bytes of one request, or of one run of reads, above 0. Default: fitted to the source's latency and to the rate. */
  readonly extentBytes?: number;
  /**
   * Bytes per second that the device takes from the source, above 0. Demand reads count, but never wait for the rate.
   * Default: no limit.
   */
  readonly rateBytesPerSecond?: number;
  /**
   * Extents to copy first, in this order, as a `ReadRecorder` recorded them in another run. The rest follows. Extents
   * may overlap. Default: none.
   */
  readonly order?: readonly ByteExtent[];
}

/** The state of a device at one moment. */
export interface DeviceStatus {
  /** Bytes of the device. */
  readonly size: number;
  /** Bytes of a block. */
  readonly blockSize: number;
  /** `ceil(size / blockSize)`. */
  readonly totalBlocks: number;
  /** Blocks that the target holds completely. */
  readonly syncedBlocks: number;
  /** Blocks that were written in part and that only the source holds completely. */
  readonly dirtyBlocks: number;
  /** What the device is doing. */
  readonly state: DeviceState;
  /** Bytes taken from the source since the device was opened, by demand reads and by the background copy. */
  readonly sourceBytes: number;
  /** Current speed of the background copy in bytes per second. 0 in every state but `hydrating`. */
  readonly hydrateBytesPerSecond: number;
  /** The rate limit in bytes per second, if one is set. */
  readonly rateBytesPerSecond: number | undefined;
  /** Bytes written to logs and checkpoints since the device was opened. */
  readonly metadataBytes: number;
  /** Events `retry` since the device was opened. */
  readonly retries: number;
  /** What reads by users took from the source since the device was opened. */
  readonly demand: TransferCount;
  /** What the background copy took from the source since the device was opened. */
  readonly background: TransferCount;
  /** Calls of {@link Device.read} since the device was opened. */
  readonly reads: CallCount;
  /** Calls of {@link Device.write} since the device was opened. */
  readonly writes: CallCount;
  /** Calls of {@link Device.flush} since the device was opened. */
  readonly flushes: CallCount;
  /** Rejected calls, and events `retry`, by the code of the error. */
  readonly errors: Readonly<Record<string, number>>;
}

/** A maximal run of bytes in one state. */
export interface DeviceExtent {
  /** Bytes. */
  readonly length: number;
  /** `synced`: the target holds the bytes. `unsynced`: only the source does. `dirty`: unsynced and partly written. */
  readonly state: 'synced' | 'unsynced' | 'dirty';
  /**
   * Whether the bytes are known to read as zeros without being stored on the target. A device of this package knows
   * this of `unsynced` bytes only, from its source.
   */
  readonly zero: boolean;
}

/** An event of {@link Device.events}. */
export type DeviceEvent =
  /** The device's state changed. */
  | { readonly type: 'state'; readonly state: DeviceState }
  /** A checkpoint is durable; `bytes` is its size. */
  | { readonly type: 'checkpoint'; readonly bytes: number }
  /** The log failed; `code` is that of a `CodError`, or the error's name. */
  | { readonly type: 'error'; readonly code: string; readonly message: string }
  /**
   * An attempt failed, the `attempt`th in a row: of the background copy, of the source, or of a reader that waits for
   * it. The next one begins after `delayMs`, or earlier if a read finds the source. `code` as of `error`.
   * The background copy waits 30,000 at most.
   */
  | {
      readonly type: 'retry';
      readonly code: string;
      readonly message: string;
      readonly attempt: number;
      readonly delayMs: number;
    }
  /** The background copy got further, or the source answers reads again, after one or more `retry`. */
  | { readonly type: 'recovered' }
  /**
   * The source holds another image, so the device does not use it: it proved that by the same answer over a minute. The
   * device asks again, and continues when the image is back. `code` is COD_SOURCE_CHANGED or COD_SIZE_MISMATCH.
   */
  | { readonly type: 'source-changed'; readonly code: string; readonly message: string }
  /** This consumer was too slow and missed `count` events. */
  | { readonly type: 'lost'; readonly count: number };

/**
 * An image that is usable while it is copied. Any range inside the device is allowed, aligned or not. A range outside
 * the device rejects with `RangeError`.
 */
export interface Device extends AsyncDisposable {
  /** Bytes of the device. */
  readonly size: number;
  /** Bytes of a block: a power of two from 4096 to 2^26. The last block of the device may be short. */
  readonly blockSize: number;
  /**
   * Fills `into` with the bytes from `offset` on. Fetches missing blocks from the source and stores them afterwards.
   *
   * @param offset bytes from the beginning of the device
   * @throws {@link CodError} COD_SOURCE_IO when bytes are missing and the source is not available; COD_SOURCE_IO,
   *   COD_NOT_FOUND, COD_SHORT_READ or COD_SOURCE_CHANGED when the source fails;
   *   COD_TARGET_IO or COD_SHORT_READ when the target fails; COD_POISONED; COD_CLOSED.
   * @throws the signal's reason when it is aborted.
   */
  read(into: Uint8Array, offset: number, options?: { signal?: AbortSignal }): Promise<void>;
  /**
   * Writes all of `from`, which must not change until the promise settles. A resolved write is acknowledged: it
   * survives the death of the process. It survives power loss too with `fua`, or after a later {@link flush}.
   *
   * @param offset bytes from the beginning of the device
   * @param options.fua forced unit access: the write is durable when the promise resolves. Default: false.
   * @throws {@link CodError} COD_NO_SPACE, COD_NO_MEMORY or COD_TARGET_IO, and the range may be written in part; the
   *   source's errors when a block with many written parts must be fetched first; COD_POISONED; COD_CLOSED.
   */
  write(from: Uint8Array, offset: number, options?: { fua?: boolean }): Promise<void>;
  /**
   * Makes every change that was acknowledged before the call durable.
   *
   * @throws {@link CodError} COD_POISONED when a sync failed; COD_NO_SPACE or COD_TARGET_IO when the log cannot be
   *   written; COD_CLOSED.
   */
  flush(): Promise<void>;
  /**
   * Makes the whole blocks of the range read as zeros; they are never fetched. Parts of blocks at the ends stay.
   * Durable after a later {@link flush}.
   *
   * @param offset bytes from the beginning of the device
   * @param length bytes
   * @throws as {@link write}.
   */
  discard(offset: number, length: number): Promise<void>;
  /**
   * Makes every byte of the range read as zero. Durable after a later {@link flush}.
   *
   * @param offset bytes from the beginning of the device
   * @param length bytes
   * @throws as {@link write}.
   */
  writeZeroes(offset: number, length: number): Promise<void>;
  /**
   * As {@link flush}. In addition it writes the maps as a checkpoint, so that recovery replays almost nothing.
   *
   * @throws as {@link flush}.
   */
  checkpoint(): Promise<void>;
  /**
   * Fetches the unsynced blocks of a range ahead of the background copy. Resolves when their bytes have arrived.
   * Storing them may still be in flight.
   *
   * @param offset bytes from the beginning of the device
   * @param length bytes
   * @throws {@link CodError} the source's errors, as for {@link read}; COD_CLOSED.
   * @throws the signal's reason when it is aborted.
   */
  hydrateRange(offset: number, length: number, options?: { signal?: AbortSignal }): Promise<void>;
  /**
   * Returns the states of a range from `offset` on. Neighbours differ. The extents may end before the range does: ask
   * again from there.
   *
   * @param offset bytes from the beginning of the device
   * @param length bytes; with 1 or more the result has at least one extent
   * @param limit the most extents to return, 1 or more
   * @throws {@link CodError} the source's errors when it cannot tell its zeros; COD_CLOSED.
   */
  extents(offset: number, length: number, limit: number): Promise<readonly DeviceExtent[]>;
  /** Returns the present state and figures. Never throws, also after {@link close}. */
  status(): DeviceStatus;
  /**
   * Yields events from this call on, until the device is closed or the signal is aborted. A slow consumer never delays
   * the device. When 256 events are unread, it misses further ones and gets `lost` in their place.
   */
  events(options?: { signal?: AbortSignal }): AsyncIterable<DeviceEvent>;
  /**
   * Resolves when the target is a complete, durable copy. Never an unhandled rejection. It stays pending while the
   * source is away or holds another image, and while the disk is full: the copy continues by itself.
   *
   * @throws {@link CodError} COD_CLOSED when the device is closed first; COD_POISONED.
   */
  readonly hydrated: Promise<void>;
  /**
   * Makes a consistent copy of target and metadata under another name, while the device is in use: the image as it is
   * at one moment of the call. It is durable when the promise resolves. With the same source `openDevice` resumes it,
   * also on another machine.
   *
   * - If the file system has `clone`, the target is cloned. Otherwise its bytes are copied, and holes stay holes. Bytes
   *   that the background copy adds meanwhile may be missing.
   * - Reads continue. At the end, changes wait for a short time, and so do reads of blocks for which a change waits.
   * - A copied target can be read by its owner only. A cloned one has the permissions of the target.
   * - Snapshots of a device are taken one after another. Closing the device aborts them.
   * - A failure leaves nothing of the snapshot. A crash may leave an unfinished one, which holds nothing: `openDevice`
   *   refuses it, and `removeCopy` removes it.
   *
   * @param to name in the same directory: like `target` up to the last `/`. Neither a file of this name nor metadata
   *   may exist.
   * @throws {@link CodError} COD_EXISTS when one of the names is taken; COD_LOCKED when another snapshot is taken under
   *   the name; COD_NO_SPACE, COD_NO_MEMORY or COD_TARGET_IO, and the device continues; COD_READ_ONLY; COD_POISONED;
   *   COD_CLOSED.
   * @throws `TypeError` when `to` is no name; `RangeError` when it is in another directory, or names the copy itself.
   */
  snapshot(to: string): Promise<void>;
  /**
   * Limits the background copy to a rate from now on; `undefined` removes the limit.
   *
   * @param bytesPerSecond above 0
   * @throws `RangeError` for any other number.
   */
  setRate(bytesPerSecond: number | undefined): void;
  /** Stops the background copy until {@link resume}. Reads still fetch what they need. No effect without one. */
  pause(): void;
  /** Continues the background copy. */
  resume(): void;
  /**
   * Aborts reads that wait for the source, completes writes in flight, takes a checkpoint and closes the files. Every
   * acknowledged change is durable when the promise resolves, unless the device was poisoned before. Idempotent. A
   * source object stays open: it belongs to the caller. A source that a function returned is closed.
   *
   * @throws {@link CodError} COD_POISONED when a sync failed; COD_NO_SPACE or COD_TARGET_IO when the checkpoint cannot
   *   be written. The device is closed all the same.
   */
  close(): Promise<void>;
  /**
   * Closes a complete copy and removes its metadata: the target is then an ordinary file. Every acknowledged change is
   * durable when the promise resolves.
   *
   * @throws {@link CodError} COD_INCOMPLETE when the state is not `hydrated`, and the device stays open; COD_CLOSED;
   *   COD_POISONED, COD_NO_SPACE or COD_TARGET_IO when the removal fails, and the device is closed.
   */
  finish(): Promise<void>;
}

/** What our own NBD server and worker use beside {@link Device}: calls that complete before they return if they can. */
export interface InlineDevice extends Device {
  /** The blocks that were written since they were copied. */
  readonly modified: ModifiedRuns;
  /** Whether it was opened for reading only, and refuses every change. */
  readonly readOnly: boolean;
  /** The name of the source's content that the copy stores. */
  readonly identity: string | undefined;
  /** As {@link Device.read}. `into` belongs to the device until the read is done. May throw. */
  submitRead(into: Uint8Array, offset: number, signal?: AbortSignal): Done;
  /** As {@link Device.write}. `settled` is called synchronously, by {@link commitWrites}, or later. */
  submitWrite(from: Uint8Array, offset: number, fua: boolean, settled: Settled): void;
  /** Commits the writes that were submitted in this turn of the event loop, synchronously if possible. */
  commitWrites(): void;
  /** The number of synced, and of dirty, blocks in each of `parts` equal parts of the blocks [start, end). */
  countBlocks(start: number, end: number, parts: number): { synced: Float64Array; dirty: Float64Array };
}
