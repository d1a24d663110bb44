/** Retries of requests to a server: when to try again, and when to give up. */

import { CodError } from '../errors.ts';
import type { Clock } from '../platform/clock.ts';

/**
 * How failed requests are retried. The delay before retry *n* is random within `[d / 2, d]`, where
 * `d = min(maxDelayMs, baseDelayMs × 2^(n - 1))`.
 */
export interface Retry {
  /**
   * Requests without progress until the source gives up, 1 or more. Default: 5 while opening, then 20, which outlasts a
   * minute.
   */
  attempts?: number;
  /** The longest first delay in milliseconds. Default: 250. */
  baseDelayMs?: number;
  /**
   * The longest delay in milliseconds. A server's Retry-After may exceed it, up to 60,000 (RFC 9110, section 10.2.3).
   * Default: 10,000.
   */
  maxDelayMs?: number;
}

const MAX_RETRY_AFTER_MS = 60_000;

/** A failure that a retry may cure. */
export class PassingError extends Error {
  /** The delay that the server asked for; 0 if it did not. */
  readonly retryAfterMs: number;

  constructor(message: string, options: { retryAfterMs?: number | undefined } = {}) {
    super(message);
    this.retryAfterMs = options.retryAfterMs ?? 0;
  }
}

/**
 * Counts failures and waits between them. Delays grow exponentially, and half of each is jitter. The other half alone
 * makes the default outlast a minute.
 */
export class Backoff {
  #failures = 0;
  readonly #what: string;
  readonly #policy: Required<Retry> & { clock: Clock; random: () => number };

  /** @param what the request, for messages: "GET https://…, bytes 0-4095" */
  constructor(what: string, policy: Required<Retry> & { clock: Clock; random: () => number }) {
    this.#what = what;
    this.#policy = policy;
  }

  /**
   * Counts a failure. Resolves when it is time to try again.
   * @throws {@link CodError} `error` itself if it is a CodError, which is final; COD_SOURCE_IO after the last attempt.
   *   The signal's reason if it is aborted.
   */
  async wait(error: unknown, signal: AbortSignal | undefined): Promise<void> {
    signal?.throwIfAborted();
    if (error instanceof CodError) throw error;
    const { attempts, baseDelayMs, maxDelayMs, clock, random } = this.#policy;
    this.#failures++;
    if (this.#failures >= attempts) {
      const count = this.#failures === 1 ? '1 attempt' : `${this.#failures} attempts`;
      const message = `${this.#what}: ${reasonOf(error)} (given up after ${count})`;
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

/**
 * Returns the delay that a Retry-After header asks for, in ms. Its value is seconds or a date (RFC 9110, section
 * 10.2.3).
 */
export function retryAfterMs(value: string | undefined): number | undefined {
  if (value === undefined) return undefined;
  if (/^\d+$/.test(value)) return Number(value) * 1000;
  const date = Date.parse(value);
  return Number.isNaN(date) ? undefined : Math.max(0, date - Date.now());
}

/** Describes an error with its causes: `fetch` only says "fetch failed", and keeps the reason in a chain of causes. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error instanceof AggregateError && error.errors.length > 0) return reasonOf(error.errors[0]);
  if (error.cause !== undefined) return `${error.message}: ${reasonOf(error.cause)}`;
  return error.message || error.name;
}
