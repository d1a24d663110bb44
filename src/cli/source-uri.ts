/** SOURCE on the command line: a path, an HTTP URL or an NBD URL. */

import { CodError } from '../errors.ts';
import { isNbdScheme, type NbdLocation, parseNbdUri, showNbdLocation } from '../nbd/uri.ts';
import { shown } from '../sources/http/location.ts';
import type { HttpSourceOptions } from '../sources/http/source.ts';
import type { RetryReport } from '../sources/retry.ts';
import type { Source } from '../sources/source.ts';
import { UsageError } from './failure.ts';

/** A parsed SOURCE. */
export type SourceUri =
  | { readonly kind: 'file'; readonly path: string }
  | { readonly kind: 'http'; readonly url: URL }
  | { readonly kind: 'nbd'; readonly location: NbdLocation };

/** Parsed options that apply to sources over a network. */
export interface HttpFlags {
  readonly header?: readonly string[];
  readonly user?: string;
  readonly streamWhole?: boolean;
  readonly retries?: number;
  /** Seconds. */
  readonly timeout?: number;
  readonly sameSource?: boolean;
  /** Gets each request that is tried again. */
  readonly onRetry?: (report: RetryReport) => void;
}

const KINDS = 'a path, or a URL with http://, https://, nbd://, nbds:// or nbd+unix://';
const SCHEME = /^([a-z][a-z0-9+.-]*):\/\//i;

/** @throws {@link UsageError} for an unsupported scheme or an invalid URL. */
export function parseSourceUri(text: string): SourceUri {
  const scheme = SCHEME.exec(text)?.[1]?.toLowerCase();
  if (scheme === undefined) {
    if (text === '') throw new UsageError(`SOURCE is empty: give ${KINDS}`);
    return { kind: 'file', path: text };
  }
  if (isNbdScheme(scheme)) return { kind: 'nbd', location: locationOf(text) };
  if (scheme !== 'http' && scheme !== 'https') {
    throw new UsageError(`${scheme}:// sources are not supported: give ${KINDS}`);
  }
  if (!URL.canParse(text)) throw new UsageError('SOURCE is not a valid URL');
  return { kind: 'http', url: new URL(text) };
}

function locationOf(text: string): NbdLocation {
  try {
    return parseNbdUri(text);
  } catch (error) {
    if (error instanceof TypeError) throw new UsageError(error.message);
    throw error;
  }
}

/** Returns the URI without its query and credentials, for messages and events: a query may hold a signature. */
export function showSourceUri(uri: SourceUri): string {
  if (uri.kind === 'file') return uri.path;
  if (uri.kind === 'nbd') return showNbdLocation(uri.location);
  return shown(uri.url);
}

/** @throws {@link UsageError} for options that do not apply to this kind of source. */
export function checkSourceFlags(uri: SourceUri, flags: HttpFlags): void {
  const { retry: _, stallTimeoutMs, ...http } = httpOptions(flags);
  if (uri.kind === 'http') return;
  if (Object.keys(http).length > 0)
    throw new UsageError(
      `--header, --user and --stream-whole need an HTTP source, not ${uri.kind === 'file' ? 'a path' : 'NBD'}`,
    );
  if (uri.kind === 'file' && stallTimeoutMs !== undefined)
    throw new UsageError('--timeout needs a network source, not a path');
}

/**
 * Opens a source.
 * @throws {@link UsageError} for options that the source refuses; the errors of the source.
 */
export async function openSource(uri: SourceUri, flags: HttpFlags, signal: AbortSignal): Promise<Source> {
  const options = httpOptions(flags);
  if (uri.kind === 'file') {
    const { fileSource } = await import('../sources/file.ts');
    return fileSource(uri.path);
  }
  if (uri.kind === 'nbd') {
    const { retry, stallTimeoutMs } = options;
    const { nbdSourceAt } = await import('../nbd/client/source.ts');
    return nbdSourceAt(uri.location, {
      signal,
      ...(retry === undefined ? {} : { retry }),
      ...(stallTimeoutMs === undefined ? {} : { stallTimeoutMs }),
    });
  }
  const { httpSource } = await import('../sources/http/source.ts');
  try {
    return await httpSource(uri.url, { ...options, sameSource: flags.sameSource ?? false, signal });
  } catch (error) {
    // The library's errors for wrong arguments are wrong options or a wrong URL here.
    if (error instanceof TypeError) throw new UsageError(error.message);
    throw hinted(error);
  }
}

/** @throws {@link UsageError} */
export function httpOptions({ header, user, streamWhole, retries, timeout, onRetry }: HttpFlags): HttpSourceOptions {
  const options: HttpSourceOptions = {};
  if (header !== undefined) options.headers = Object.fromEntries(header.map(splitHeader));
  if (user !== undefined) Object.assign(options, splitUser(user));
  if (streamWhole) options.allowWholeBody = true;
  if (retries !== undefined) options.retry = { attempts: retries + 1 };
  if (onRetry !== undefined) options.retry = { ...options.retry, onRetry };
  if (timeout !== undefined) options.stallTimeoutMs = timeout * 1000;
  return options;
}

function splitHeader(text: string): [name: string, value: string] {
  const colon = text.indexOf(':');
  if (colon < 1) throw new UsageError("--header needs the form 'Name: value'");
  return [text.slice(0, colon).trim(), text.slice(colon + 1).trim()];
}

function splitUser(text: string): { username: string; password: string } {
  const colon = text.indexOf(':');
  if (colon < 0) throw new UsageError('--user needs the form name:password');
  return { username: text.slice(0, colon), password: text.slice(colon + 1) };
}

const HINTS: Readonly<Record<number, string>> = {
  200: '--stream-whole',
  401: '--user or --header',
  403: '--user or --header',
};

/** Adds the name that an option has on the command line to an error that names the library's option. */
function hinted(error: unknown): unknown {
  if (!(error instanceof CodError)) return error;
  const hint = HINTS[Number(error.details['status'])];
  if (hint === undefined) return error;
  return new CodError(error.code, `${error.message} (option: ${hint})`, { cause: error.cause, details: error.details });
}
