/** The page's side of a device: the same interface, over messages to the worker that owns the device. */

import { EventStream } from '../async/event-stream.ts';
import type { Device, DeviceEvent, DeviceExtent, DeviceState, DeviceStatus, HydrateOptions } from '../device/types.ts';
import { CodError, isCodError } from '../errors.ts';
import { privateRoot } from '../fs/opfs.ts';
import { persistStorage } from '../fs/opfs-quota.ts';
import { Calls } from './calls.ts';
import { keyOf } from './lock-names.ts';
import {
  type AnswerOf,
  type DeviceOwner,
  type FromWorker,
  fromWire,
  type OperationName,
  type RequestOf,
  type Welcome,
  type WorkerOptions,
} from './messages.ts';
import { type BrowserSource, describeSource, type ImageFormat } from './source-description.ts';
import { WorkerKeeper } from './worker-keeper.ts';
import { checkPage } from './worker-start.ts';

/** Longer reads and writes are split into pieces, since the bytes of a piece in flight are in memory twice. */
const PIECE_BYTES = 2 ** 22;
const MAX_PIECES_IN_FLIGHT = 4;
/** Parts that blocks are counted in at most: 128 MiB of numbers. */
const MAX_PARTS = 2 ** 24;

/** Options of `openDevice` in a page. */
export interface OpenBrowserDeviceOptions {
  /** The image. A new copy needs it; a complete copy opens without it, or while it is away. Default: none. */
  readonly source?: BrowserSource | undefined;
  /**
   * How the image is read: as it is (`'raw'`), or as the disk in it (`'qcow2'`). Default: as its first and last bytes
   * tell; what is neither a disk nor qcow2 is refused, as `imageSource` of `copyondemand` says. A qcow2 image with a
   * backing file or an external data file is refused.
   */
  readonly format?: ImageFormat;
  /**
   * Accepts another identity of the source as the same content, and stores it. The size must be the same. Default:
   * false.
   */
  readonly sameSource?: boolean;
  /** Name of the copy in the origin private file system, without `/`. Its metadata is beside it. */
  readonly target: string;
  /** Path of the directory that holds the copy, with `/` between names. Made if it is missing. Default: the root. */
  readonly directory?: string;
  /** Whether a second tab shares the device of the first one, or is refused with COD_LOCKED. Default: `'share'`. */
  readonly tabs?: 'share' | 'refuse';
  /** Options of the background copy. False: no background copy. Default: `{}`. */
  readonly hydrate?: false | HydrateOptions;
  /** Bytes of a block: a power of two from 4096 to 2^26. A copy that resumes keeps its block size. Default: 4096. */
  readonly blockSize?: number;
  /** Milliseconds until the device makes a change durable by itself, above 0; Infinity: never. Default: 10,000. */
  readonly checkpointIntervalMs?: number;
  /** Asks the browser to keep the data when the disk is full. Default: true. */
  readonly persist?: boolean;
  /**
   * Starts the worker, for bundlers that do not find its file. Default:
   * `new Worker(new URL('./browser-worker.js', import.meta.url), { type: 'module' })`.
   */
  readonly worker?: () => Worker;
  /** Aborts opening; has no effect on the opened device. */
  readonly signal?: AbortSignal;
}

/**
 * A device that a worker of this tab or of another tab owns. It differs from {@link Device} as follows:
 *
 * - `status()` returns the last status that the worker sent, at most 250 ms old.
 * - `events()` yields the events of the device that all tabs share. The state `closed` is that of this page's device.
 *   Events between the end of one owner and the start of the next one are missing.
 * - `finish()` closes the device of every tab.
 * - A device that is poisoned has ended its worker: the copy can be opened again before `close()`.
 * - Calls that a dead owner left unanswered are sent to the next owner.
 */
export interface BrowserDevice extends Device {
  /**
   * Asks the worker for the present status. {@link Device.status} returns the same from then on.
   *
   * @throws {@link CodError} COD_CLOSED.
   */
  refreshStatus(): Promise<DeviceStatus>;
  /**
   * Returns the number of synced blocks in each of `parts` equal parts of the blocks [start, end).
   *
   * @param parts 1 to 2^24
   * @param blocks default: all blocks of the device
   * @throws {@link CodError} COD_CLOSED.
   * @throws `RangeError` when `parts` or `blocks` is out of range.
   */
  countSynced(parts: number, blocks?: { start: number; end: number }): Promise<Float64Array>;
  /**
   * As {@link countSynced}, for dirty blocks: unsynced and partly written.
   *
   * @throws as {@link countSynced}.
   */
  countDirty(parts: number, blocks?: { start: number; end: number }): Promise<Float64Array>;
  /** `owner`: this tab's worker owns the device. `guest`: another tab's worker does, and this tab's may replace it. */
  readonly role: 'owner' | 'guest';
  /** The worker that owns the device. */
  readonly owner: DeviceOwner;
  /** Called after {@link role} or {@link owner} has changed. The page may set it. Default: undefined. */
  onRoleChange: (() => void) | undefined;
}

/** `makeWorker` starts the worker if {@link OpenBrowserDeviceOptions.worker} is not given. */
export function openPageDevice(options: OpenBrowserDeviceOptions, makeWorker: () => Worker): Promise<BrowserDevice> {
  return new Promise((resolve, reject) => {
    const { signal, source, target, directory = '', tabs = 'share' } = options;
    const { format, sameSource, hydrate, blockSize, checkpointIntervalMs } = options;
    if (typeof target !== 'string' || target === '' || target.includes('/'))
      throw new TypeError('`target` must be a file name without a slash');
    checkPage();
    signal?.throwIfAborted();
    const workerOptions: Omit<WorkerOptions, 'workerId'> = {
      page: location.href,
      source: source === undefined ? undefined : describeSource(source),
      ...(format === undefined ? {} : { format }),
      ...(sameSource === undefined ? {} : { sameSource }),
      target,
      directory,
      tabs,
      ...(hydrate === undefined ? {} : { hydrate }),
      ...(blockSize === undefined ? {} : { blockSize }),
      ...(checkpointIntervalMs === undefined ? {} : { checkpointIntervalMs }),
    };
    if (options.persist ?? true) void persistStorage();
    let device: PageDevice | undefined;
    const abort = (): void => {
      reject(signal?.reason);
      device?.abandon();
    };
    signal?.addEventListener('abort', abort, { once: true });
    const open = (): void => {
      if (signal?.aborted) return;
      const opened = new PageDevice(workerOptions, options.worker ?? makeWorker, {
        onOpen: () => {
          signal?.removeEventListener('abort', abort);
          resolve(opened);
        },
        onFailed: reject,
      });
      device = opened;
    };
    // Where the browser refuses storage, it refuses locks and channels too, without a reason.
    privateRoot().then(open).catch(reject);
  });
}

class PageDevice implements BrowserDevice {
  readonly hydrated: Promise<void>;
  onRoleChange: (() => void) | undefined;
  readonly #calls = new Calls();
  readonly #keeper: WorkerKeeper;
  readonly #opening: { onOpen(): void; onFailed(error: Error): void };
  readonly #events = new EventStream<DeviceEvent>();
  /** Releases locks and listeners at the end. */
  readonly #over = new AbortController();
  readonly #settleHydrated: { resolve(): void; reject(error: unknown): void };
  #welcome!: Welcome;
  #role: 'owner' | 'guest' = 'owner';
  #status!: DeviceStatus;
  /** The state that consumers of events know. */
  #toldState: DeviceState | undefined;
  /** Why the device is closed: every further call rejects with it. */
  #end: Error | undefined;
  #closing: Promise<void> | undefined;
  /** A worker answers calls. */
  #attached = false;
  /** The next worker that is ready must close at once. */
  #leaving = false;
  #onClosed: ((outcome: Error | undefined) => void) | undefined;

  constructor(
    options: Omit<WorkerOptions, 'workerId'>,
    makeWorker: () => Worker,
    opening: { onOpen(): void; onFailed(error: Error): void },
  ) {
    this.#opening = opening;
    let settle: { resolve(): void; reject(error: unknown): void } | undefined;
    this.hydrated = new Promise((resolve, reject) => (settle = { resolve, reject }));
    this.hydrated.catch(() => undefined);
    this.#settleHydrated = settle!;
    this.#keeper = new WorkerKeeper(keyOf(options), options, makeWorker, {
      onMessage: (message) => this.#take(message),
      onLost: () => {
        this.#attached = false;
        this.#calls.sendThrough(undefined);
      },
      onFailed: (error) => this.#finishWith(error),
    });
    this.#keeper.start();
    // A hidden page may be discarded without notice, so its writes are made durable now.
    const flush = (): void => {
      if (document.visibilityState === 'hidden' && this.#end === undefined) this.flush().catch(() => undefined);
    };
    document.addEventListener('visibilitychange', flush, { signal: this.#over.signal });
    globalThis.addEventListener('pagehide', flush, { signal: this.#over.signal });
  }

  get size(): number {
    return this.#welcome.size;
  }

  get blockSize(): number {
    return this.#welcome.blockSize;
  }

  get role(): 'owner' | 'guest' {
    return this.#role;
  }

  get owner(): DeviceOwner {
    return this.#welcome.owner;
  }

  async read(into: Uint8Array, offset: number, options: { signal?: AbortSignal } = {}): Promise<void> {
    this.#check(offset, into.length);
    await inPieces(into, async (piece, at) => {
      const request = { offset: offset + at, length: piece.length };
      piece.set(await this.#calls.call('read', () => request, options.signal));
    });
  }

  async write(from: Uint8Array, offset: number, options: { fua?: boolean } = {}): Promise<void> {
    this.#check(offset, from.length);
    const { fua = false } = options;
    await inPieces(from, (piece, at) =>
      // A copy for each time that it is sent: its buffer is transferred.
      this.#calls.call('write', () => ({ offset: offset + at, bytes: new Uint8Array(piece), fua })),
    );
  }

  async discard(offset: number, length: number): Promise<void> {
    this.#check(offset, length);
    await this.#ask('discard', { offset, length });
  }

  async writeZeroes(offset: number, length: number): Promise<void> {
    this.#check(offset, length);
    await this.#ask('writeZeroes', { offset, length });
  }

  async hydrateRange(offset: number, length: number, options: { signal?: AbortSignal } = {}): Promise<void> {
    this.#check(offset, length);
    await this.#ask('hydrateRange', { offset, length }, options.signal);
  }

  async extents(offset: number, length: number, limit: number): Promise<readonly DeviceExtent[]> {
    this.#check(offset, length);
    return this.#ask('extents', { offset, length, limit });
  }

  flush(): Promise<void> {
    return this.#ask('flush', undefined);
  }

  checkpoint(): Promise<void> {
    return this.#ask('checkpoint', undefined);
  }

  snapshot(to: string): Promise<void> {
    return this.#ask('snapshot', { to });
  }

  events(options: { signal?: AbortSignal } = {}): AsyncIterable<DeviceEvent> {
    return this.#events.subscribe(options.signal);
  }

  status(): DeviceStatus {
    return this.#end === undefined ? this.#status : { ...this.#status, state: this.#toldState! };
  }

  async refreshStatus(): Promise<DeviceStatus> {
    return (this.#status = await this.#ask('status', undefined));
  }

  countSynced(parts: number, blocks?: { start: number; end: number }): Promise<Float64Array> {
    return this.#count('countSynced', parts, blocks);
  }

  countDirty(parts: number, blocks?: { start: number; end: number }): Promise<Float64Array> {
    return this.#count('countDirty', parts, blocks);
  }

  async #count(
    op: 'countSynced' | 'countDirty',
    parts: number,
    blocks: { start: number; end: number } | undefined,
  ): Promise<Float64Array> {
    const { totalBlocks } = this.#status;
    const { start, end } = blocks ?? { start: 0, end: totalBlocks };
    if (!Number.isInteger(parts) || parts < 1 || parts > MAX_PARTS)
      throw new RangeError(`parts ${parts} is not an integer from 1 to ${MAX_PARTS}`);
    if (!Number.isInteger(start) || !Number.isInteger(end) || start < 0 || end < start || end > totalBlocks)
      throw new RangeError(`blocks [${start}, ${end}) are not within the device (${totalBlocks} blocks)`);
    return this.#ask(op, { start, end, parts });
  }

  setRate(bytesPerSecond: number | undefined): void {
    if (bytesPerSecond !== undefined && !(bytesPerSecond > 0))
      throw new RangeError(`the rate must be above 0 bytes per second, not ${bytesPerSecond}`);
    this.#ask('setRate', { bytesPerSecond }).catch(() => undefined);
  }

  pause(): void {
    this.#ask('pause', undefined).catch(() => undefined);
  }

  resume(): void {
    this.#ask('resume', undefined).catch(() => undefined);
  }

  close(): Promise<void> {
    this.#closing ??= this.#end === undefined ? this.#close() : this.#closeEnded(this.#end);
    return this.#closing;
  }

  async finish(): Promise<void> {
    await this.#ask('finish', undefined);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Releases everything at once, as if the page had ended. */
  abandon(): void {
    this.#finishWith(new CodError('COD_CLOSED', 'opening was aborted'));
  }

  /**
   * What this page was told is durable when `close` resolves: the owner's worker closes the device, and a guest
   * flushes. Both wait for the next `ready` if no worker answers.
   */
  async #close(): Promise<void> {
    const closed = new Promise<void>((resolve, reject) => {
      this.#onClosed = (outcome) => (outcome === undefined ? resolve() : reject(outcome));
    });
    closed.catch(() => undefined);
    const flushed = this.#role === 'guest' ? this.#calls.call('flush', () => undefined) : undefined;
    const failure = await flushed?.then(
      () => undefined,
      (error: unknown) => ({ error }),
    );
    this.#leaving = true;
    if (this.#attached) this.#keeper.port.post({ kind: 'close' });
    await closed;
    if (failure !== undefined && failure.error !== this.#end) throw failure.error;
  }

  /** @throws `RangeError` if the range is not inside the device; COD_CLOSED. */
  #check(offset: number, length: number): void {
    if (
      !Number.isSafeInteger(offset) ||
      !Number.isSafeInteger(length) ||
      offset < 0 ||
      length < 0 ||
      offset + length > this.size
    ) {
      throw new RangeError(`${length} bytes at ${offset} are not within the device (${this.size} bytes)`);
    }
    this.#checkOpen();
  }

  #checkOpen(): void {
    if (this.#end !== undefined) throw this.#end;
    if (this.#closing !== undefined) throw new CodError('COD_CLOSED', 'the device is closed');
  }

  async #ask<Name extends OperationName>(
    op: Name,
    request: RequestOf<Name>,
    signal?: AbortSignal,
  ): Promise<AnswerOf<Name>> {
    this.#checkOpen();
    return this.#calls.call(op, () => request, signal);
  }

  #take(message: Exclude<FromWorker, { kind: 'started' | 'inspected' | 'failed' }>): void {
    switch (message.kind) {
      case 'answer':
        this.#calls.answer(message);
        break;
      case 'status':
        this.#status = message.status;
        break;
      case 'event':
        if (message.event.type === 'state') this.#tellState(message.event.state);
        else this.#events.emit(message.event);
        break;
      case 'hydrated':
        if (message.error === undefined) this.#settleHydrated.resolve();
        else this.#settleHydrated.reject(fromWire(message.error));
        break;
      case 'poisoned':
        this.#finishWith(fromWire(message.error));
        break;
      case 'finished':
        this.#finishWith(new CodError('COD_CLOSED', 'the device is closed: `finish` has removed the metadata'));
        break;
      case 'closed':
        this.#finishWith(new CodError('COD_CLOSED', 'the device is closed'), message.error && fromWire(message.error));
        break;
      case 'ready':
        this.#ready(message.role, message.welcome);
    }
  }

  #ready(role: 'owner' | 'guest', welcome: Welcome): void {
    const first = this.#welcome === undefined;
    const changed = !first && (this.#role !== role || this.#welcome.owner.since !== welcome.owner.since);
    this.#role = role;
    this.#welcome = welcome;
    this.#status = welcome.status;
    if (first) this.#toldState = welcome.status.state;
    else this.#tellState(welcome.status.state);
    this.#attached = true;
    // Calls first: a worker that closes takes none.
    this.#calls.sendThrough(this.#keeper.port);
    if (this.#leaving) this.#keeper.port.post({ kind: 'close' });
    if (first) this.#opening.onOpen();
    else if (changed) this.onRoleChange?.();
  }

  /** Tells a state once: an owner's status and its events may both tell of the same change. */
  #tellState(state: DeviceState): void {
    if (state === this.#toldState) return;
    this.#toldState = state;
    this.#events.emit({ type: 'state', state });
  }

  /** @throws the reason why the device is poisoned, if it is: what was written may not be durable. */
  async #closeEnded(end: Error): Promise<void> {
    this.#tellClosed();
    if (isCodError(end, 'COD_POISONED')) throw end;
  }

  #tellClosed(): void {
    this.#tellState('closed');
    this.#events.end();
  }

  /** Ends the device for the reason `end`; {@link close} rejects with `failure`. */
  #finishWith(end: Error, failure: Error | undefined = this.#closing === undefined ? undefined : asFailure(end)): void {
    if (this.#end !== undefined) return;
    this.#end = end;
    this.#keeper.close();
    this.#over.abort();
    this.#calls.failAll(end);
    this.#settleHydrated.reject(end);
    if (isCodError(end, 'COD_POISONED') && this.#closing === undefined) this.#tellState('poisoned');
    else this.#tellClosed();
    this.#onClosed?.(failure);
    this.#opening.onFailed(end);
  }
}

/** COD_CLOSED is what closing is for, and no failure of it. */
function asFailure(end: Error): Error | undefined {
  return end instanceof CodError && end.code === 'COD_CLOSED' ? undefined : end;
}

/** Calls `work` for pieces of `bytes`, at most {@link MAX_PIECES_IN_FLIGHT} at a time; starts none after a failure. */
async function inPieces(bytes: Uint8Array, work: (piece: Uint8Array, at: number) => Promise<void>): Promise<void> {
  if (bytes.length <= PIECE_BYTES) {
    if (bytes.length > 0) await work(bytes, 0);
    return;
  }
  let next = 0;
  const runner = async (): Promise<void> => {
    while (next < bytes.length) {
      const at = next;
      next += PIECE_BYTES;
      try {
        await work(bytes.subarray(at, at + PIECE_BYTES), at);
      } catch (error) {
        next = bytes.length;
        throw error;
      }
    }
  };
  // Every piece has ended before this throws: the caller may then use its buffer again.
  for (const outcome of await Promise.allSettled(Array.from({ length: MAX_PIECES_IN_FLIGHT }, runner))) {
    if (outcome.status === 'rejected') throw outcome.reason;
  }
}
