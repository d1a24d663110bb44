/** Calls that wait for an answer, and that are sent again when another worker becomes the owner of the device. */

import {
  type Answer,
  type AnswerOf,
  buffersOf,
  type Call,
  fromWire,
  type OperationName,
  type RequestOf,
  type ToDevice,
} from './messages.ts';
import type { Port } from './port.ts';

/** A call without an answer. */
interface Pending {
  /** Builds the message, each time anew: the buffers of an earlier one were transferred. */
  readonly make: () => Call;
  readonly resolve: (value: Answer['value']) => void;
  readonly reject: (error: unknown) => void;
}

export class Calls {
  readonly #pending = new Map<number, Pending>();
  #port: Port<ToDevice> | undefined;
  #count = 0;

  /**
   * Resolves to the answer. `request` is called for each time that the call is sent; the buffers of its bytes are
   * transferred. An aborted `signal` rejects at once with its reason, and aborts the operation in the worker.
   */
  call<Name extends OperationName>(
    op: Name,
    request: () => RequestOf<Name>,
    signal?: AbortSignal,
  ): Promise<AnswerOf<Name>> {
    if (signal?.aborted) return Promise.reject(signal.reason);
    return new Promise((resolve, reject) => {
      const id = ++this.#count;
      const abort = (): void => {
        this.#port?.post({ kind: 'abort', id });
        this.#take(id)?.reject(signal?.reason);
      };
      signal?.addEventListener('abort', abort, { once: true });
      // Two casts, because a map of pending calls cannot hold the type of each: a call of one operation is one of all
      // calls, and the owner answers an operation with its own type, since `Operations` types its handlers, too.
      const pending: Pending = {
        make: () => ({ kind: 'call', id, abortable: signal !== undefined, op, request: request() }) as Call,
        resolve: (value) => {
          signal?.removeEventListener('abort', abort);
          resolve(value as AnswerOf<Name>);
        },
        reject: (error) => {
          signal?.removeEventListener('abort', abort);
          reject(error);
        },
      };
      this.#pending.set(id, pending);
      this.#send(pending);
    });
  }

  /** Sends through `port` from now on, first all unanswered calls in their order. Without a port, calls wait. */
  sendThrough(port: Port<ToDevice> | undefined): void {
    this.#port = port;
    for (const pending of this.#pending.values()) this.#send(pending);
  }

  answer({ id, value, error }: Answer): void {
    const pending = this.#take(id);
    if (error === undefined) pending?.resolve(value);
    else pending?.reject(fromWire(error));
  }

  /** Rejects all calls that are unanswered. */
  failAll(error: Error): void {
    this.#port = undefined;
    for (const id of [...this.#pending.keys()]) this.#take(id)?.reject(error);
  }

  #take(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    return pending;
  }

  #send({ make }: Pending): void {
    if (this.#port === undefined) return;
    const call = make();
    this.#port.post(call, buffersOf(call.request));
  }
}
