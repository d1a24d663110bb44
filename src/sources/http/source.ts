/** A source over HTTP range requests. Every response is checked. A download that breaks resumes where it broke. */

import { platformTransport } from '#http-transport';
import { CodError, isCodError } from '../../errors.ts';
import type { Clock } from '../../platform/clock.ts';
import { systemClock } from '../../platform/system-clock.ts';
import { checkRange } from '../range.ts';
import { Backoff, PassingError, type Retry } from '../retry.ts';
import type { InlineSource, InternalStreamOptions, Source } from '../source.ts';
import { StallWatch } from '../stall-watch.ts';
import { Asked, checkAnswer, type Known, readOpening } from './answer.ts';
import { HttpLocation } from './location.ts';
import type { HttpResponse, HttpTransport } from './transport.ts';

/** Options of {@link httpSource}. */
export interface HttpSourceOptions {
  /**
   * Sent with each request to the URL's own origin only. In a browser, most headers cost a preflight. The source itself
   * sets `range` and the headers of the connection; they are refused here. Default: none.
   */
  headers?: Record<string, string>;
  /**
   * User of Basic authentication (RFC 7617). Never sent to another origin, never shown in a message. Default: the
   * user in the URL.
   */
  username?: string;
  /** Password of Basic authentication, treated as {@link username}. Default: the password in the URL. */
  password?: string;
  /**
   * Accepts a server without ranges. Each read and stream then downloads the body up to the end of its range, and skips
   * the bytes before its offset. Intended for one stream from offset 0: a read far into the body downloads everything
   * before it. Default: false.
   */
  allowWholeBody?: boolean;
  /** Retries of failed requests. */
  retry?: Retry;
  /**
   * Milliseconds, or Infinity. If no byte comes for this time while one is due, the request is ended and the rest is
   * requested again. Default: 15,000.
   */
  stallTimeoutMs?: number;
  /** Aborts opening; has no effect on the opened source. */
  signal?: AbortSignal;
  /** Default: the machine's clock. */
  clock?: Clock;
  /** Returns a number in [0, 1), for the jitter of delays. Default: `Math.random`. */
  random?: () => number;
  /**
   * Sends the requests. The source closes it. Default: the fastest of the platform, which is undici in Node and `fetch`
   * elsewhere.
   */
  transport?: HttpTransport;
}

const ATTEMPTS_OPENING = 5;
const ATTEMPTS = 20;
/** Aborts whatever is left of a request that is done. Shared, since each new error costs a stack trace. */
const ENDED = new Error('the request is done');

/**
 * Opens `url` as a source, with one request for its first byte. The response gives the size, the identity, and whether
 * the server supports ranges. The identity is a strong ETag. Otherwise it is the weak or malformed ETag, Last-Modified
 * and the size, as far as the server sends them. Without ETag and Last-Modified it is undefined: if the server then
 * replaces the content by other content of the same size, the source cannot notice it.
 *
 * - When a response has another total size, ETag or Last-Modified than at opening, the call rejects with
 *   COD_SOURCE_CHANGED. So do all later calls, and those in flight: their bytes may be of either version.
 * - Wrong ranges, short bodies, 408, 425, 429, 5xx (except 501 and 505), failed connections and stalls are retried.
 *   Without success the call rejects with COD_SOURCE_IO.
 * - A body that is too long rejects with COD_SOURCE_IO.
 * - After `close()` calls reject with COD_CLOSED.
 *
 * Ranges, ETags and their strength: RFC 9110, sections 14 and 8.8.
 *
 * @throws {@link CodError} COD_NOT_FOUND when the status is 404 or 410.
 * @throws {@link CodError} COD_SOURCE_IO when the server cannot be reached, refuses (401 and 403 included), or
 *   compresses the body.
 * @throws {@link CodError} COD_SOURCE_IO when the server does not support ranges and
 *   {@link HttpSourceOptions.allowWholeBody} is false.
 * @throws {@link CodError} COD_SOURCE_IO when the server redirects more than 5 times, or from https to http.
 * @throws `TypeError` when the URL is not http or https, or a header is malformed or reserved.
 * @throws the signal's reason when it is aborted.
 * @example
 * ```ts
 * import { httpSource } from 'copyondemand';
 *
 * const source = await httpSource('https://example.org/disk.raw', { retry: { attempts: 3 } });
 * const sector = new Uint8Array(512);
 * await source.read(sector, 0);
 * await source.close();
 * ```
 */
export async function httpSource(
  url: string | URL,
  options: HttpSourceOptions = {},
): Promise<Source & AsyncDisposable> {
  const transport = options.transport ?? platformTransport();
  try {
    const resource = new Resource(transport, new HttpLocation(transport, url, options), options);
    return new HttpSource(resource, await resource.open(options.signal));
  } catch (error) {
    transport.close();
    throw error;
  }
}

class HttpSource implements InlineSource, AsyncDisposable {
  readonly size: number;
  declare readonly identity?: string;
  readonly #resource: Resource;
  readonly #running = new Set<Download>();
  /** Why every further call rejects. */
  #over: CodError | undefined;

  constructor(resource: Resource, known: Known) {
    this.#resource = resource;
    this.size = known.size;
    if (known.identity !== undefined) this.identity = known.identity;
  }

  async read(into: Uint8Array, offset: number, options: { signal?: AbortSignal } = {}): Promise<void> {
    const download = this.#begin(offset, into.length, options);
    try {
      let done = 0;
      for (let piece = await download.pull(); piece !== undefined; piece = await download.pull()) {
        into.set(piece, done);
        done += piece.length;
      }
    } catch (error) {
      throw this.#noticed(error);
    } finally {
      this.#end(download);
    }
  }

  async *stream(
    offset: number,
    length: number,
    options: InternalStreamOptions = {},
  ): AsyncIterableIterator<Uint8Array> {
    const download = this.#begin(offset, length, options);
    try {
      for (let piece = await download.pull(); piece !== undefined; piece = await download.pull()) yield piece;
    } catch (error) {
      throw this.#noticed(error);
    } finally {
      this.#end(download);
    }
  }

  async close(): Promise<void> {
    this.#endAll(new CodError('COD_CLOSED', 'the source is closed'));
    this.#resource.transport.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Returns `error`. If the source has changed, all other calls reject with it, too. */
  #noticed(error: unknown): unknown {
    if (isCodError(error, 'COD_SOURCE_CHANGED')) this.#endAll(error);
    return error;
  }

  #endAll(why: CodError): void {
    this.#over = why;
    for (const download of this.#running) download.abort(why);
  }

  #begin(offset: number, length: number, options: InternalStreamOptions): Download {
    if (this.#over !== undefined) throw this.#over;
    options.signal?.throwIfAborted();
    checkRange(this.size, offset, length);
    const download = new Download(this.#resource, offset, offset + length, options);
    this.#running.add(download);
    return download;
  }

  #end(download: Download): void {
    this.#running.delete(download);
    download.end();
  }
}

/** The resource: how it is requested, and what is known of it. */
class Resource {
  readonly transport: HttpTransport;
  readonly location: HttpLocation;
  readonly allowWholeBody: boolean;
  readonly stallTimeoutMs: number;
  readonly clock: Clock;
  readonly #retry: Retry;
  readonly #random: () => number;
  known: Known = { size: 0, identity: undefined };

  constructor(transport: HttpTransport, location: HttpLocation, options: HttpSourceOptions) {
    this.transport = transport;
    this.location = location;
    this.allowWholeBody = options.allowWholeBody ?? false;
    this.stallTimeoutMs = options.stallTimeoutMs ?? 15_000;
    this.clock = options.clock ?? systemClock;
    this.#retry = options.retry ?? {};
    this.#random = options.random ?? Math.random;
  }

  async open(signal: AbortSignal | undefined): Promise<Known> {
    const asked = new Asked(this.location, 0, 1);
    const backoff = this.backoff(asked, ATTEMPTS_OPENING);
    for (;;) {
      signal?.throwIfAborted();
      const attempt = new Attempt(this, asked);
      const unlink = link(signal, attempt);
      try {
        const response = await attempt.ask();
        const known = readOpening(response, asked, this.allowWholeBody);
        // The one byte is read so that the connection can be kept. A whole body is not read.
        if (response.status === 206) while (await attempt.pull());
        this.known = known;
        return known;
      } catch (error) {
        this.location.forgetRedirect();
        await backoff.wait(error, signal);
      } finally {
        unlink();
        attempt.end();
      }
    }
  }

  backoff(asked: Asked, attempts: number = ATTEMPTS): Backoff {
    const { attempts: given = attempts, baseDelayMs = 250, maxDelayMs = 10_000 } = this.#retry;
    return new Backoff(asked.what, {
      attempts: given,
      baseDelayMs,
      maxDelayMs,
      clock: this.clock,
      random: this.#random,
    });
  }
}

/**
 * Downloads the bytes [start, end). Resumes where a request broke. One pull at a time. Abort controllers are costly, so
 * each request has only one.
 */
class Download {
  readonly #resource: Resource;
  readonly #start: number;
  readonly #end: number;
  readonly #pieceBytes: number | undefined;
  readonly #unlink: () => void;
  #at: number;
  #attempt: RangeAttempt | undefined;
  /** Counts the failures since the last progress. */
  #backoff: Backoff | undefined;
  #waiting: AbortController | undefined;
  #aborted: { readonly reason: unknown } | undefined;

  constructor(resource: Resource, start: number, end: number, { signal, pieceBytes }: InternalStreamOptions) {
    this.#resource = resource;
    this.#start = this.#at = start;
    this.#end = end;
    this.#pieceBytes = pieceBytes;
    this.#unlink = link(signal, this);
  }

  /** Resolves to the next piece, valid until the next call, or to undefined at the end. */
  async pull(): Promise<Uint8Array | undefined> {
    while (this.#at < this.#end || this.#attempt !== undefined) {
      try {
        this.#throwIfAborted();
        this.#attempt ??= new RangeAttempt(
          this.#resource,
          new Asked(this.#resource.location, this.#at, this.#end, this.#pieceBytes),
        );
        const piece = await this.#attempt.pull();
        if (piece !== undefined) {
          this.#at += piece.length;
          this.#backoff = undefined;
          return piece;
        }
        this.#endAttempt();
      } catch (error) {
        this.#endAttempt();
        this.#throwIfAborted();
        this.#resource.location.forgetRedirect();
        // All bytes have come, so it does not matter that the connection broke before the end of the body.
        if (this.#at === this.#end && !(error instanceof CodError)) return undefined;
        await this.#wait(error);
      }
    }
    return undefined;
  }

  abort(reason: unknown): void {
    this.#aborted ??= { reason };
    this.#attempt?.abort(reason);
    this.#waiting?.abort(reason);
  }

  end(): void {
    this.#unlink();
    this.#endAttempt();
  }

  async #wait(error: unknown): Promise<void> {
    this.#backoff ??= this.#resource.backoff(new Asked(this.#resource.location, this.#start, this.#end));
    this.#waiting = new AbortController();
    try {
      await this.#backoff.wait(error, this.#waiting.signal);
    } finally {
      this.#waiting = undefined;
    }
  }

  #throwIfAborted(): void {
    if (this.#aborted !== undefined) throw this.#aborted.reason;
  }

  #endAttempt(): void {
    this.#attempt?.end();
    this.#attempt = undefined;
  }
}

/** One request. It ends when it is aborted, when it stalls, or with {@link end}. */
class Attempt {
  readonly asked: Asked;
  readonly #resource: Resource;
  readonly #controller = new AbortController();
  readonly #watch: StallWatch;
  #response: HttpResponse | undefined;

  constructor(resource: Resource, asked: Asked) {
    this.asked = asked;
    this.#resource = resource;
    const { clock, stallTimeoutMs } = resource;
    const expire = () => this.abort(new PassingError(`the server sent nothing for ${stallTimeoutMs} ms`));
    this.#watch = new StallWatch({ clock, limitMs: stallTimeoutMs, signal: this.#controller.signal, expire });
  }

  async ask(): Promise<HttpResponse> {
    const { start, end, pieceBytes } = this.asked;
    const { signal } = this.#controller;
    this.#response = await this.#during(
      this.#resource.location.get(`bytes=${start}-${end - 1}`, { signal, pieceBytes }),
    );
    return this.#response;
  }

  async pull(): Promise<Uint8Array | undefined> {
    return this.#response && this.#during(this.#response.pull());
  }

  abort(reason: unknown): void {
    this.#controller.abort(reason);
  }

  end(): void {
    this.#response?.cancel();
    this.#response = undefined;
    this.#controller.abort(ENDED);
  }

  async #during<T>(awaited: Promise<T>): Promise<T> {
    const { signal } = this.#controller;
    try {
      return await this.#watch.during(awaited);
    } catch (error) {
      throw signal.aborted ? signal.reason : error;
    }
  }
}

/** One request for a range. Checks the response, and cuts the body to the range. */
class RangeAttempt {
  readonly #resource: Resource;
  readonly #attempt: Attempt;
  #isAnswered = false;
  #skip = 0;
  #missing: number;
  /** Whether the body must end where the range ends. Of a whole body that continues, the rest is not read. */
  #mustEnd = true;

  constructor(resource: Resource, asked: Asked) {
    this.#resource = resource;
    this.#attempt = new Attempt(resource, asked);
    this.#missing = asked.end - asked.start;
  }

  async pull(): Promise<Uint8Array | undefined> {
    if (!this.#isAnswered) await this.#ask();
    while (this.#missing > 0 || this.#mustEnd) {
      const piece = await this.#attempt.pull();
      if (!piece) break;
      const wanted = this.#skip === 0 ? piece : piece.subarray(Math.min(this.#skip, piece.length));
      this.#skip -= piece.length - wanted.length;
      if (wanted.length > this.#missing && this.#mustEnd) throw tooLong(this.#attempt.asked);
      if (wanted.length === 0) continue;
      const part = wanted.subarray(0, this.#missing);
      this.#missing -= part.length;
      return part;
    }
    if (this.#missing > 0) throw new PassingError(`the response ended ${this.#missing} bytes early`);
    return undefined;
  }

  abort(reason: unknown): void {
    this.#attempt.abort(reason);
  }

  end(): void {
    this.#attempt.end();
  }

  async #ask(): Promise<void> {
    const { known, allowWholeBody } = this.#resource;
    const { asked } = this.#attempt;
    const kind = checkAnswer(await this.#attempt.ask(), asked, known, allowWholeBody);
    this.#isAnswered = true;
    this.#mustEnd = kind === 'range' || asked.end === known.size;
    if (kind === 'whole') this.#skip = asked.start;
  }
}

/** Makes `from` abort `to`, with its reason. Returns a function that undoes this. */
function link(from: AbortSignal | undefined, to: { abort(reason: unknown): void }): () => void {
  if (from === undefined) return () => {};
  const onAbort = () => to.abort(from.reason);
  if (from.aborted) onAbort();
  else from.addEventListener('abort', onAbort, { once: true });
  return () => from.removeEventListener('abort', onAbort);
}

function tooLong(asked: Asked): CodError {
  return new CodError('COD_SOURCE_IO', `${asked.what}: the server sent more bytes than requested`);
}
