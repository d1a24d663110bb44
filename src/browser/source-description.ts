/** Sources as plain data, which a page sends to its worker; the worker opens them. */

import { CodError } from '../errors.ts';
import { blobSource } from '../sources/blob.ts';
import { formatOf } from '../sources/format.ts';
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

/** How an image is read: as it is, or as the disk in it. */
export type ImageFormat = 'raw' | 'qcow2';

/**
 * Opens the disk in a source.
 * @param format default: as the source's bytes tell
 * @throws {@link CodError} as `httpSource` and `imageSource`
 */
export async function openSource(source: SourceDescription, format?: ImageFormat): Promise<Source> {
  const isUrl = !(source instanceof Blob);
  const file = isUrl ? await httpSource(source.url, source) : blobSource(source);
  try {
    const headOnly = isUrl && source.allowWholeBody === true;
    if ((format ?? (await formatOf(file, { headOnly }))) === 'raw') return file;
    const { qcow2Source } = await loadQcow2();
    return await qcow2Source(file);
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Loads the reader of qcow2 images, which few pages need. It is a file of its own beside the worker's. */
async function loadQcow2(): Promise<typeof import('../sources/qcow2/source.ts')> {
  try {
    return await import('../sources/qcow2/source.ts');
  } catch (cause) {
    const message = 'the reader of qcow2 images cannot be loaded: serve browser-qcow2.js beside browser-worker.js';
    throw new CodError('COD_UNSUPPORTED', message, { cause });
  }
}
