/** SOURCE on the command line: a path, an HTTP URL, an object in S3 or an NBD URL. */

import { CodError } from '../errors.ts';
import { isNbdScheme, type NbdLocation, parseNbdUri, showNbdLocation } from '../nbd/uri.ts';
import { shown } from '../sources/http/location.ts';
import type { HttpSourceOptions } from '../sources/http/source.ts';
import type { Source } from '../sources/source.ts';
import { UsageError } from './failure.ts';
import { type HttpFlags, httpOptions, netrcLogin, openTransport } from './http-options.ts';

/** A parsed SOURCE. */
export type SourceUri =
  | { readonly kind: 'file'; readonly path: string }
  | { readonly kind: 'http'; readonly url: URL }
  | { readonly kind: 's3'; readonly bucket: string; readonly key: string; readonly versionId?: string }
  | { readonly kind: 'nbd'; readonly location: NbdLocation };

const KINDS = 'a path, or a URL with http://, https://, s3://, nbd://, nbds:// or nbd+unix://';
const SCHEME = /^([a-z][a-z0-9+.-]*):\/\//i;

/** @throws {@link UsageError} for an unsupported scheme or an invalid URL. */
export function parseSourceUri(text: string): SourceUri {
  const scheme = SCHEME.exec(text)?.[1]?.toLowerCase();
  if (scheme === undefined) {
    if (text === '') throw new UsageError(`SOURCE is empty: give ${KINDS}`);
    return { kind: 'file', path: text };
  }
  if (isNbdScheme(scheme)) return { kind: 'nbd', location: locationOf(text) };
  if (scheme === 's3') return objectOf(text);
  if (scheme !== 'http' && scheme !== 'https') {
    throw new UsageError(`${scheme}:// sources are not supported: give ${KINDS}`);
  }
  if (!URL.canParse(text)) throw new UsageError('SOURCE is not a valid URL');
  return { kind: 'http', url: new URL(text) };
}

/** As in AWS's own tools, the key is not percent-encoded. Their URIs have no versions. */
function objectOf(text: string): SourceUri {
  const [, bucket, key, versionId] = /^s3:\/\/([^/]+)\/(.+?)(?:\?versionId=([^?&=]+))?$/i.exec(text) ?? [];
  if (bucket === undefined || key === undefined) throw new UsageError('an S3 source needs the form s3://BUCKET/KEY');
  return { kind: 's3', bucket, key, ...(versionId === undefined ? {} : { versionId }) };
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
  if (uri.kind === 's3')
    return `s3://${uri.bucket}/${uri.key}${uri.versionId === undefined ? '' : `?versionId=${uri.versionId}`}`;
  return shown(uri.url);
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
  try {
    const how = { ...options, sameSource: flags.sameSource ?? false, signal };
    if (uri.kind === 's3') return await openObject(uri, flags, how);
    const transport = await openTransport(uri.url.origin, flags);
    const { httpSource } = await import('../sources/http/source.ts');
    const hasUser = flags.user !== undefined || flags.userFile !== undefined || uri.url.username !== '';
    const login = flags.netrc && !hasUser ? netrcLogin(uri.url.hostname) : {};
    return await httpSource(uri.url, { ...how, transport, ...login });
  } catch (error) {
    // The library's errors for wrong arguments are wrong options or a wrong URL here.
    if (error instanceof TypeError) throw new UsageError(error.message);
    throw hinted(error, HINTS[uri.kind]);
  }
}

async function openObject(
  { bucket, key, versionId }: SourceUri & { kind: 's3' },
  flags: HttpFlags,
  options: HttpSourceOptions,
): Promise<Source> {
  const [{ s3Source }, { awsCredentials, awsPlace }] = await Promise.all([
    import('../sources/s3/source.ts'),
    import('../sources/s3/node-aws.ts'),
  ]);
  const { endpointUrl, signRequest = true } = flags;
  const place = { ...(await awsPlace()), ...(endpointUrl === undefined ? {} : { endpoint: endpointUrl }) };
  // AWS has a server for each region.
  const origin = URL.canParse(place.endpoint ?? '') ? new URL(place.endpoint!).origin : undefined;
  let isAnonymous = true;
  const find = awsCredentials();
  const credentials = async () => {
    const found = await find();
    isAnonymous = found === undefined;
    return found;
  };
  try {
    return await s3Source({
      ...options,
      transport: await openTransport(origin, flags),
      bucket,
      key,
      ...(versionId === undefined ? {} : { versionId }),
      ...place,
      ...(signRequest ? { credentials } : {}),
    });
  } catch (error) {
    throw signRequest && isAnonymous ? hinted(error, { 403: 'no AWS credentials were found' }) : error;
  }
}

type Hints = Readonly<Record<number, string>>;

const CREDENTIALS = 'option: --user, --netrc or --header';
const HINTS: Readonly<Record<'http' | 's3', Hints>> = {
  http: { 200: 'option: --stream-whole', 401: CREDENTIALS, 403: CREDENTIALS },
  s3: {},
};

/** Adds what the command has for an error of this status: the library's message names the library's options. */
function hinted(error: unknown, hints: Hints): unknown {
  if (!(error instanceof CodError)) return error;
  const isUntrusted = /CERT|SELF_SIGNED|UNABLE_TO/.test(String(error.details['errno']));
  const hint = isUntrusted ? 'option: --cacert' : hints[Number(error.details['status'])];
  if (hint === undefined) return error;
  return new CodError(error.code, `${error.message} (${hint})`, { cause: error.cause, details: error.details });
}
