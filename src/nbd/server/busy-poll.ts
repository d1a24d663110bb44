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
 * - On a busy machine, polling uses up the process's share of the processors, and others run when a request comes. So
 *   polling rests for {@link REST_MS} after {@link BUSY_GAPS} interrupted turns within {@link BUSY_MS}.
 */

import { availableParallelism } from 'node:os';
import { nodeEventLoop } from '../../platform/node-event-loop.ts';

/** After a longer pause, waking is a negligible part of what a request waits for. */
const WINDOW_MS = 0.1;

/** A turn that takes longer was interrupted: another process ran, or this one had other work. In ms. */
const GAP_MS = 1;
/** The collection of garbage interrupts single turns, and a busy processor one each few ms. */
const BUSY_GAPS = 3;
const BUSY_MS = 100;
/** Time without polling on a busy machine. */
const REST_MS = 1000;

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
  /** When the latest poll was. */
  #polledAt = 0;
  /** Turns that were interrupted since {@link #firstGapAt}. */
  #gaps = 0;
  #firstGapAt = 0;
  /** No polling before this time. */
  #restsUntil = 0;

  constructor(loop: PollingLoop = nodeLoop) {
    this.#loop = loop;
  }

  /** To be called when the client has its replies and none of its requests is in flight. */
  answered(): void {
    if (this.#loop.processors < 2) return;
    const now = this.#loop.now();
    this.#answeredAt = now;
    if (!this.#close || this.#polling || now < this.#restsUntil) return;
    this.#polling = true;
    this.#polledAt = now;
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
    const now = this.#loop.now();
    if (now - this.#polledAt > GAP_MS) this.#interrupted(now);
    this.#polledAt = now;
    const answeredAt = this.#answeredAt;
    this.#polling = answeredAt !== undefined && now - answeredAt < WINDOW_MS && now >= this.#restsUntil;
    if (this.#polling) this.#loop.soon(this.#poll);
  };

  #interrupted(now: number): void {
    if (now - this.#firstGapAt > BUSY_MS) {
      this.#firstGapAt = now;
      this.#gaps = 0;
    }
    if (++this.#gaps < BUSY_GAPS) return;
    this.#gaps = 0;
    this.#restsUntil = now + REST_MS;
  }
}
