/**
 * The address of a resource. Follows redirects, remembers where they led, and sends credentials to their own origin
 * only.
 *
 * Requests start at the address whose last answer was accepted. After a failure they alternate between that address
 * and the original URL, which may lead to another mirror.
 */

import { withSignal } from '../../async/with-signal.ts';
import { CodError } from '../../errors.ts';
import type { HttpResponse, HttpTransport, InternalHttpRequest } from './transport.ts';

type RequestOptions = Pick<InternalHttpRequest, 'method' | 'signal' | 'pieceBytes'>;

/** Returns the URL to use from now on. */
export type UrlFunction = () => string | URL | Promise<string | URL>;

/** Returns the headers to send from now on. */
export type HeadersFunction = () => Record<string, string> | Promise<Record<string, string>>;

/** As {@link UrlFunction}. Gets the answer that another URL, other headers or other credentials may cure. */
type Renew = (refusal?: HttpResponse) => string | URL | Promise<string | URL>;

/** Returns further headers of one request to the URL's own origin. `headers` are those that it has already. */
export type Sign = (request: {
  readonly method: string;
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
}) => Promise<Record<string, string>>;

/** Options of the source, and what a service such as S3 needs beyond them. */
export interface LocationOptions {
  readonly headers?: Record<string, string> | HeadersFunction;
  readonly username?: string;
  readonly password?: string;
  readonly sign?: Sign;
  /** Whether the function for the URL knows better than the redirect where the resource is. */
  readonly isMoved?: (response: HttpResponse) => boolean;
}

/** A response, and where it came from. */
export interface Located {
  readonly response: HttpResponse;
  /** Where redirects led. */
  readonly url: URL;
  /** The original URL at the time of the request. */
  readonly original: URL;
  /** Whether the address of the accepted answers has refused the request. */
  readonly wasRefused: boolean;
}

const MAX_REDIRECTS = 10;
/** Requests to the original URL after a refusal by the address that it leads to. */
const MAX_RESOLUTIONS = 2;
const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);
/** Statuses of the response to a signed URL that has expired, and of a mirror without the file. */
const REFUSED: ReadonlySet<number> = new Set([401, 403, 404, 410]);
/** Statuses that a function's new URL or headers may cure. S3 sends 400 for an expired token. */
const DENIED: ReadonlySet<number> = new Set([400, 401, 403]);
const TOKEN = /^[!#$%&'*+.^_`|~0-9a-z-]+$/i;
const RESERVED: ReadonlySet<string> = new Set([
  'range',
  'if-range',
  'host',
  'connection',
  'content-length',
  'transfer-encoding',
  'accept-encoding',
]);
/** Shorter values are not removed from a server's message: they also occur in ordinary words. */
const MIN_SECRET_CHARACTERS = 4;

export class HttpLocation {
  readonly #transport: HttpTransport;
  readonly #given: string | URL | Renew;
  readonly #options: LocationOptions;
  #renewing: Promise<void> | undefined;
  #original!: URL;
  #headers!: Readonly<Record<string, string>>;
  /** The headers of the latest request that was signed. */
  #signed: Readonly<Record<string, string>> = {};
  /** Where the next request starts. */
  #current!: URL;
  /** Where the last accepted answer came from. */
  #proven!: URL;

  /** @throws `TypeError` if the URL is malformed or not http or https, or if a header is malformed or reserved. */
  static async open(
    transport: HttpTransport,
    url: string | URL | Renew,
    options: LocationOptions,
  ): Promise<HttpLocation> {
    const location = new HttpLocation(transport, url, options);
    await location.#load();
    return location;
  }

  private constructor(transport: HttpTransport, given: string | URL | Renew, options: LocationOptions) {
    this.#transport = transport;
    this.#given = given;
    this.#options = options;
  }

  /** Asks the functions. */
  async #load(refusal?: HttpResponse): Promise<void> {
    const { headers = {} } = this.#options;
    const [url, sent] = await Promise.all([
      typeof this.#given === 'function' ? this.#given(refusal) : this.#given,
      typeof headers === 'function' ? headers() : headers,
    ]);
    const given = parsed(url);
    if (!isHttp(given)) throw new TypeError(`${given.protocol}// is not http:// or https://`);
    const { username = decoded(given.username), password = decoded(given.password) } = this.#options;
    this.#headers = { ...checkedHeaders(sent), ...basic(username, password) };
    this.#original = this.#current = this.#proven = withoutCredentials(given);
  }

  /** Returns the URL for messages: without credentials, and without the query, which may contain a signature. */
  toString(): string {
    return shown(this.#original);
  }

  /** Where the next request starts. */
  get current(): URL {
    return this.#current;
  }

  /**
   * Sends a request and follows redirects. If the address that a redirect led to refuses, asks the original URL again.
   * If that is denied, asks the functions for another URL and other headers, once.
   */
  async get(range: string | undefined, how: RequestOptions): Promise<Located> {
    let from = this.#current;
    let wasRefused = false;
    let resolutions = 0;
    let renewed = false;
    for (let last = ''; ; ) {
      const original = this.#original;
      const { response, url } = await this.#follow(from, range, how);
      const found = { response, url, original, wasRefused };
      const isCurable = this.#isCurable(response);
      if (!REFUSED.has(response.status) && !isCurable) return found;
      if (url.href !== original.href && url.href !== last && resolutions++ < MAX_RESOLUTIONS) {
        last = url.href;
        if (this.#current === from) this.#current = original;
      } else if (isCurable && !renewed) {
        renewed = true;
        if (this.#original === original) await this.#renewed(response, how.signal);
      } else return found;
      response.cancel();
      wasRefused ||= from === this.#proven || renewed;
      from = this.#original;
    }
  }

  /** Asks the functions once for all requests that wait. After a stall they are asked again. */
  async #renewed(refusal: HttpResponse, signal: AbortSignal): Promise<void> {
    this.#renewing ??= this.#load(refusal);
    try {
      await withSignal(this.#renewing, signal);
    } finally {
      this.#renewing = undefined;
    }
  }

  /** Whether the functions may have what makes the server answer. */
  #isCurable(response: HttpResponse): boolean {
    const { headers, isMoved } = this.#options;
    if (typeof this.#given !== 'function' && typeof headers !== 'function') return false;
    return DENIED.has(response.status) || isMoved?.(response) === true;
  }

  /** Makes further requests start where an accepted answer came from. */
  accepted({ url, original }: Located): void {
    if (original === this.#original) this.#proven = this.#current = url;
  }

  /** Makes the next request start elsewhere, after one that started at `from` has failed. */
  failed(from: URL): void {
    this.#current = from === this.#original ? this.#proven : this.#original;
  }

  /** Whether an answer is of another mirror than the accepted answers, and the mirror of those may still work. */
  isElsewhere({ url, wasRefused }: Located): boolean {
    return !wasRefused && url.href !== this.#proven.href;
  }

  /** Returns a server's text without queries of URLs, and without what we sent it as a secret. */
  hide(text: string): string {
    const values = [...this.#original.searchParams.values(), ...this.#current.searchParams.values()];
    for (const value of Object.values({ ...this.#headers, ...this.#signed })) values.push(value, ...value.split(' '));
    let hidden = text.replace(/\?[^\s?]+/g, '?…').replace(/((?:sig\w*|token|password|secret|credential)=)\S+/gi, '$1…');
    for (const value of values) if (value.length >= MIN_SECRET_CHARACTERS) hidden = hidden.replaceAll(value, '…');
    return hidden;
  }

  async #follow(
    from: URL,
    range: string | undefined,
    how: RequestOptions,
  ): Promise<{ response: HttpResponse; url: URL }> {
    const { sign, isMoved } = this.#options;
    let url = from;
    for (let hops = 0; ; hops++) {
      const isOwn = url.origin === this.#original.origin;
      const headers = { ...(isOwn ? this.#headers : {}), ...(range === undefined ? {} : { range }) };
      if (isOwn && sign !== undefined)
        Object.assign(headers, (this.#signed = await sign({ method: how.method ?? 'GET', url, headers })));
      const response = await this.#transport.request({ ...how, url, headers });
      const location = response.header('location');
      if (!REDIRECTS.has(response.status) || location === undefined || isMoved?.(response)) {
        if (response.url.href !== url.href) url = checkedHop(url, withoutCredentials(response.url));
        return { response, url: url.href === this.#original.href ? this.#original : url };
      }
      response.cancel();
      if (hops === MAX_REDIRECTS)
        throw new CodError('COD_SOURCE_IO', `${this}: more than ${MAX_REDIRECTS} redirects, the last to ${shown(url)}`);
      url = checkedHop(url, resolve(location, url));
    }
  }
}

/** Parses a URL. The platform's own error would contain its query and credentials. */
function parsed(url: string | URL): URL {
  try {
    return new URL(url);
  } catch {
    throw new TypeError('the URL is malformed: use http://host/path or https://host/path');
  }
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new TypeError('user or password in the URL has a malformed percent-encoding: write % as %25');
  }
}

function resolve(location: string, base: URL): URL {
  try {
    return withoutCredentials(new URL(location, base));
  } catch {
    // The cause would contain the URL's query.
    throw new CodError('COD_SOURCE_IO', `${shown(base)} redirects to an invalid URL`);
  }
}

function checkedHop(from: URL, to: URL): URL {
  if (!isHttp(to))
    throw new CodError('COD_SOURCE_IO', `${shown(from)} redirects to ${to.protocol}, which is not http or https`);
  if (from.protocol === 'https:' && to.protocol === 'http:') {
    throw new CodError(
      'COD_SOURCE_IO',
      `${shown(from)} redirects from https to http; to accept that, use ${shown(to)} as the URL`,
    );
  }
  return to;
}

function checkedHeaders(headers: Record<string, string>): Record<string, string> {
  const checked: Record<string, string> = {};
  for (const [name, value] of Object.entries(headers)) {
    // biome-ignore lint/suspicious/noControlCharactersInRegex: it rejects control characters in headers
    if (!TOKEN.test(name) || /[\0-\x08\x0a-\x1f\x7f]|[^\0-\xff]/.test(value))
      throw new TypeError(`malformed header ${JSON.stringify(name)}`);
    if (RESERVED.has(name.toLowerCase()))
      throw new TypeError(`header ${name}: the source sets it itself; leave it out`);
    checked[name.toLowerCase()] = value;
  }
  return checked;
}

export function basic(username: string, password: string): Record<string, string> {
  if (username === '' && password === '') return {};
  const bytes = new TextEncoder().encode(`${username}:${password}`);
  return { authorization: `Basic ${btoa(String.fromCharCode(...bytes))}` };
}

function isHttp(url: URL): boolean {
  return url.protocol === 'http:' || url.protocol === 'https:';
}

function withoutCredentials(url: URL): URL {
  const bare = new URL(url);
  bare.username = '';
  bare.password = '';
  bare.hash = '';
  return bare;
}

/** Returns the URL for messages: without credentials and query. */
export function shown(url: URL): string {
  return `${url.origin}${url.pathname}${url.search === '' ? '' : '?…'}`;
}
