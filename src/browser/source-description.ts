/** Sources as they can be named across a message: the worker opens them. */

import { blobSource } from '../sources/blob.ts';
import { type HttpSourceOptions, httpSource } from '../sources/http/source.ts';
import type { Source } from '../sources/source.ts';

/** An image on a server, with those options of `httpSource` that are plain data. */
export interface UrlSource
  extends Pick<HttpSourceOptions, 'headers' | 'username' | 'password' | 'allowWholeBody' | 'retry' | 'stallTimeoutMs'> {
  /** Relative to the page. */
  readonly url: string | URL;
}

/** Where an image comes from, for `openDevice` in a page: a URL, a picked `File`, or any `Blob`. */
export type BrowserSource = string | URL | UrlSource | Blob;

/** What is sent to the worker. */
export type SourceDescription = Blob | (UrlSource & { readonly url: string });

/** @throws TypeError for what is no source. */
export function describeSource(source: BrowserSource): SourceDescription {
  if (source instanceof Blob) return source;
  const given = typeof source === 'string' || source instanceof URL ? { url: source } : source;
  if (typeof given !== 'object' || given === null || !('url' in given))
    throw new TypeError('`source` must be a URL, a Blob, or an object with a `url`');
  return { ...given, url: new URL(given.url, document.baseURI).href };
}

/** Errors as with `httpSource`. */
export async function openSource(source: SourceDescription): Promise<Source> {
  if (source instanceof Blob) return blobSource(source);
  const { url, ...options } = source;
  return httpSource(url, options);
}
