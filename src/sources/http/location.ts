/**
 * The address of a resource. Follows redirects, remembers where they led, and sends credentials to their own origin
 * only.
 */

import { CodError } from '../../errors.ts';
import type { HttpResponse, HttpTransport, InternalHttpRequest } from './transport.ts';

type RequestOptions = Pick<InternalHttpRequest, 'signal' | 'pieceBytes'>;

const MAX_REDIRECTS = 5;
const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);
/** Statuses of the response to a signed URL that has expired. */
const EXPIRED: ReadonlySet<number> = new Set([401, 403, 404, 410]);
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

export class HttpLocation {
  readonly #original: URL;
  readonly #headers: Readonly<Record<string, string>>;
  readonly #transport: HttpTransport;
  /** The URL that the last redirect led to, or else the original. */
  #current: URL;

  /** @throws `TypeError` if the URL is not http or https, or if a header is malformed or reserved. */
  constructor(
    transport: HttpTransport,
    url: string | URL,
    options: { headers?: Record<string, string>; username?: string; password?: string },
  ) {
    this.#transport = transport;
    const given = new URL(url);
    if (!isHttp(given)) throw new TypeError(`${given.protocol}// is not http:// or https://`);
    const username = options.username ?? decodeURIComponent(given.username);
    const password = options.password ?? decodeURIComponent(given.password);
    this.#original = this.#current = withoutCredentials(given);
    this.#headers = { ...checkedHeaders(options.headers ?? {}), ...basic(username, password) };
  }

  /** Returns the URL for messages: without credentials, and without the query, which may contain a signature. */
  toString(): string {
    return shown(this.#original);
  }

  /**
   * Sends a GET for `range` and follows redirects. If a remembered redirect has expired, starts from the original URL.
   */
  async get(range: string, how: RequestOptions): Promise<HttpResponse> {
    const redirected = this.#current !== this.#original;
    const response = await this.#follow(range, how);
    if (!redirected || !EXPIRED.has(response.status)) return response;
    response.cancel();
    this.forgetRedirect();
    return this.#follow(range, how);
  }

  /** Makes the next request start at the original URL. */
  forgetRedirect(): void {
    this.#current = this.#original;
  }

  async #follow(range: string, how: RequestOptions): Promise<HttpResponse> {
    let url = this.#current;
    for (let hops = 0; ; hops++) {
      const own = url.origin === this.#original.origin ? this.#headers : {};
      const response = await this.#transport.request({ ...how, url, headers: { ...own, range } });
      if (!REDIRECTS.has(response.status)) {
        if (response.url.href !== url.href) url = checkedHop(url, withoutCredentials(response.url));
        this.#current = url.href === this.#original.href ? this.#original : url;
        return response;
      }
      response.cancel();
      const location = response.header('location');
      if (location === undefined)
        throw new CodError('COD_SOURCE_IO', `${shown(url)} sends a redirect without a Location`);
      if (hops === MAX_REDIRECTS)
        throw new CodError('COD_SOURCE_IO', `${this}: more than ${MAX_REDIRECTS} redirects, the last to ${shown(url)}`);
      url = checkedHop(url, resolve(location, url));
    }
  }
}

function resolve(location: string, base: URL): URL {
  try {
    return withoutCredentials(new URL(location, base));
  } catch (cause) {
    throw new CodError('COD_SOURCE_IO', `${shown(base)} redirects to an invalid URL`, { cause });
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

function basic(username: string, password: string): Record<string, string> {
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
