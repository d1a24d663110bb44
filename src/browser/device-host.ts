/**
 * The owner's side of a device: runs the calls of its own page and of the workers of other tabs, and keeps all of them
 * informed of the status, the events and the completion.
 */

import type { InlineDevice } from '../device/types.ts';
import { isCodError } from '../errors.ts';
import {
  type AnswerOf,
  buffersOf,
  type Call,
  type FromDevice,
  type OperationName,
  type RequestOf,
  type ToDevice,
  toWire,
  type WireError,
} from './messages.ts';
import type { Port } from './port.ts';

const STATUS_INTERVAL_MS = 200;

/** The place of one client. */
export interface Seat {
  take(message: ToDevice): void;
  /** Aborts the client's calls and sends nothing more to it. */
  leave(): void;
}

/** Runs each operation: returns the answer, or a promise of it if the operation does not complete synchronously. */
type Handlers = {
  readonly [Name in OperationName]: (
    request: RequestOf<Name>,
    signal: AbortSignal | undefined,
  ) => AnswerOf<Name> | Promise<AnswerOf<Name>>;
};

function handlersOf(device: InlineDevice): Handlers {
  return {
    read: ({ offset, length }, signal) => {
      const bytes = new Uint8Array(length);
      const done = device.submitRead(bytes, offset, signal);
      return done === undefined ? bytes : done.then(() => bytes);
    },
    write: ({ bytes, offset, fua }) => device.write(bytes, offset, { fua }),
    discard: ({ offset, length }) => device.discard(offset, length),
    writeZeroes: ({ offset, length }) => device.writeZeroes(offset, length),
    hydrateRange: ({ offset, length }, signal) =>
      device.hydrateRange(offset, length, signal === undefined ? {} : { signal }),
    extents: ({ offset, length, limit }) => device.extents(offset, length, limit),
    flush: () => device.flush(),
    checkpoint: () => device.checkpoint(),
    snapshot: ({ to }) => device.snapshot(to),
    finish: () => device.finish(),
    status: () => device.status(),
    setRate: ({ bytesPerSecond }) => device.setRate(bytesPerSecond),
    pause: () => device.pause(),
    resume: () => device.resume(),
    countSynced: ({ start, end, parts }) => device.countBlocks(start, end, parts).synced,
    countDirty: ({ start, end, parts }) => device.countBlocks(start, end, parts).dirty,
  };
}

export class DeviceHost {
  readonly #device: InlineDevice;
  readonly #handlers: Handlers;
  readonly #ports = new Set<Port<FromDevice>>();
  readonly #timer: ReturnType<typeof setInterval>;
  readonly #onFinished: () => void;
  #hydrated: { error?: WireError } | undefined;
  #lastStatus = '';
  #closing = false;

  /** `onFinished` is called when a client has finished the device, which is then closed. */
  constructor(device: InlineDevice, onFinished: () => void) {
    this.#device = device;
    this.#handlers = handlersOf(device);
    this.#onFinished = onFinished;
    this.#timer = setInterval(() => this.#tellStatus(), STATUS_INTERVAL_MS);
    device.hydrated.then(
      () => this.#tellHydrated({}),
      (error: unknown) => {
        if (!this.#closing) this.#tellHydrated({ error: toWire(error) });
      },
    );
    void this.#tellEvents();
  }

  /**
   * Serves the client behind `port`. A guest's calls that are unanswered when the device is closed get no answer: the
   * guest sends them to the next owner.
   */
  serve(port: Port<FromDevice>, options: { guest: boolean }): Seat {
    const running = new Map<number, AbortController>();
    this.#ports.add(port);
    if (this.#hydrated !== undefined) port.post({ kind: 'hydrated', ...this.#hydrated });

    const run = (call: Call): void => {
      const { id } = call;
      const aborter = call.abortable ? new AbortController() : undefined;
      if (aborter !== undefined) running.set(id, aborter);
      const answer = (value: AnswerOf<OperationName>): void => {
        running.delete(id);
        if (this.#ports.has(port)) port.post({ kind: 'answer', id, value }, buffersOf(value));
        if (call.op === 'finish') this.#finished();
      };
      const fail = (error: unknown): void => {
        running.delete(id);
        if (options.guest && this.#closing && isCodError(error, 'COD_CLOSED')) return;
        if (this.#ports.has(port)) port.post({ kind: 'answer', id, error: toWire(error) });
      };
      try {
        const value = this.#run(call, aborter?.signal);
        if (value instanceof Promise) value.then(answer, fail);
        else answer(value);
      } catch (error) {
        fail(error);
      }
    };
    return {
      take: (message) => {
        if (message.kind === 'abort') running.get(message.id)?.abort();
        else if (!this.#closing) run(message);
      },
      leave: () => {
        this.#ports.delete(port);
        for (const aborter of running.values()) aborter.abort();
      },
    };
  }

  /** Closes the device; earlier calls are answered. */
  async close(): Promise<void> {
    this.#closing = true;
    clearInterval(this.#timer);
    await this.#device.close();
  }

  #run<Name extends OperationName>(
    { op, request }: Call<Name>,
    signal: AbortSignal | undefined,
  ): AnswerOf<Name> | Promise<AnswerOf<Name>> {
    return this.#handlers[op](request, signal);
  }

  #finished(): void {
    this.#closing = true;
    clearInterval(this.#timer);
    this.#tell({ kind: 'finished' });
    this.#onFinished();
  }

  #tellStatus(): void {
    const status = this.#device.status();
    const text = JSON.stringify(status);
    if (text === this.#lastStatus) return;
    this.#lastStatus = text;
    this.#tell({ kind: 'status', status });
  }

  #tellHydrated(outcome: { error?: WireError }): void {
    this.#hydrated = outcome;
    this.#tellStatus();
    this.#tell({ kind: 'hydrated', ...outcome });
  }

  /** Passes on the device's events until it is closed. */
  async #tellEvents(): Promise<void> {
    for await (const event of this.#device.events()) {
      if (event.type === 'state') {
        // Only a page knows whether its own device is closed: after this owner another worker may serve it.
        if (event.state === 'closed') continue;
        // A page that hears of a new state finds it in its status, too.
        this.#tellStatus();
      }
      this.#tell({ kind: 'event', event });
      if (event.type === 'state' && event.state === 'poisoned')
        this.#device.flush().catch((error: unknown) => this.#tell({ kind: 'poisoned', error: toWire(error) }));
    }
  }

  #tell(message: FromDevice): void {
    for (const port of this.#ports) port.post(message);
  }
}
