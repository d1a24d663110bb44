/** Retries of requests to a server: when a request has failed, when to try again, and when to give up. */

import { CodError, type CodErrorCode } from '../errors.ts';
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
  /**
   * Milliseconds without progress until a `read` gives up, even if attempts are left: it makes none that would begin
   * later. Opening and streams are not limited. Default: Infinity.
   */
  patienceMs?: number;
  /** Called for each failure that is followed by a retry, before the delay. Default: none. */
  onRetry?: (retry: RetryReport) => void;
}

/** A failed request that is tried again. */
export interface RetryReport {
  /** The code that the failure would have if it were final. */
  readonly code: CodErrorCode;
  /** What failed and why, for people. */
  readonly message: string;
  /** Number of the failure since the last progress, from 1. */
  readonly attempt: number;
  /** Milliseconds until the retry, a whole number. */
  readonly delayMs: number;
}

/** When a request counts as stalled. */
export interface StallLimits {
  /**
   * Milliseconds, or Infinity. If no byte comes for this time while one is due, the request ends, and the rest is
   * requested again over a new connection. Default: 15,000.
   */
  stallTimeoutMs?: number;
  /**
   * Bytes per second, or 0. A request also ends if fewer bytes come on average in twice {@link stallTimeoutMs}. Only
   * time in which bytes are due counts. Default: 1024.
   */
  minBytesPerSecond?: number;
}

const MAX_RETRY_AFTER_MS = 60_000;

interface PassingOptions {
  /** The delay that the server asked for in ms. */
  readonly retryAfterMs?: number | undefined;
  /** The server allows fewer requests at a time. */
  readonly isCrowded?: boolean;
  /** Bytes came, but too slowly. */
  readonly isSlow?: boolean;
  /** The error to give up with. Default: COD_SOURCE_IO. */
  readonly final?: CodError;
}

/** A failure that a retry may cure. */
export class PassingError extends Error {
  readonly options: PassingOptions;

  constructor(message: string, options: PassingOptions = {}) {
    super(message);
    this.options = options;
  }
}

/** Settings of a {@link Backoff}. */
export interface RetryPolicy extends Required<Retry> {
  readonly clock: Clock;
  readonly random: () => number;
  /** When the last progress was. Infinity: `patienceMs` does not count. */
  readonly sinceMs: number;
}

/** The retries of one source. */
export class Retries {
  readonly #retry: Retry;
  readonly #environment: { readonly clock: Clock; readonly random: () => number };
  /** As in {@link InlineSource}, called besides that of the options. */
  onRetry: ((retry: RetryReport) => void) | undefined;

  constructor(retry: Retry, environment: { readonly clock: Clock; readonly random: () => number }) {
    this.#retry = retry;
    this.#environment = environment;
  }

  /**
   * @param what the request, for messages
   * @param attempts the number of attempts if the options give none
   * @param sinceMs when the last progress was. Default: the time is not limited.
   */
  backoff(what: string, attempts: number, sinceMs: number = Number.POSITIVE_INFINITY): Backoff {
    const { attempts: given = attempts, baseDelayMs = 250, maxDelayMs = 10_000 } = this.#retry;
    return new Backoff(what, {
      attempts: given,
      baseDelayMs,
      maxDelayMs,
      patienceMs: this.#retry.patienceMs ?? Number.POSITIVE_INFINITY,
      sinceMs,
      ...this.#environment,
      onRetry: (retry) => {
        this.#retry.onRetry?.(retry);
        this.onRetry?.(retry);
      },
    });
  }
}

/**
 * Counts failures and waits between them. Delays grow exponentially, and half of each is jitter. The other half alone
 * makes the default outlast a minute.
 */
export class Backoff {
  #failures = 0;
  #final: CodError | undefined;
  readonly #what: string;
  readonly #policy: RetryPolicy;

  /** @param what the request, for messages: "GET https://…, bytes 0-4095" */
  constructor(what: string, policy: RetryPolicy) {
    this.#what = what;
    this.#policy = policy;
  }

  /**
   * Counts a failure. Resolves when it is time to try again.
   * @throws {@link CodError} `error` itself if it is a CodError, which is final; COD_SOURCE_IO or the failure's own
   *   `final` after the last attempt. The signal's reason if it is aborted.
   */
  async wait(error: unknown, signal: AbortSignal | undefined): Promise<void> {
    signal?.throwIfAborted();
    if (error instanceof CodError) throw error;
    const { attempts, baseDelayMs, maxDelayMs, patienceMs, sinceMs, clock, random, onRetry } = this.#policy;
    const { retryAfterMs = 0, final } = error instanceof PassingError ? error.options : {};
    this.#final = final ?? this.#final;
    this.#failures++;
    const message = `${this.#what}: ${reasonOf(error)}`;
    const jittered = ((1 + random()) / 2) * Math.min(maxDelayMs, baseDelayMs * 2 ** (this.#failures - 1));
    const delayMs = Math.max(jittered, Math.min(retryAfterMs, MAX_RETRY_AFTER_MS));
    if (this.#failures >= attempts || clock.now() + delayMs > sinceMs + patienceMs) {
      if (this.#final !== undefined) throw this.#final;
      const count = this.#failures === 1 ? '1 attempt' : `${this.#failures} attempts`;
      throw new CodError('COD_SOURCE_IO', `${message} (given up after ${count})`, {
        // A foreign error may show a URL with its query.
        cause: message.endsWith(rawReasonOf(error)) ? error : new Error(reasonOf(error)),
        details: { attempts: this.#failures },
      });
    }
    onRetry({ code: final?.code ?? 'COD_SOURCE_IO', message, attempt: this.#failures, delayMs: Math.round(delayMs) });
    try {
      await clock.sleep(delayMs, signal);
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

/** Describes an error with its causes. URLs in foreign messages lose their credentials and queries. */
function reasonOf(error: unknown): string {
  return rawReasonOf(error)
    .replace(/(:\/\/)[^\s/@]*@/g, '$1')
    .replace(/(:\/\/[^\s?]*\?)[^\s"')]+/g, '$1…');
}

/** `fetch` only says "fetch failed", and keeps the reason in a chain of causes. */
function rawReasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error instanceof AggregateError && error.errors.length > 0) return rawReasonOf(error.errors[0]);
  if (error.cause !== undefined) return `${error.message}: ${rawReasonOf(error.cause)}`;
  return error.message || error.name;
}
