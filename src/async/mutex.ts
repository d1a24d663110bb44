/** Runs tasks one after another, in the order of the calls. */
export class Mutex {
  /** Settles when the last task has ended; undefined if none is running. Never rejects. */
  #tail: Promise<unknown> | undefined;

  /**
   * Runs `task` after all earlier tasks have ended, however they ended: synchronously if there are none. Returns,
   * throws or rejects as the task does. A task must not call `run` before it has returned.
   */
  run<T>(task: () => T | Promise<T>): T | Promise<T> {
    const result = this.#tail === undefined ? task() : this.#tail.then(task, task);
    if (!(result instanceof Promise)) return result;
    const tail: Promise<unknown> = result.then(
      () => this.#ended(tail),
      () => this.#ended(tail),
    );
    this.#tail = tail;
    return result;
  }

  #ended(tail: Promise<unknown>): void {
    if (this.#tail === tail) this.#tail = undefined;
  }
}
