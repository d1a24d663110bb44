/**
 * Failures after which the state in memory or on disk is unknown. They poison the log: it refuses every later call, and
 * what is on disk stays as it is.
 */

import { CodError } from '../errors.ts';
import type { Core } from '../wasm/core.ts';

export class Poison {
  readonly #core: Core;
  readonly #onPoisoned: (error: CodError) => void;
  #error: CodError | undefined;
  /** Syncs in flight. */
  readonly #syncs = new Set<Promise<void>>();

  /** @param onPoisoned is called once. Must not throw. */
  constructor(core: Core, onPoisoned: (error: CodError) => void) {
    this.#core = core;
    this.#onPoisoned = onPoisoned;
  }

  /** The error with which every call is refused, if the log is poisoned. */
  get error(): CodError | undefined {
    // A call of another device may have failed: the memory of the core has data of this one, too.
    if (this.#error === undefined && this.#core.failure !== undefined) this.poison(this.#core.failure);
    return this.#error;
  }

  /** @throws {@link CodError} COD_POISONED if the log is poisoned. */
  refuse(): void {
    if (this.error !== undefined) throw this.error;
  }

  /** Refuses everything from now on. Returns the error for the caller to throw. */
  poison(cause: unknown): CodError {
    if (this.#error === undefined) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      const message = `unflushed writes may be lost, so every call is refused; open the copy again (${reason})`;
      this.#error = new CodError('COD_POISONED', message, { cause });
      this.#onPoisoned(this.#error);
    }
    return this.#error;
  }

  /** Runs a step that reads the maps. If it fails, memory has run out or the core has a fault. */
  async ifFailing<T>(step: () => Promise<T>): Promise<T> {
    try {
      return await step();
    } catch (error) {
      throw this.poison(error);
    }
  }

  /** Runs a task. A core that has failed refuses every later call. */
  ifCoreFails<T>(task: () => T | Promise<T>): T | Promise<T> {
    const judged = (error: unknown): never => {
      throw this.#core.failure === undefined ? error : this.poison(error);
    };
    try {
      const result = task();
      return result instanceof Promise ? result.catch(judged) : result;
    } catch (error) {
      return judged(error);
    }
  }

  /** Runs a sync. If it fails, the kernel has dropped what it could not write, so a second sync would lie. */
  async sync(task: () => Promise<void>): Promise<void> {
    this.refuse();
    const syncing = task();
    this.#syncs.add(syncing);
    try {
      await syncing;
    } catch (error) {
      throw this.poison(error);
    } finally {
      this.#syncs.delete(syncing);
    }
    // The kernel tells of a failure only one of the syncs that overlap.
    if (this.#syncs.size > 0) await Promise.allSettled(this.#syncs);
    this.refuse();
  }
}
