/**
 * The worker of one page. It owns the device, or passes the page's calls on to the owner, a worker of another tab, and
 * may become the owner when that worker has ended.
 *
 * Invariants:
 * - The owner holds the device's lock from before it opens the device until after it has closed it.
 * - Calls are dropped while there is no owner: the page sends its unanswered calls again at the next `ready`.
 */

import { openDeviceIn } from '../device/open.ts';
import type { InlineDevice } from '../device/types.ts';
import { CodError } from '../errors.ts';
import { opfsDirectory, opfsFileSystem } from '../fs/opfs.ts';
import { systemEnvironment } from '../platform/environment.ts';
import { DeviceHost, type Seat } from './device-host.ts';
import { deviceLock, guestChannel, hold, keyOf, released, workerLock } from './lock-names.ts';
import {
  type DeviceOwner,
  type FromDevice,
  type FromWorker,
  fromWire,
  type KnownSource,
  type ToDevice,
  type ToGuest,
  type ToWorker,
  type ToWorkers,
  toWire,
  type Welcome,
  type WorkerOptions,
} from './messages.ts';
import { batchingPort, type Port, receive } from './port.ts';
import { type ImageFormat, openSource, type SourceDescription } from './source-description.ts';

/** A tab that does not share waits this long for the owner's address, and is then refused without it. */
const INTRODUCTION_MS = 2000;
/** A tab that shares compares its source with the owner's, if its server answers within this time. */
const COMPARISON_MS = 5000;

/** The used part of a dedicated worker's global scope. */
export interface WorkerScope extends Pick<EventTarget, 'addEventListener'> {
  postMessage(message: unknown, transfer: Transferable[]): void;
}

/** Starts to listen to the page; the worker's file calls it once. */
export function runDeviceWorker(scope: WorkerScope): void {
  const page = batchingPort<FromWorker>((messages, transfer) => scope.postMessage(messages, transfer));
  let worker: DeviceWorker | undefined;
  receive<ToWorker>(scope, (message) => {
    if (message.kind === 'start') {
      worker = new DeviceWorker(page, message.options);
      void worker.run();
    } else if (message.kind === 'inspect') void inspect(page, message.source, message.format);
    else worker?.take(message);
  });
}

async function inspectSource(description: SourceDescription, format: ImageFormat | undefined): Promise<KnownSource> {
  const source = await openSource(description, format);
  const { size, identity } = source;
  await source.close();
  return { size, identity };
}

/** Tells the page what a source is. */
async function inspect(
  page: Port<FromWorker>,
  description: SourceDescription,
  format: ImageFormat | undefined,
): Promise<void> {
  try {
    page.post({ kind: 'inspected', inspection: await inspectSource(description, format) });
  } catch (error) {
    page.post({ kind: 'failed', error: toWire(error) });
  }
}

class DeviceWorker {
  readonly #page: Port<FromWorker>;
  readonly #options: WorkerOptions;
  readonly #key: string;
  readonly #owner: DeviceOwner;
  readonly #everybody: BroadcastChannel;
  readonly #fromOwner: BroadcastChannel;
  readonly #toOwner: Port<ToDevice>;
  readonly #guests = new Map<string, { channel: BroadcastChannel; seat: Seat }>();
  /** Ends the wait for the device's lock, or releases the lock. */
  readonly #done = new AbortController();
  #known: Promise<KnownSource | undefined> | undefined;
  /** Runs the page's calls, here or in the owner's worker; undefined while there is no owner. */
  #serve: ((message: ToDevice) => void) | undefined;
  /** This worker holds the device's lock. */
  #held = false;
  #host: { readonly host: DeviceHost; readonly welcome: () => Welcome; readonly device: InlineDevice } | undefined;
  #closing: Promise<void> | undefined;

  constructor(page: Port<FromWorker>, options: WorkerOptions) {
    this.#page = page;
    this.#options = options;
    this.#key = keyOf(options);
    this.#owner = { page: options.page, since: Date.now() };
    this.#everybody = new BroadcastChannel(this.#key);
    this.#fromOwner = new BroadcastChannel(guestChannel(this.#key, options.workerId));
    this.#toOwner = batchingPort((messages) => this.#fromOwner.postMessage(messages));
  }

  take(message: ToDevice | { kind: 'close' }): void {
    if (message.kind === 'close') this.#closing ??= this.#close();
    else this.#serve?.(message);
  }

  /** Opens the device, or joins its owner. Never rejects: the page gets `failed`. */
  async run(): Promise<void> {
    try {
      await hold(workerLock(this.#key, this.#options.workerId));
      this.#page.post({ kind: 'started' });
      receive<ToWorkers>(this.#everybody, (message) => this.#takeFromWorkers(message));
      receive<ToGuest>(this.#fromOwner, (message) => this.#takeFromOwner(message));
      if (await this.#tryLock()) return await this.#own();
      await this.#hello();
      if (this.#options.tabs === 'refuse') setTimeout(() => this.#refuse(undefined), INTRODUCTION_MS);
      await navigator.locks.request(deviceLock(this.#key), { signal: this.#done.signal }, () => this.#own());
    } catch (error) {
      if (!this.#done.signal.aborted) this.#fail(error);
    }
  }

  /** Takes the device's lock if it is free, and holds it until this worker ends. Resolves to whether it did. */
  #tryLock(): Promise<boolean> {
    return new Promise((resolve, reject) => {
      const held = (lock: Lock | null): Promise<void> | undefined => {
        resolve(lock !== null);
        return lock === null ? undefined : this.#whileGoingOn();
      };
      navigator.locks.request(deviceLock(this.#key), { ifAvailable: true }, held).catch(reject);
    });
  }

  #whileGoingOn(): Promise<void> {
    const { signal } = this.#done;
    return signal.aborted
      ? Promise.resolve()
      : new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
  }

  /** Opens the device and serves it until this worker ends. The caller holds the lock. */
  async #own(): Promise<void> {
    this.#held = true;
    this.#serve = undefined;
    const { source, format, target, directory, sameSource = false } = this.#options;
    const { hydrate, blockSize, checkpointIntervalMs } = this.#options;
    const device = await openDeviceIn(systemEnvironment, {
      source: source && (() => openSource(source, format)),
      sameSource,
      fileSystem: opfsFileSystem(await opfsDirectory(directory)),
      target,
      ...(hydrate === undefined ? {} : { hydrate }),
      ...(blockSize === undefined ? {} : { blockSize }),
      ...(checkpointIntervalMs === undefined ? {} : { checkpointIntervalMs }),
    });
    const host = new DeviceHost(device, () => this.#end());
    const { size } = device;
    const welcome = (): Welcome => ({
      size,
      blockSize: device.blockSize,
      status: device.status(),
      owner: this.#owner,
    });
    this.#host = { host, welcome, device };
    this.#page.post({ kind: 'ready', role: 'owner', welcome: welcome() });
    const seat = host.serve(this.#page, { guest: false });
    this.#serve = (message) => seat.take(message);
    this.#everybody.postMessage([{ kind: 'announce' } satisfies ToWorkers]);
    await this.#whileGoingOn();
  }

  #takeFromWorkers(message: ToWorkers): void {
    if (message.kind === 'announce') {
      if (!this.#held) void this.#hello();
    } else if (this.#held) this.#greet(message);
  }

  async #hello(): Promise<void> {
    this.#known ??= this.#askSource();
    const source = await this.#known;
    const hello: ToWorkers = { kind: 'hello', workerId: this.#options.workerId, source };
    if (!this.#held && !this.#done.signal.aborted) this.#everybody.postMessage([hello]);
  }

  /** What this tab's source is. Undefined: not known, or of no interest. */
  async #askSource(): Promise<KnownSource | undefined> {
    const { source, format, tabs, sameSource } = this.#options;
    if (source === undefined || sameSource || tabs === 'refuse') return undefined;
    const late = new Promise<undefined>((resolve) => setTimeout(resolve, COMPARISON_MS));
    return Promise.race([inspectSource(source, format).catch(() => undefined), late]);
  }

  /** Answers the worker of another tab, and serves it from now on unless it is refused. */
  #greet({ workerId, source }: ToWorkers & { kind: 'hello' }): void {
    if (this.#guests.has(workerId) || this.#closing !== undefined) return;
    const channel = new BroadcastChannel(guestChannel(this.#key, workerId));
    const port = batchingPort<ToGuest>((messages) => channel.postMessage(messages));
    const refusal = source && this.#differs(source);
    if (refusal !== undefined || this.#host === undefined) {
      port.post(
        refusal === undefined ? { kind: 'opening', owner: this.#owner } : { kind: 'refused', error: toWire(refusal) },
      );
      setTimeout(() => channel.close());
      return;
    }
    const { host, welcome } = this.#host;
    port.post({ kind: 'welcome', welcome: welcome() });
    const seat = host.serve(port as Port<FromDevice>, { guest: true });
    receive<ToDevice>(channel, (message) => seat.take(message));
    this.#guests.set(workerId, { channel, seat });
    released(workerLock(this.#key, workerId), this.#done.signal).then(
      () => {
        seat.leave();
        this.#guests.delete(workerId);
        setTimeout(() => channel.close());
      },
      () => undefined,
    );
  }

  /** The reason why a tab with such a source cannot share this device. */
  #differs({ size, identity }: KnownSource): CodError | undefined {
    const { target } = this.#options;
    if (this.#host === undefined) return undefined;
    const own = this.#host.device;
    if (size !== own.size)
      return new CodError(
        'COD_SIZE_MISMATCH',
        `${target} is open in another tab with ${own.size} bytes, but this source has ${size}: use the same source`,
      );
    if (identity === own.identity) return undefined;
    return new CodError(
      'COD_SOURCE_CHANGED',
      `${target} is open in another tab as ${own.identity}, but this source is ${identity}: use the same source`,
    );
  }

  #takeFromOwner(message: ToGuest): void {
    // This worker may have the lock of an owner that was poisoned before it hears that.
    if (this.#held && message.kind !== 'poisoned') return;
    if (message.kind === 'welcome') {
      if (this.#options.tabs === 'refuse') this.#refuse(message.welcome.owner);
      else {
        this.#serve = (call) => this.#toOwner.post(call);
        this.#page.post({ kind: 'ready', role: 'guest', welcome: message.welcome });
      }
    } else if (message.kind === 'opening') {
      if (this.#options.tabs === 'refuse') this.#refuse(message.owner);
    } else if (message.kind === 'refused') this.#fail(fromWire(message.error));
    else {
      this.#page.post(message);
      if (message.kind === 'finished') this.#end();
    }
  }

  #refuse(owner: DeviceOwner | undefined): void {
    if (this.#held || this.#done.signal.aborted) return;
    const who = owner === undefined ? 'another tab' : `the tab at ${owner.page}`;
    this.#fail(
      new CodError('COD_LOCKED', `${this.#options.target} is open in ${who}: close it there`, {
        details: { ...owner },
      }),
    );
  }

  #fail(error: unknown): void {
    this.#end();
    this.#page.post({ kind: 'failed', error: toWire(error) });
  }

  async #close(): Promise<void> {
    let outcome: FromWorker & { kind: 'closed' } = { kind: 'closed' };
    try {
      await this.#host?.host.close();
    } catch (error) {
      outcome = { kind: 'closed', error: toWire(error) };
    }
    // A task later, since a closed channel drops messages that the port has not posted yet.
    setTimeout(() => {
      this.#end();
      this.#page.post(outcome);
    });
  }

  /** Releases the device's lock and closes the channels. */
  #end(): void {
    this.#serve = undefined;
    this.#done.abort();
    setTimeout(() => {
      for (const { channel } of this.#guests.values()) channel.close();
      this.#everybody.close();
      this.#fromOwner.close();
    });
  }
}
