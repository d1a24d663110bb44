/** Calls that wait for an answer, and can be sent again when whoever was to answer them is gone. */

import { fromWire, type Operation, type ToDevice, type WireError } from './messages.ts';
import type { Port } from './port.ts';

/** A call as it is sent, made anew each time: what was handed over with the last message is no longer here. */
export type MakeOperation = () => { readonly operation: Operation; readonly transfer?: Transferable[] };

interface Waiting {
  readonly make: MakeOperation;
  readonly abortable: boolean;
  settle(outcome: { value?: unknown; error?: unknown }): void;
}

export class Calls {
  readonly #waiting = new Map<number, Waiting>();
  #port: Port<ToDevice> | undefined;
  #count = 0;

  /** Resolves to the answer. An aborted `signal` rejects at once with its reason, and ends the call over there. */
  call(make: MakeOperation, signal?: AbortSignal): Promise<unknown> {
    if (signal?.aborted) return Promise.reject(signal.reason);
    return new Promise((resolve, reject) => {
      const id = ++this.#count;
      const abort = (): void => {
        this.#port?.post({ kind: 'abort', id });
        this.#waiting.get(id)?.settle({ error: signal?.reason });
      };
      signal?.addEventListener('abort', abort, { once: true });
      const settle = (outcome: { value?: unknown; error?: unknown }): void => {
        this.#waiting.delete(id);
        signal?.removeEventListener('abort', abort);
        if ('error' in outcome) reject(outcome.error);
        else resolve(outcome.value);
      };
      const waiting = { make, abortable: signal !== undefined, settle };
      this.#waiting.set(id, waiting);
      this.#send(id, waiting);
    });
  }

  /** Sends through `port` from now on, first all that are unanswered, in the order in which they were made. None: they wait. */
  sendThrough(port: Port<ToDevice> | undefined): void {
    this.#port = port;
    for (const [id, waiting] of this.#waiting) this.#send(id, waiting);
  }

  answer({ id, value, error }: { readonly id: number; readonly value?: unknown; readonly error?: WireError }): void {
    this.#waiting.get(id)?.settle(error === undefined ? { value } : { error: fromWire(error) });
  }

  /** Rejects all that wait. */
  failAll(error: Error): void {
    this.#port = undefined;
    for (const { settle } of [...this.#waiting.values()]) settle({ error });
  }

  #send(id: number, { make, abortable }: Waiting): void {
    if (this.#port === undefined) return;
    const { operation, transfer } = make();
    this.#port.post({ kind: 'call', id, abortable, operation }, transfer);
  }
}
