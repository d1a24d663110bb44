/** A source over HTTP range requests: every answer is checked, what breaks is asked for again from where it broke. */

import type { Clock } from '../core/clock.ts';
import { CodError, isCodError } from '../core/errors.ts';
import type { Source } from '../device/source.ts';
import { systemClock } from '../system-clock.ts';
import { fetchTransport } from './fetch-transport.ts';
import { type Asked, checkAnswer, type Known, readOpening } from './http-answer.ts';
import { HttpLocation } from './http-location.ts';
import type { HttpResponse, HttpTransport } from './http-transport.ts';
import { checkRange } from './range.ts';
import { Backoff, PassingError, type Retry } from './retry.ts';
import { StallWatch } from './stall-watch.ts';

export interface HttpSourceOptions {
  /** Sent with each request to the URL's own origin, and to no other. In a browser most of them cost a preflight. */
  headers?: Record<string, string>;
  /** Basic authentication; in the URL works too. Never sent to another origin, never in a message. */
  username?: string;
  password?: string;
  /**
   * Accept a server without ranges: each read and stream then fetches the whole body up to its end and skips what lies before its offset.
   * Made for one stream from offset 0; a read far behind costs all that is before it.
   */
  allowWholeBody?: boolean;
  retry?: Retry;
  /** No byte for so long while one is waited for: the request is given up and the rest asked for again. Default 15,000. */
  stallTimeoutMs?: number;
  /** Aborts the opening, not the source. */
  signal?: AbortSignal;
  clock?: Clock;
  /** In [0, 1), for the jitter. */
  random?: () => number;
  /** The source closes it. Default: over `fetch`; `copyondemand/node` has a faster one. */
  transport?: HttpTransport;
}

const ATTEMPTS_OPENING = 5;
const ATTEMPTS = 20;

/**
 * Opens `url` with one request for its first byte, which tells its size, its identity and whether ranges work.
 * The identity is a strong ETag, else Last-Modified and the size; undefined if the server sends neither.
 *
 * Answers with another total size, ETag or Last-Modified than at opening reject with COD_SOURCE_CHANGED, and so does all else from then on, what is under
 * way too: its bytes may be of either version. Wrong ranges, short and long bodies,
 * 408, 425, 429, 5xx, failed connections and stalls are asked for again, then reject with COD_SOURCE_IO. After `close()`: COD_CLOSED.
 * @throws {@link CodError} COD_NOT_FOUND for 404 and 410; COD_SOURCE_IO for 401 and 403, a server without ranges (see `allowWholeBody`) or one
 * that compresses. TypeError for a URL that is not http or https. The signal's reason if it is aborted.
 */
export async function httpSource(url: string | URL, options: HttpSourceOptions = {}): Promise<Source> {
  const transport = options.transport ?? fetchTransport();
  try {
    const requests = new Requests(new HttpLocation(transport, url, options), options);
    return new HttpSource(requests, transport, await requests.open(options.signal));
  } catch (error) {
    transport.close();
    throw error;
  }
}

class HttpSource implements Source {
  readonly size: number;
  declare readonly identity?: string;
  readonly #requests: Requests;
  readonly #transport: HttpTransport;
  readonly #running = new Set<AbortController>();
  /** Why nothing can be read any more. */
  #end: CodError | undefined;

  constructor(requests: Requests, transport: HttpTransport, known: Known) {
    this.#requests = requests;
    this.#transport = transport;
    this.size = known.size;
    if (known.identity !== undefined) this.identity = known.identity;
  }

  async read(into: Uint8Array, offset: number, options: { signal?: AbortSignal } = {}): Promise<void> {
    let done = 0;
    for await (const piece of this.stream(offset, into.length, options)) {
      into.set(piece, done);
      done += piece.length;
    }
  }

  async *stream(offset: number, length: number, options: { signal?: AbortSignal } = {}): AsyncIterableIterator<Uint8Array> {
    if (this.#end !== undefined) throw this.#end;
    options.signal?.throwIfAborted();
    checkRange(this.size, offset, length);
    if (length === 0) return;
    const running = new AbortController();
    const unlink = link(options.signal, running);
    this.#running.add(running);
    try {
      yield* this.#requests.pieces(offset, offset + length, running.signal);
    } catch (error) {
      if (isCodError(error, 'COD_SOURCE_CHANGED')) this.#endWith(error);
      throw error;
    } finally {
      this.#running.delete(running);
      unlink();
    }
  }

  async close(): Promise<void> {
    this.#endWith(new CodError('COD_CLOSED', 'the source is closed'));
    this.#transport.close();
  }

  #endWith(end: CodError): void {
    this.#end = end;
    for (const running of this.#running) running.abort(end);
  }
}

/** Requests for one resource, with everything that may go wrong with them. */
class Requests {
  readonly #location: HttpLocation;
  readonly #allowWholeBody: boolean;
  readonly #retry: Retry;
  readonly #stallTimeoutMs: number;
  readonly #clock: Clock;
  readonly #random: () => number;
  #known: Known = { size: 0, identity: undefined };

  constructor(location: HttpLocation, options: HttpSourceOptions) {
    this.#location = location;
    this.#allowWholeBody = options.allowWholeBody ?? false;
    this.#retry = options.retry ?? {};
    this.#stallTimeoutMs = options.stallTimeoutMs ?? 15_000;
    this.#clock = options.clock ?? systemClock;
    this.#random = options.random ?? Math.random;
  }

  async open(signal: AbortSignal = new AbortController().signal): Promise<Known> {
    const asked = this.#asked(0, 1);
    const backoff = this.#backoff(asked, ATTEMPTS_OPENING);
    for (;;) {
      try {
        this.#known = await this.#openOnce(asked, signal);
        return this.#known;
      } catch (error) {
        this.#location.forgetRedirect();
        await backoff.wait(error, signal);
      }
    }
  }

  async *pieces(start: number, end: number, signal: AbortSignal): AsyncGenerator<Uint8Array, void> {
    const backoff = this.#backoff(this.#asked(start, end), ATTEMPTS);
    for (let at = start; at < end; ) {
      try {
        for await (const piece of this.#piecesOnce(at, end, signal)) {
          at += piece.length;
          backoff.progress();
          yield piece;
        }
      } catch (error) {
        this.#location.forgetRedirect();
        // Everything is there; that the connection broke before the body's end was seen changes nothing.
        if (at === end && !(error instanceof CodError)) return;
        await backoff.wait(error, signal);
      }
    }
  }

  async #openOnce(asked: Asked, signal: AbortSignal): Promise<Known> {
    const attempt = new Attempt(signal, this.#clock, this.#stallTimeoutMs);
    try {
      const response = await attempt.ask(this.#location, asked);
      const known = readOpening(response, asked, this.#allowWholeBody);
      // The one byte is read so that the connection stays warm; a whole body is not.
      if (response.status === 206) while (await attempt.pull());
      return known;
    } finally {
      attempt.end();
    }
  }

  async *#piecesOnce(start: number, end: number, signal: AbortSignal): AsyncGenerator<Uint8Array, void> {
    const asked = this.#asked(start, end);
    const attempt = new Attempt(signal, this.#clock, this.#stallTimeoutMs);
    try {
      const response = await attempt.ask(this.#location, asked);
      const kind = checkAnswer(response, asked, this.#known, this.#allowWholeBody);
      // The body of a range must end where the range does; of a whole body the rest is left, if there is one.
      const mustEnd = kind === 'range' || end === this.#known.size;
      let skip = kind === 'whole' ? start : 0;
      let missing = end - start;
      while (missing > 0 || mustEnd) {
        const piece = await attempt.pull();
        if (!piece) break;
        const wanted = piece.subarray(Math.min(skip, piece.length));
        skip -= piece.length - wanted.length;
        if (wanted.length > missing && mustEnd) throw tooLong(asked);
        if (wanted.length === 0) continue;
        const part = wanted.subarray(0, missing);
        missing -= part.length;
        yield part;
      }
      if (missing > 0) throw new PassingError(`the answer ended ${missing} bytes early`);
    } finally {
      attempt.end();
    }
  }

  #asked(start: number, end: number): Asked {
    return { what: `GET ${this.#location}, bytes ${start}-${end - 1}`, start, end };
  }

  #backoff(asked: Asked, attempts: number): Backoff {
    const { attempts: given = attempts, baseDelayMs = 250, maxDelayMs = 10_000 } = this.#retry;
    return new Backoff(asked.what, { attempts: given, baseDelayMs, maxDelayMs, clock: this.#clock, random: this.#random });
  }
}

/** One request, ended by the caller's signal, by a stall, or by `end`. */
class Attempt {
  readonly #own = new AbortController();
  readonly #unlink: () => void;
  readonly #watch: StallWatch;
  #response: HttpResponse | undefined;

  constructor(signal: AbortSignal, clock: Clock, stallTimeoutMs: number) {
    this.#unlink = link(signal, this.#own);
    const expire = () => this.#own.abort(new PassingError(`no byte came for ${stallTimeoutMs} ms`));
    this.#watch = new StallWatch({ clock, limitMs: stallTimeoutMs, expire });
  }

  async ask(location: HttpLocation, asked: Asked): Promise<HttpResponse> {
    this.#response = await this.#during(() => location.get(`bytes=${asked.start}-${asked.end - 1}`, this.#own.signal));
    return this.#response;
  }

  pull(): Promise<Uint8Array | undefined> {
    return this.#during(async () => this.#response?.pull());
  }

  end(): void {
    this.#watch.stop();
    this.#unlink();
    this.#response?.cancel();
    this.#response = undefined;
  }

  async #during<T>(wait: () => Promise<T>): Promise<T> {
    const { signal } = this.#own;
    signal.throwIfAborted();
    try {
      return await this.#watch.during(wait());
    } catch (error) {
      throw signal.aborted ? signal.reason : error;
    }
  }
}

/** Aborts `to` with `from`'s reason; returns what undoes that. */
function link(from: AbortSignal | undefined, to: AbortController): () => void {
  const onAbort = () => to.abort(from?.reason);
  if (from?.aborted) onAbort();
  from?.addEventListener('abort', onAbort, { once: true });
  return () => from?.removeEventListener('abort', onAbort);
}

function tooLong(asked: Asked): CodError {
  return new CodError('COD_SOURCE_IO', `${asked.what}: the server sent more than it announced`);
}
