/**
 * Polls for the next request of a client that sends requests in quick succession.
 *
 * Sleeping until a request comes and being woken takes a quarter of the time of a 4 KiB read. QEMU's I/O threads poll
 * too (`poll-max-ns`), for a third of {@link WINDOW_MS}.
 *
 * - Polling starts when a request has come within {@link WINDOW_MS} of the replies before it.
 * - A request that comes later ends the polling, until two requests are close again.
 * - A busy client therefore keeps one processor busy. Any other client costs at most one window for each pair of close
 *   requests.
 * - Each poll is one turn of the event loop, so other work gets its turn as always.
 */

import { availableParallelism } from 'node:os';
import { nodeEventLoop } from '../../platform/node-event-loop.ts';

/** After a longer pause, waking is a negligible part of what a request waits for. */
const WINDOW_MS = 0.1;

/** What polling needs of the platform. */
export interface PollingLoop {
  /** Monotonic time in ms. */
  now(): number;
  /** Calls `call` in the next turn of the event loop, which does not sleep before it. */
  soon(call: () => void): void;
  /** The number of processors. With a single one, polling would keep it from the client. */
  readonly processors: number;
}

const nodeLoop: PollingLoop = { now: nodeEventLoop.now, soon: setImmediate, processors: availableParallelism() };

export class BusyPoll {
  readonly #loop: PollingLoop;
  /** When the client got its latest reply. Undefined once bytes have come from it. */
  #answeredAt: number | undefined;
  /** Whether the latest request came within the window. */
  #close = false;
  #polling = false;

  constructor(loop: PollingLoop = nodeLoop) {
    this.#loop = loop;
  }

  /** To be called when the client has its replies and none of its requests is in flight. */
  answered(): void {
    if (this.#loop.processors < 2) return;
    this.#answeredAt = this.#loop.now();
    if (!this.#close || this.#polling) return;
    this.#polling = true;
    this.#loop.soon(this.#poll);
  }

  /** To be called when bytes have come from the client. */
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
