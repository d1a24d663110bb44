/** Keeps a worker running for a page: notices when it is gone, for whatever reason, and starts another. */

import { CodError } from '../errors.ts';
import { released, workerLock } from './lock-names.ts';
import { type FromWorker, fromWire, type ToWorker, type WorkerOptions } from './messages.ts';
import { batchingPort, type Port, receive } from './port.ts';

/** A worker that has not begun by then is given up; the next one has twice as long. */
const START_TIMEOUT_MS = 10_000;
/** So many workers in a row may end before the device is open. */
const ATTEMPTS = 4;

/** What the page hears of. */
export interface KeeperEvents {
  /** All but `started` and `failed`. */
  onMessage(message: Exclude<FromWorker, { kind: 'started' | 'failed' }>): void;
  /** The worker is gone; another will say `ready`. */
  onLost(): void;
  /** There is no device, and there will be none. */
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

  /** To the worker of the moment; lost if there is none. */
  readonly port: Port<ToWorker> = { post: (message, transfer) => this.#port?.post(message, transfer) };

  start(): void {
    if (this.#closed) return;
    const workerId = crypto.randomUUID();
    const watch = new AbortController();
    const worker = this.#make();
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
      else this.#fail(new CodError('COD_CLOSED', `the worker that has the device ended ${this.#ended} times: ${why}`));
    };
    const timer = setTimeout(() => lost('it did not start in time'), START_TIMEOUT_MS * 2 ** this.#ended);
    let started = false;
    worker.addEventListener('error', (event) => {
      if (started || watch.signal.aborted) return;
      event.preventDefault();
      stop();
      const why = event.message
        ? `: ${event.message}`
        : '; is it served, and does the Content-Security-Policy let it run?';
      this.#fail(new CodError('COD_NOT_FOUND', `the device's worker cannot be started${why}`));
    });
    receive<FromWorker>(worker, (message) => {
      if (watch.signal.aborted) return;
      if (message.kind === 'started') {
        started = true;
        clearTimeout(timer);
        released(workerLock(this.#key, workerId), watch.signal).then(
          () => lost('nobody says why'),
          () => undefined,
        );
      } else if (message.kind === 'failed') this.#fail(fromWire(message.error));
      else {
        if (message.kind === 'ready') this.#ended = 0;
        this.#events.onMessage(message);
      }
    });
    this.#stop = stop;
    this.#port = port;
    port.post({ kind: 'start', options: { ...this.#options, workerId } });
  }

  /** Ends the worker; nothing is heard any more. */
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
