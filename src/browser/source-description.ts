/** Sources as plain data, which a page sends to its worker; the worker opens them. */

import { blobSource } from '../sources/blob.ts';
import { httpSource } from '../sources/http/source.ts';
import type { Retry, StallLimits } from '../sources/retry.ts';
import type { Source } from '../sources/source.ts';

/** An image on a server, with those options of `httpSource` that can be sent to a worker. */
export interface UrlSource extends Readonly<StallLimits> {
  /** http or https. A relative URL is relative to the page. */
  readonly url: string | URL;
  /** Sent with each request to the URL's own origin only. Most headers cost a preflight. Default: none. */
  readonly headers?: Record<string, string>;
  /**
   * User of Basic authentication (RFC 7617). Never sent to another origin, never shown in a message. Default: the
   * user in the URL.
   */
  readonly username?: string;
  /** Password of Basic authentication, treated as {@link username}. Default: the password in the URL. */
  readonly password?: string;
  /**
   * Accepts a server without ranges. Each read then downloads the body up to the end of the read. Only a copy in one
   * stream from offset 0 is fast. Default: false.
   */
  readonly allowWholeBody?: boolean;
  /** Retries of failed requests. */
  readonly retry?: Omit<Retry, 'onRetry'>;
  /**
   * Accepts another ETag as the same content if Last-Modified and size are equal, as some mirrors need. Default: false.
   */
  readonly sameSource?: boolean;
}

/** The image for `openDevice` in a page: a URL, a URL with options, a `File` that the user picked, or any `Blob`. */
export type BrowserSource = string | URL | UrlSource | Blob;

/** A source as the page sends it to the worker: a Blob, or an absolute URL with its options. */
export type SourceDescription = Blob | (UrlSource & { readonly url: string });

/** @throws `TypeError` if `source` is no source. */
export function describeSource(source: BrowserSource): SourceDescription {
  if (source instanceof Blob) return source;
  const given = typeof source === 'string' || source instanceof URL ? { url: source } : source;
  if (typeof given !== 'object' || given === null || !('url' in given))
    throw new TypeError('`source` must be a URL, a Blob, or an object with a `url`');
  return { ...given, url: new URL(given.url, document.baseURI).href };
}

/** Opens a source. @throws {@link CodError} as `httpSource`. */
export async function openSource(source: SourceDescription): Promise<Source> {
  if (source instanceof Blob) return blobSource(source);
  const { url, ...options } = source;
  return httpSource(url, options);
}
