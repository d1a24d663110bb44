/** A source over HTTP range requests. Every response is checked. A download that breaks resumes where it broke. */

import { platformTransport } from '#http-transport';
import { withSignal } from '../../async/with-signal.ts';
import { CodError, isCodError } from '../../errors.ts';
import type { Clock } from '../../platform/clock.ts';
import { systemClock } from '../../platform/system-clock.ts';
import { checkRange } from '../range.ts';
import { Retries, type Retry, type RetryReport, type StallLimits } from '../retry.ts';
import type { InlineSource, InternalStreamOptions, Source } from '../source.ts';
import { identityOf, type Known } from './answer.ts';
import { Download, type DownloadOptions, Resource } from './download.ts';
import { type HeadersFunction, HttpLocation, type LocationOptions, type UrlFunction } from './location.ts';
import type { HttpTransport } from './transport.ts';

/** Options of {@link httpSource}. */
export interface HttpSourceOptions extends StallLimits {
  /**
   * Sent with each request to the URL's own origin only. In a browser, most headers cost a preflight. The source itself
   * sets `range` and the headers of the connection; they are refused here. A function is called when the URL's function
   * is, for tokens that expire. Default: none.
   */
  headers?: Record<string, string> | HeadersFunction;
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
   * Accepts another ETag as the same content if Last-Modified and size are equal. Intended for mirrors whose ETags
   * differ, and for servers that send another ETag with each answer. Default: false.
   */
  sameSource?: boolean;
  /** Aborts opening; has no effect on the opened source. */
  signal?: AbortSignal;
  /** Default: the machine's clock. */
  clock?: Clock;
  /** Returns a number in [0, 1), for the jitter of delays. Default: `Math.random`. */
  random?: () => number;
  /**
   * Sends the requests. The source closes it. For proxies, private authorities and client certificates, use
   * `httpTransport` of `copyondemand/node`. Default: the fastest of the platform, which is undici in Node and `fetch`
   * elsewhere.
   */
  transport?: HttpTransport;
}

/**
 * Opens `url` as a source, with one request for its first byte. The response gives the size, the identity, and whether
 * the server supports ranges. If it does not give the size (`bytes 0-0/*`), HEAD or a request for the last byte does.
 * The identity is a strong ETag. Otherwise it is the weak or malformed ETag, Last-Modified and the size, as far as the
 * server sends them. Without ETag and Last-Modified it is undefined: if the server then replaces the content by other
 * content of the same size, the source cannot notice it.
 *
 * - A response with fewer bytes than requested is used, and the rest is requested. A larger slice is cut to fit.
 * - When a response has another total size, ETag or Last-Modified than at opening, the call rejects with
 *   COD_SOURCE_CHANGED. So do all later calls, and those in flight: their bytes may be of either version.
 *   {@link HttpSourceOptions.sameSource} accepts another ETag.
 * - The address that a redirect leads to is kept while it works. After a failure the original URL is asked again, which
 *   may lead to another mirror. Mirrors are never mixed: one with another identity is not used.
 * - Wrong ranges, short bodies, 408, 425, 429, 5xx (except 501 and 505), failed connections, stalls and drips are
 *   retried. Without success the call rejects with COD_SOURCE_IO.
 * - A `read` whose answer takes four times as long as usual is requested again over another connection, and the first
 *   answer counts. That concerns at most 3 % of the reads.
 * - Streams give way to a `read` that a server refuses with 429 or 503, since it may allow one connection only.
 * - Messages tell what the server says in the body of an error. They never show credentials or the query of a URL.
 * - A body that is too long rejects with COD_SOURCE_IO.
 * - After `close()` calls reject with COD_CLOSED.
 *
 * Ranges, ETags and their strength: RFC 9110, sections 14 and 8.8.
 *
 * @param url http or https. A function is called at opening, and again after 400, 401 or 403, once for each failure:
 *   for signed URLs, which expire. What it throws then counts as a failed request.
 * @throws {@link CodError} COD_NOT_FOUND when the status is 404 or 410.
 * @throws {@link CodError} COD_SOURCE_IO when the server cannot be reached, refuses (401 and 403 included), or
 *   compresses the body.
 * @throws {@link CodError} COD_SOURCE_IO when the server does not support ranges and
 *   {@link HttpSourceOptions.allowWholeBody} is false.
 * @throws {@link CodError} COD_SOURCE_IO when the server redirects more than 10 times, or from https to http.
 * @throws `TypeError` when the URL is malformed or not http or https, or a header is malformed or reserved.
 * @throws the signal's reason when it is aborted; what the function throws.
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
export function httpSource(
  url: string | URL | UrlFunction,
  options: HttpSourceOptions = {},
): Promise<Source & AsyncDisposable> {
  return openHttpSource(typeof url === 'function' ? () => url() : url, options);
}

/** As {@link httpSource}, for services: the function for the URL gets the answer that calls for another one. */
export async function openHttpSource(
  url: Parameters<typeof HttpLocation.open>[1],
  options: HttpSourceOptions & Pick<LocationOptions, 'sign' | 'isMoved'>,
): Promise<Source & AsyncDisposable> {
  const transport = options.transport ?? platformTransport();
  const { clock = systemClock, stallTimeoutMs = 15_000, minBytesPerSecond = 1024 } = options;
  const { allowWholeBody = false, sameSource = false, retry = {}, random = Math.random } = options;
  try {
    const resource = new Resource(await withSignal(HttpLocation.open(transport, url, options), options.signal), {
      allowWholeBody,
      sameSource,
      limits: { stallTimeoutMs, minBytesPerSecond },
      clock,
      retries: new Retries(retry, { clock, random }),
    });
    return new HttpSource(transport, resource, await resource.open(options.signal));
  } catch (error) {
    transport.close();
    throw error;
  }
}

class HttpSource implements InlineSource, AsyncDisposable {
  readonly size: number;
  declare readonly identity?: string;
  readonly contentType: string | undefined;
  readonly #transport: HttpTransport;
  readonly #resource: Resource;
  readonly #running = new Set<Download>();
  /** Why every further call rejects. */
  #over: CodError | undefined;

  constructor(transport: HttpTransport, resource: Resource, known: Known) {
    this.#transport = transport;
    this.#resource = resource;
    this.size = known.size;
    this.contentType = known.contentType;
    const identity = identityOf(known);
    if (identity !== undefined) this.identity = identity;
  }

  get place(): string {
    return this.#resource.location.current.origin;
  }

  set onRetry(listener: ((retry: RetryReport) => void) | undefined) {
    this.#resource.options.retries.onRetry = listener;
  }

  async read(into: Uint8Array, offset: number, options: { signal?: AbortSignal } = {}): Promise<void> {
    const download = this.#begin(offset, into.length, { ...options, makeRoomFor: (one) => this.#makeRoomFor(one) });
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
    this.#transport.close();
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

  #begin(offset: number, length: number, options: DownloadOptions): Download {
    if (this.#over !== undefined) throw this.#over;
    options.signal?.throwIfAborted();
    checkRange(this.size, offset, length);
    const download = new Download(this.#resource, offset, offset + length, options);
    this.#running.add(download);
    return download;
  }

  /**
   * Makes the streams give way to a read until it has ended, since the server allows fewer connections. Returns whether
   * there was one.
   */
  #makeRoomFor(download: Download): boolean {
    const streams = [...this.#running].filter((one) => one.isStream);
    return streams.map((stream) => stream.giveWay(download.ended())).some((gaveWay) => gaveWay);
  }

  #end(download: Download): void {
    this.#running.delete(download);
    download.end();
  }
}
