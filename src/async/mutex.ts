/** Runs asynchronous tasks one after another, in the order in which they were asked for. */
export class Mutex {
  #tail: Promise<unknown> = Promise.resolve();
  #unfinished = 0;

  /** Whether no task is running or waiting: for what is done before anybody else can ask. */
  get isFree(): boolean {
    return this.#unfinished === 0;
  }

  /** Runs `task` after all earlier ones have ended, however they ended. */
  run<T>(task: () => Promise<T>): Promise<T> {
    this.#unfinished++;
    const result = this.#tail.then(task, task);
    const ended = (): void => {
      this.#unfinished--;
    };
    this.#tail = result.then(ended, ended);
    return result;
  }
}
