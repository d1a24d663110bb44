/** Sources as plain data, which a page sends to its worker; the worker opens them. */

import { blobSource } from '../sources/blob.ts';
import { httpSource } from '../sources/http/source.ts';
import type { Retry } from '../sources/retry.ts';
import type { Source } from '../sources/source.ts';

/** An image on a server, with the options of `httpSource` that can be sent to a worker. */
export interface UrlSource {
  /** Relative to the page. */
  readonly url: string | URL;
  /** Sent with each request to the URL's own origin, and to no other. Most of them cost a preflight. */
  readonly headers?: Record<string, string>;
  /** Basic authentication, as in a URL. Never sent to another origin, never part of a message. */
  readonly username?: string;
  readonly password?: string;
  /**
   * Accepts a server without ranges. Each read then downloads the body up to the end of the read, so that only a copy
   * in one stream from offset 0 is fast.
   */
  readonly allowWholeBody?: boolean;
  readonly retry?: Retry;
  /** A request that receives no byte for this long is replaced by one for the rest. Default: 15,000. */
  readonly stallTimeoutMs?: number;
}

/** The image for `openDevice` in a page: a URL, a `File` that the user picked, or any `Blob`. */
export type BrowserSource = string | URL | UrlSource | Blob;

/** What the page sends to the worker. */
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
