/** Runs asynchronous tasks one after another, in the order in which they were asked for. */
export class Mutex {
  #tail: Promise<unknown> = Promise.resolve();

  /** Runs `task` after all earlier ones have ended, however they ended. */
  run<T>(task: () => Promise<T>): Promise<T> {
    const result = this.#tail.then(task, task);
    this.#tail = result.catch(() => undefined);
    return result;
  }
}
