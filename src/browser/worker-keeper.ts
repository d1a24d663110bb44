/** Keeps a worker running for a page: detects that a worker has ended, for any reason, and starts another one. */

import { CodError } from '../errors.ts';
import { released, workerLock } from './lock-names.ts';
import { type FromWorker, fromWire, type ToWorker, type WorkerOptions } from './messages.ts';
import { batchingPort, type Port, receive } from './port.ts';
import { startWorker } from './worker-start.ts';

/** A worker that has not started after this time is terminated; the next one has twice the time. */
const START_TIMEOUT_MS = 10_000;
/** Opening fails when this many workers in a row have ended before the device was open. */
const ATTEMPTS = 4;

/** What a {@link WorkerKeeper} tells its page. */
export interface KeeperEvents {
  /** Called with every other message of a device. */
  onMessage(message: Exclude<FromWorker, { kind: 'started' | 'inspected' | 'failed' }>): void;
  /** The worker has ended; the next one will send `ready`. */
  onLost(): void;
  /** The device cannot be opened, or no longer be served. */
  onFailed(error: Error): void;
}

export class WorkerKeeper {
  readonly #key: string;
  readonly #options: Omit<WorkerOptions, 'workerId'>;
  readonly #make: () => Worker;
  readonly #events: KeeperEvents;
  #port: Port<ToWorker> | undefined;
  #stop: (() => void) | undefined;
  #ended = 0;
  #closed = false;

  constructor(key: string, options: Omit<WorkerOptions, 'workerId'>, make: () => Worker, events: KeeperEvents) {
    this.#key = key;
    this.#options = options;
    this.#make = make;
    this.#events = events;
  }

  /** To the present worker; messages are dropped while there is none. */
  readonly port: Port<ToWorker> = { post: (message, transfer) => this.#port?.post(message, transfer) };

  start(): void {
    if (this.#closed) return;
    const workerId = crypto.randomUUID();
    const watch = new AbortController();
    const worker = this.#startWorker(() => !watch.signal.aborted);
    if (worker === undefined) return;
    const port = batchingPort<ToWorker>((messages, transfer) => {
      if (!watch.signal.aborted) worker.postMessage(messages, transfer);
    });
    const stop = (): void => {
      watch.abort();
      clearTimeout(timer);
      worker.terminate();
    };
    const lost = (why: string): void => {
      if (watch.signal.aborted) return;
      stop();
      this.#port = undefined;
      this.#events.onLost();
      if (++this.#ended < ATTEMPTS) this.start();
      else this.#fail(new CodError('COD_CLOSED', `the device's worker ended ${this.#ended} times: ${why}`));
    };
    const timer = setTimeout(() => lost('it did not start in time'), START_TIMEOUT_MS * 2 ** this.#ended);
    receive<FromWorker>(worker, (message) => {
      if (watch.signal.aborted) return;
      if (message.kind === 'started') {
        clearTimeout(timer);
        released(workerLock(this.#key, workerId), watch.signal).then(
          // Chromium 156 gives workers other locks than the page once the site's data was removed, until a reload.
          () => lost('it terminated without an error; reload the page if the data of its site was removed'),
          () => undefined,
        );
      } else if (message.kind === 'failed') this.#fail(fromWire(message.error));
      else if (message.kind !== 'inspected') {
        if (message.kind === 'ready') this.#ended = 0;
        this.#events.onMessage(message);
      }
    });
    this.#stop = stop;
    this.#port = port;
    port.post({ kind: 'start', options: { ...this.#options, workerId } });
  }

  #startWorker(isWanted: () => boolean): Worker | undefined {
    try {
      return startWorker(this.#make, (error) => isWanted() && this.#fail(error));
    } catch (error) {
      this.#fail(error as Error);
      return undefined;
    }
  }

  /** Terminates the worker; no event follows. */
  close(): void {
    this.#closed = true;
    this.#stop?.();
    this.#port = undefined;
  }

  #fail(error: Error): void {
    this.close();
    this.#events.onFailed(error);
  }
}
