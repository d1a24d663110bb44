/** Functions that complete now or later: one body and one type instead of a synchronous twin. */

/** Undefined: done before the call returned. A promise: done when it resolves. Such a function throws or rejects. */
export type Done = Promise<void> | undefined;

/** Called exactly once, with the error if the operation failed, perhaps before the call that took it returns. It must not throw. */
export type Settled = (error?: unknown) => void;

/** A promise that is settled from outside. Its rejection is never unhandled. */
export class Deferred<T> {
  readonly promise: Promise<T>;
  resolve!: (value: T) => void;
  reject!: (error: unknown) => void;

  constructor() {
    this.promise = new Promise<T>((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    this.promise.catch(() => undefined);
  }
}

/** Runs `operation` with a {@link Settled} and returns its outcome as a promise. */
export function promised(operation: (settled: Settled) => void): Promise<void> {
  return new Promise((resolve, reject) => operation((error) => (error === undefined ? resolve() : reject(error))));
}
