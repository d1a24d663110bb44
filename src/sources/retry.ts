/** When to ask a server again, and when to give up. */

import { CodError } from '../errors.ts';
import type { Clock } from '../platform/clock.ts';

export interface Retry {
  /** Requests without progress until it is given up. Default: 5 while opening, then 20, which outlasts a minute. */
  attempts?: number;
  /** The first delay is random between half of this and this, each further one between the double. Default 250. */
  baseDelayMs?: number;
  /** No delay is longer. Default 10,000; a server's Retry-After may make it longer, up to MAX_RETRY_AFTER_MS. */
  maxDelayMs?: number;
}

const MAX_RETRY_AFTER_MS = 60_000;

/** A failure that may pass. */
export class PassingError extends Error {
  /** What the server asked for. */
  readonly retryAfterMs: number;

  constructor(message: string, options: { retryAfterMs?: number | undefined } = {}) {
    super(message);
    this.retryAfterMs = options.retryAfterMs ?? 0;
  }
}

/** Counts failures; exponential delays between them, of which half is jitter, so that the default outlasts a minute whatever it is. */
export class Backoff {
  #failures = 0;
  readonly #what: string;
  readonly #policy: Required<Retry> & { clock: Clock; random: () => number };

  /** `what` is being asked for: "GET https://…, bytes 0-4095". */
  constructor(what: string, policy: Required<Retry> & { clock: Clock; random: () => number }) {
    this.#what = what;
    this.#policy = policy;
  }

  /** Resolves when it is time to try again. A CodError is final and rethrown; the last attempt's error becomes COD_SOURCE_IO. */
  async wait(error: unknown, signal: AbortSignal | undefined): Promise<void> {
    signal?.throwIfAborted();
    if (error instanceof CodError) throw error;
    const { attempts, baseDelayMs, maxDelayMs, clock, random } = this.#policy;
    this.#failures++;
    if (this.#failures >= attempts) {
      const message = `${this.#what}: ${reasonOf(error)} (given up after ${this.#failures} ${this.#failures === 1 ? 'attempt' : 'attempts'})`;
      throw new CodError('COD_SOURCE_IO', message, { cause: error, details: { attempts: this.#failures } });
    }
    const jittered = ((1 + random()) / 2) * Math.min(maxDelayMs, baseDelayMs * 2 ** (this.#failures - 1));
    const asked = error instanceof PassingError ? Math.min(error.retryAfterMs, MAX_RETRY_AFTER_MS) : 0;
    try {
      await clock.sleep(Math.max(jittered, asked), signal);
    } catch (cause) {
      signal?.throwIfAborted();
      throw cause;
    }
    signal?.throwIfAborted();
  }
}

/** Retry-After in ms: seconds, or a date (RFC 9110, section 10.2.3). */
export function retryAfterMs(value: string | undefined): number | undefined {
  if (value === undefined) return undefined;
  if (/^\d+$/.test(value)) return Number(value) * 1000;
  const date = Date.parse(value);
  return Number.isNaN(date) ? undefined : Math.max(0, date - Date.now());
}

/** fetch says only "fetch failed" and keeps the reason in a chain of causes. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error instanceof AggregateError && error.errors.length > 0) return reasonOf(error.errors[0]);
  if (error.cause !== undefined) return `${error.message}: ${reasonOf(error.cause)}`;
  return error.message || error.name;
}
