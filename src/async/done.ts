/** Functions that complete now or later: one body and one type instead of a synchronous twin. */

/** Undefined: done before the call returned. A promise: done when it resolves. Such a function throws or rejects. */
export type Done = Promise<void> | undefined;

/**
 * Called exactly once, with the error if the operation failed, perhaps before the call that took it returns. It must
 * not throw.
 */
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

/** A value now, or a promise of it. */
export type MaybePromise<T> = T | Promise<T>;

/** Passes a value on to `next`, synchronously if it is there. */
export function after<T, R>(value: MaybePromise<T>, next: (value: T) => MaybePromise<R>): MaybePromise<R> {
  return value instanceof Promise ? value.then(next) : next(value);
}

/** Runs `task`, and `cleanup` when it has ended, however it ended. */
export function ending<T>(task: () => MaybePromise<T>, cleanup: () => void): MaybePromise<T> {
  let result: MaybePromise<T>;
  try {
    result = task();
  } catch (error) {
    cleanup();
    throw error;
  }
  if (result instanceof Promise) return result.finally(cleanup);
  cleanup();
  return result;
}

/** Reports how `task` ends. */
export function reporting(task: () => Done, settled: Settled): void {
  let result: Done;
  try {
    result = task();
  } catch (error) {
    settled(error);
    return;
  }
  if (result === undefined) settled();
  else result.then(() => settled(), settled);
}

/** Runs the steps of a generator one after another, synchronously as long as each step is. */
export function inSequence(steps: Iterator<Done>): Done {
  for (;;) {
    const { done, value } = steps.next();
    if (done) return undefined;
    if (value !== undefined) return continued(value, steps);
  }
}

async function continued(first: Promise<void>, steps: Iterator<Done>): Promise<void> {
  await first;
  for (let step = steps.next(); !step.done; step = steps.next()) await step.value;
}

/** Runs all tasks side by side. Ends when all of them have ended; fails with the first error. */
export function together(tasks: readonly (() => Done)[]): Done {
  const pending: Promise<void>[] = [];
  let failure: { error: unknown } | undefined;
  for (const task of tasks) {
    try {
      const done = task();
      if (done !== undefined) pending.push(done);
    } catch (error) {
      failure ??= { error };
    }
  }
  if (pending.length > 0) return allEnded(pending, failure);
  if (failure !== undefined) throw failure.error;
  return undefined;
}

async function allEnded(pending: readonly Promise<void>[], failure: { error: unknown } | undefined): Promise<void> {
  for (const outcome of await Promise.allSettled(pending)) {
    if (outcome.status === 'rejected') failure ??= { error: outcome.reason };
  }
  if (failure !== undefined) throw failure.error;
}

/**
 * Runs a step right after a check, such as that of a lock. The process may have been suspended before, and again while
 * it waited for the check, so it checks again then.
 */
export function rightAfter(check: () => Done, step: () => Done): Done {
  const checked = check();
  return checked === undefined ? step() : checked.then(() => after(check(), step));
}
