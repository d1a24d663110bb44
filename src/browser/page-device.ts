/** The page's side of a device: the same interface, over messages to the worker that has it. */

import type { Device, DeviceStatus } from '../device/device.ts';
import { CodError } from '../errors.ts';
import { persistStorage } from '../fs/opfs-quota.ts';
import { Calls, type MakeOperation } from './calls.ts';
import { bootLock, hold, keyOf } from './lock-names.ts';
import { type DeviceOwner, type FromWorker, fromWire, type Welcome, type WorkerOptions } from './messages.ts';
import { type BrowserSource, describeSource } from './source-description.ts';
import { WorkerKeeper } from './worker-keeper.ts';

/** Longer requests are made in pieces of this size, so many of them at once: what is under way is in memory twice. */
const PIECE_BYTES = 2 ** 22;
const PIECES_AT_ONCE = 4;

/** How a device is opened in a page. `hydrate`, `blockSize` and `checkpointIntervalMs` as for `openDevice` of `copyondemand`. */
export interface OpenBrowserDeviceOptions
  extends Pick<WorkerOptions, 'hydrate' | 'blockSize' | 'checkpointIntervalMs'> {
  readonly source: BrowserSource;
  /** The copy's name in the origin private file system; metadata lies beside it. */
  readonly target: string;
  /** The folder that the copy is in, as a path; made if it is missing. Default: the root. */
  readonly directory?: string;
  /** What becomes of a second tab: it has part in the device of the first, or is refused with COD_LOCKED. Default: `'share'`. */
  readonly tabs?: 'share' | 'refuse';
  /** Asks the browser to keep the data when the disk runs full. Default: true. */
  readonly persist?: boolean;
  /** Starts the worker, where a bundler needs to be told where it is. Default: `new Worker(new URL('./browser-worker.js', import.meta.url), { type: 'module' })`. */
  readonly worker?: () => Worker;
  /** Gives up opening. */
  readonly signal?: AbortSignal;
}

/** A device whose work is done in a worker, this tab's or another's. */
export interface BrowserDevice extends Omit<Device, 'syncedBlocks' | 'dirtyBlocks'> {
  /** As last heard, at most a quarter of a second ago; {@link refreshStatus} asks. */
  status(): DeviceStatus;
  refreshStatus(): Promise<DeviceStatus>;
  /** The number of synced blocks in each of so many equal stretches of blocks `[start, end)`; default: of the whole device. */
  countSynced(stretches: number, blocks?: { start: number; end: number }): Promise<Float64Array>;
  /** The same for blocks that were written in part while only the source has them as a whole. */
  countDirty(stretches: number, blocks?: { start: number; end: number }): Promise<Float64Array>;
  /** Whether this tab's worker has the device, or that of another tab, whose place it will take. */
  readonly role: 'owner' | 'guest';
  /** Who has it. */
  readonly owner: DeviceOwner;
  /** Called whenever {@link role} or {@link owner} has changed. */
  onRoleChange: (() => void) | undefined;
}

/** `makeWorker` as {@link OpenBrowserDeviceOptions.worker}, if that is not given. */
export function openPageDevice(options: OpenBrowserDeviceOptions, makeWorker: () => Worker): Promise<BrowserDevice> {
  return new Promise((resolve, reject) => {
    const { signal, target, directory = '', tabs = 'share', hydrate, blockSize, checkpointIntervalMs } = options;
    if (typeof target !== 'string' || target === '' || target.includes('/'))
      throw new TypeError('`target` must be the name of a file');
    if (globalThis.navigator?.locks === undefined)
      throw new TypeError('a device needs a page over https or from localhost, in a browser with Web Locks');
    signal?.throwIfAborted();
    const workerOptions: Omit<WorkerOptions, 'workerId'> = {
      page: location.href,
      source: describeSource(options.source),
      target,
      directory,
      tabs,
      ...(hydrate === undefined ? {} : { hydrate }),
      ...(blockSize === undefined ? {} : { blockSize }),
      ...(checkpointIntervalMs === undefined ? {} : { checkpointIntervalMs }),
    };
    if (options.persist ?? true) void persistStorage();
    const device = new PageDevice(workerOptions, options.worker ?? makeWorker, {
      onOpen: () => {
        signal?.removeEventListener('abort', abort);
        resolve(device);
      },
      onFailed: reject,
    });
    const abort = (): void => {
      reject(signal?.reason);
      device.abandon();
    };
    signal?.addEventListener('abort', abort, { once: true });
  });
}

class PageDevice implements BrowserDevice {
  readonly hydrated: Promise<void>;
  onRoleChange: (() => void) | undefined;
  readonly #key: string;
  readonly #calls = new Calls();
  readonly #keeper: WorkerKeeper;
  readonly #events: { onOpen(): void; onFailed(error: Error): void };
  /** Ends what goes on beside the calls. */
  readonly #over = new AbortController();
  readonly #settleHydrated: { resolve(): void; reject(error: unknown): void };
  #welcome!: Welcome;
  #role: 'owner' | 'guest' = 'owner';
  #status!: DeviceStatus;
  /** Why nothing can be asked for any more. */
  #end: Error | undefined;
  #closing: Promise<void> | undefined;
  /** Whether there is somebody who answers calls. */
  #attached = false;
  /** Whether the worker is to close, as soon as it can. */
  #leaving = false;
  #onClosed: ((outcome: Error | undefined) => void) | undefined;

  constructor(
    options: Omit<WorkerOptions, 'workerId'>,
    makeWorker: () => Worker,
    events: { onOpen(): void; onFailed(error: Error): void },
  ) {
    this.#key = keyOf(options);
    this.#events = events;
    let settle: { resolve(): void; reject(error: unknown): void } | undefined;
    this.hydrated = new Promise((resolve, reject) => (settle = { resolve, reject }));
    this.hydrated.catch(() => undefined);
    this.#settleHydrated = settle!;
    this.#keeper = new WorkerKeeper(this.#key, options, makeWorker, {
      onMessage: (message) => this.#take(message),
      onLost: () => {
        this.#attached = false;
        this.#calls.sendThrough(undefined);
      },
      onFailed: (error) => this.#finishWith(error),
    });
    this.#keeper.start();
    // A page that is put aside may not come back: what was written is made durable while there is time.
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
      const operation = { op: 'read', offset: offset + at, length: piece.length } as const;
      piece.set((await this.#calls.call(() => ({ operation }), options.signal)) as Uint8Array);
    });
  }

  async write(from: Uint8Array, offset: number, options: { fua?: boolean } = {}): Promise<void> {
    this.#check(offset, from.length);
    await inPieces(from, async (piece, at) => {
      await this.#calls.call(() => {
        const bytes = piece.slice() as Uint8Array<ArrayBuffer>;
        return {
          operation: { op: 'write', offset: offset + at, bytes, fua: options.fua ?? false },
          transfer: [bytes.buffer],
        };
      });
    });
  }

  async discard(offset: number, length: number): Promise<void> {
    this.#check(offset, length);
    await this.#ask(() => ({ operation: { op: 'discard', offset, length } }));
  }

  async writeZeroes(offset: number, length: number): Promise<void> {
    this.#check(offset, length);
    await this.#ask(() => ({ operation: { op: 'writeZeroes', offset, length } }));
  }

  async flush(): Promise<void> {
    await this.#ask(() => ({ operation: { op: 'flush' } }));
  }

  async checkpoint(): Promise<void> {
    await this.#ask(() => ({ operation: { op: 'checkpoint' } }));
  }

  status(): DeviceStatus {
    return this.#end === undefined ? this.#status : { ...this.#status, state: 'closed' };
  }

  async refreshStatus(): Promise<DeviceStatus> {
    return (this.#status = (await this.#ask(() => ({ operation: { op: 'status' } }))) as DeviceStatus);
  }

  countSynced(stretches: number, blocks?: { start: number; end: number }): Promise<Float64Array> {
    return this.#count('countSynced', stretches, blocks);
  }

  countDirty(stretches: number, blocks?: { start: number; end: number }): Promise<Float64Array> {
    return this.#count('countDirty', stretches, blocks);
  }

  async #count(
    op: 'countSynced' | 'countDirty',
    stretches: number,
    blocks: { start: number; end: number } | undefined,
  ): Promise<Float64Array> {
    const { start, end } = blocks ?? { start: 0, end: this.#status.totalBlocks };
    const whole = [stretches, start, end].every(Number.isSafeInteger);
    if (!whole || stretches < 1 || stretches > 2 ** 24 || start < 0 || end < start || end > this.#status.totalBlocks) {
      throw new RangeError(`${stretches} stretches of blocks ${start} to ${end} of ${this.#status.totalBlocks}`);
    }
    return (await this.#ask(() => ({ operation: { op, stretches, start, end } }))) as Float64Array;
  }

  setRate(bytesPerSecond: number | undefined): void {
    if (bytesPerSecond !== undefined && !(bytesPerSecond > 0))
      throw new RangeError(`a rate of ${bytesPerSecond} bytes per second`);
    this.#ask(() => ({ operation: { op: 'setRate', bytesPerSecond } })).catch(() => undefined);
  }

  close(): Promise<void> {
    this.#closing ??= this.#end === undefined ? this.#close() : Promise.resolve();
    return this.#closing;
  }

  async finish(): Promise<void> {
    await this.#ask(() => ({ operation: { op: 'finish' } }));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Lets go of everything, as if the page were gone. */
  abandon(): void {
    this.#finishWith(new CodError('COD_CLOSED', 'the device was given up'));
  }

  /**
   * What was acknowledged must not be lost when this page, which knows the boot, has gone. The device's owner sees to that as it closes; a guest flushes. Where nobody
   * answers at the moment, both wait for the next `ready`.
   */
  async #close(): Promise<void> {
    const closed = new Promise<void>((resolve, reject) => {
      this.#onClosed = (outcome) => (outcome === undefined ? resolve() : reject(outcome));
    });
    closed.catch(() => undefined);
    const flushed = this.#role === 'guest' ? this.#calls.call(() => ({ operation: { op: 'flush' } })) : undefined;
    const failure = await flushed?.then(
      () => undefined,
      (error: unknown) => ({ error }),
    );
    this.#leaving = true;
    if (this.#attached) this.#keeper.port.post({ kind: 'close' });
    await closed;
    if (failure !== undefined && failure.error !== this.#end) throw failure.error;
  }

  /** The checks that need no message; outside the device: `RangeError`. */
  #check(offset: number, length: number): void {
    if (
      !Number.isSafeInteger(offset) ||
      !Number.isSafeInteger(length) ||
      offset < 0 ||
      length < 0 ||
      offset + length > this.size
    ) {
      throw new RangeError(`bytes ${offset} + ${length} are outside the device of ${this.size} bytes`);
    }
    this.#checkOpen();
  }

  #checkOpen(): void {
    if (this.#end !== undefined) throw this.#end;
    if (this.#closing !== undefined) throw new CodError('COD_CLOSED', 'the device is closed');
  }

  async #ask(make: MakeOperation): Promise<unknown> {
    this.#checkOpen();
    return this.#calls.call(make);
  }

  #take(message: Exclude<FromWorker, { kind: 'started' | 'failed' }>): void {
    switch (message.kind) {
      case 'answer':
        this.#calls.answer(message);
        break;
      case 'status':
        this.#status = message.status;
        break;
      case 'hydrated':
        if (message.error === undefined) this.#settleHydrated.resolve();
        else this.#settleHydrated.reject(fromWire(message.error));
        break;
      case 'finished':
        this.#finishWith(
          new CodError('COD_CLOSED', 'the copy is complete and its metadata removed: the device is closed'),
        );
        break;
      case 'closed':
        this.#finishWith(new CodError('COD_CLOSED', 'the device was closed'), message.error && fromWire(message.error));
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
    hold(bootLock(this.#key, welcome.bootId), { mode: 'shared', signal: this.#over.signal }).catch(() => undefined);
    this.#attached = true;
    // In this order: what is closed takes no calls any more.
    this.#calls.sendThrough(this.#keeper.port);
    if (this.#leaving) this.#keeper.port.post({ kind: 'close' });
    if (first) this.#events.onOpen();
    else if (changed) this.onRoleChange?.();
  }

  /** It is over, for the reason `end`; `failure` is what closing rejects with. */
  #finishWith(end: Error, failure: Error | undefined = this.#closing === undefined ? undefined : asFailure(end)): void {
    if (this.#end !== undefined) return;
    this.#end = end;
    this.#keeper.close();
    this.#over.abort();
    this.#calls.failAll(end);
    this.#settleHydrated.reject(end);
    this.#onClosed?.(failure);
    this.#events.onFailed(end);
  }
}

/** An end that closing was meant to bring is no failure of it. */
function asFailure(end: Error): Error | undefined {
  return end instanceof CodError && end.code === 'COD_CLOSED' ? undefined : end;
}

/** Calls `work` for pieces of `bytes`, some at a time. After a failure no further piece is begun. */
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
  // All have ended before anything is thrown: the buffer is the caller's again then.
  for (const outcome of await Promise.allSettled(Array.from({ length: PIECES_AT_ONCE }, runner))) {
    if (outcome.status === 'rejected') throw outcome.reason;
  }
}
