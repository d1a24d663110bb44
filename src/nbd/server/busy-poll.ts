/**
 * Polling for the next request of a client that will send it at once: to sleep until it comes, and to be woken, is a quarter of what a read of 4 KiB takes. QEMU's I/O
 * threads do the same (`poll-max-ns`), for a third of the time.
 *
 * Only while requests follow each other closely: one that comes later than {@link WINDOW_MS} after the answers before it ends the polling until two are close again. So a
 * client that is busy keeps a processor busy, and any other costs at most one window for each such pair. Everything else has its turn in each turn
 * of the event loop, as always.
 */

import { availableParallelism } from 'node:os';
import { nodeEventLoop } from '../../platform/node-event-loop.ts';

/** Beyond it, what a request waits for is hardly the waking. */
const WINDOW_MS = 0.1;

/** What it needs of the platform. */
export interface PollingLoop {
  /** In ms, monotonic. */
  now(): number;
  /** Makes a call in the next turn of the event loop, which does not sleep before it. */
  soon(call: () => void): void;
  /** Processors: with a single one, polling would keep it from the client. */
  readonly processors: number;
}

const nodeLoop: PollingLoop = { now: nodeEventLoop.now, soon: setImmediate, processors: availableParallelism() };

export class BusyPoll {
  readonly #loop: PollingLoop;
  /** When the client got its last answer, if nothing has come from it since. */
  #answeredAt: number | undefined;
  /** Whether its last request came within the window. */
  #close = false;
  #polling = false;

  constructor(loop: PollingLoop = nodeLoop) {
    this.#loop = loop;
  }

  /** The client has its answers, and nothing of it is in work. */
  answered(): void {
    if (this.#loop.processors < 2) return;
    this.#answeredAt = this.#loop.now();
    if (!this.#close || this.#polling) return;
    this.#polling = true;
    this.#loop.soon(this.#poll);
  }

  /** Something has come from the client. */
  received(): void {
    if (this.#answeredAt === undefined) return;
    this.#close = this.#isInWindow(this.#answeredAt);
    this.#answeredAt = undefined;
  }

  #isInWindow(answeredAt: number): boolean {
    return this.#loop.now() - answeredAt < WINDOW_MS;
  }

  readonly #poll = (): void => {
    this.#polling = this.#answeredAt !== undefined && this.#isInWindow(this.#answeredAt);
    if (this.#polling) this.#loop.soon(this.#poll);
  };
}
