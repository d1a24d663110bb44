/**
 * Waits between the attempts of a device that never gives up, and tells of them.
 *
 * The delay after failure n is random within [d / 2, d], where d = min(30 s, 0.5 s × 2^(n - 1)). A success starts again
 * at n = 1.
 */

import type { EventStream } from '../async/event-stream.ts';
import { withSignal } from '../async/with-signal.ts';
import { isCodError } from '../errors.ts';
import type { Environment } from '../platform/clock.ts';
import type { InlineSource } from '../sources/source.ts';
import type { Counters } from './counters.ts';
import type { DeviceEvent } from './types.ts';

/** What a source tells of a request that it tries again. */
export type SourceRetry = Parameters<NonNullable<InlineSource['onRetry']>>[0];

/** What an event `retry` tells. */
export type Told = Omit<DeviceEvent & { type: 'retry' }, 'type'>;

const BASE_DELAY_MS = 500;
const MAX_DELAY_MS = 30_000;
/** An answer of the source ends a wait that has lasted so long. */
const MIN_WAIT_MS = 1000;
/**
 * An answer to a reader ends the trouble if no failure came for so long: the background copy may wait for its rate, or
 * may be the only one that fails. A request that fails again does so sooner: it stalls for 15 s at most.
 */
const QUIET_MS = 20_000;

export class Retries {
  readonly #environment: Environment;
  readonly #events: EventStream<DeviceEvent>;
  readonly #onChange: () => void;
  readonly #counters: Counters;
  readonly #waiting = new Set<AbortController>();
  #attempt = 0;
  #count = 0;
  #isTold = false;
  /** The last failure was one of the target: the source cannot cure it. */
  #isTargets = false;
  readonly #quietMs: number;
  #sinceMs = 0;
  #toldMs = 0;

  /**
   * @param options.isCopying whether there is a background copy
   * @param options.counters counts the failures
   * @param options.onChange called when {@link isRetrying} may have changed
   */
  constructor(
    environment: Environment,
    events: EventStream<DeviceEvent>,
    { isCopying, counters, onChange }: { isCopying: boolean; counters: Counters; onChange: () => void },
  ) {
    this.#environment = environment;
    this.#events = events;
    this.#quietMs = isCopying ? QUIET_MS : 0;
    this.#counters = counters;
    this.#onChange = onChange;
  }

  /** Failures so far. */
  get count(): number {
    return this.#count;
  }

  /** Whether an attempt has failed and none has succeeded since. */
  get isRetrying(): boolean {
    return this.#attempt > 0;
  }

  /** Tells of a failure. Resolves when it is time for the next attempt. @throws the signal's reason. */
  async wait(error: unknown, signal: AbortSignal): Promise<void> {
    const attempt = ++this.#attempt;
    this.#isTargets = isCodError(error, 'COD_NO_SPACE') || isCodError(error, 'COD_TARGET_IO');
    this.#sinceMs = this.#environment.clock.now();
    const random = new Uint8Array(1);
    this.#environment.randomBytes(random);
    const longestMs = Math.min(MAX_DELAY_MS, BASE_DELAY_MS * 2 ** (attempt - 1));
    const delayMs = Math.round((longestMs * (1 + random[0]! / 255)) / 2);
    this.#tell({ ...describe(error), attempt, delayMs });
    this.#onChange();
    const waiting = new AbortController();
    this.#waiting.add(waiting);
    try {
      const slept = this.#environment.clock.sleep(delayMs, waiting.signal).catch(() => undefined);
      await withSignal(slept, signal);
    } finally {
      waiting.abort();
      this.#waiting.delete(waiting);
    }
  }

  /** A source tries a request again by itself, or a patient reader does. */
  noted({ code, message, attempt, delayMs }: Told): void {
    this.#tell({ code, message, attempt, delayMs });
  }

  #tell(report: Told): void {
    this.#count++;
    this.#counters.failed(report.code);
    this.#isTold = true;
    this.#toldMs = this.#environment.clock.now();
    this.#events.emit({ type: 'retry', ...report });
  }

  /** The source has answered a read: ends a wait for it. Does not end a wait for the target. */
  answered(): void {
    if (!this.#isTold || this.#isTargets) return;
    const now = this.#environment.clock.now();
    if (now - this.#sinceMs >= MIN_WAIT_MS) this.wake();
    if (now - this.#toldMs >= this.#quietMs) this.succeeded();
  }

  /** Ends all waits. */
  wake(): void {
    for (const waiting of this.#waiting) waiting.abort();
  }

  /** An attempt got further. */
  succeeded(): void {
    if (!this.#isTold) return;
    this.#isTold = this.#isTargets = false;
    this.#attempt = 0;
    this.#events.emit({ type: 'recovered' });
    this.#onChange();
  }
}

/** The code and the message of an error, for an event. */
export function describe(error: unknown): { code: string; message: string } {
  const name = error instanceof Error ? error.name : 'Error';
  const message = error instanceof Error ? error.message : String(error);
  return { code: isCodError(error) ? error.code : name, message };
}
