/** A timer that runs a task once, some time after it was started. */

import { CodError } from '../errors.ts';
import type { Clock } from '../platform/clock.ts';

export class Timer {
  readonly #clock: Clock;
  readonly #milliseconds: number;
  readonly #task: () => void;
  #running: AbortController | undefined;

  constructor(clock: Clock, milliseconds: number, task: () => void) {
    this.#clock = clock;
    this.#milliseconds = milliseconds;
    this.#task = task;
  }

  /** Starts the timer, unless it runs. */
  start(): void {
    if (this.#running !== undefined) return;
    const running = new AbortController();
    this.#running = running;
    this.#clock.sleep(this.#milliseconds, running.signal).then(
      () => {
        this.#running = undefined;
        this.#task();
      },
      () => undefined,
    );
  }

  stop(): void {
    this.#running?.abort(new CodError('COD_CLOSED', 'the timer is no longer needed'));
    this.#running = undefined;
  }
}
