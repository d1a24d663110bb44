/** The image in SOURCE as a disk: `--format` and `--backing`. */

import { dirname, isAbsolute, join } from 'node:path';
import { CodError } from '../errors.ts';
import type { Qcow2SourceOptions } from '../sources/qcow2/source.ts';
import type { Source } from '../sources/source.ts';
import { UsageError } from './failure.ts';
import type { HttpFlags } from './http-options.ts';
import { openSource, parseSourceUri, type SourceUri, showSourceUri } from './source-uri.ts';

/** Parsed options that say how the image is read. */
export interface ImageFlags {
  readonly format?: 'raw' | 'qcow2';
  /** SOURCEs of the files that images name, in the order in which they are needed. `allow`: from there on as named. */
  readonly backing?: readonly string[];
  /** An option that is about the file and not about a disk in it. */
  readonly ofFile?: string;
}

/**
 * Opens the disk in a source.
 * @throws as {@link openSource} and `imageSource`
 */
export async function openImage(uri: SourceUri, flags: HttpFlags & ImageFlags, signal: AbortSignal): Promise<Source> {
  const [source, { imageSource }] = await Promise.all([openSource(uri, flags, signal), import('../sources/image.ts')]);
  const { format, backing, streamWhole = false } = flags;
  const openFile = backing === undefined ? undefined : fileOpener({ uri, source, flags, backing, signal });
  try {
    const image = await imageSource(source, {
      // A server without ranges would send everything before the last bytes.
      headOnly: streamWhole,
      signal,
      ...(format === undefined ? {} : { format }),
      ...(openFile === undefined ? {} : { openFile }),
    });
    if (image !== source && flags.ofFile !== undefined) {
      const remedy = 'use --format raw to copy the file, or --manifest for the disk';
      throw new UsageError(`${flags.ofFile} has the digest of the qcow2 file, not of the disk in it: ${remedy}`);
    }
    return image;
  } catch (error) {
    await source.close();
    throw error;
  }
}

/** Returns a function that opens what a qcow2 image needs: the files that `--backing` gives, or those that it names. */
function fileOpener({
  uri,
  source,
  flags,
  backing,
  signal,
}: {
  uri: SourceUri;
  source: Source;
  flags: HttpFlags;
  backing: readonly string[];
  signal: AbortSignal;
}): Required<Qcow2SourceOptions>['openFile'] {
  const places = new Map<Source, SourceUri>([[source, uri]]);
  const left = [...backing];
  return async ({ name, namedBy }) => {
    const given = left[0] === 'allow' ? 'allow' : left.shift();
    if (given === undefined)
      throw refused(name, `--backing gives only ${backing.length} of the files: give one for each, or \`allow\``);
    const place = given === 'allow' ? placeOf(name, places.get(namedBy)!) : parseSourceUri(given);
    const file = await openSource(place, flagsFor(place, uri, flags), signal);
    places.set(file, place);
    return file;
  };
}

/** Where the file is that an image names. An image on a server never leads to another server or to a local file. */
function placeOf(name: string, namedBy: SourceUri): SourceUri {
  if (namedBy.kind === 'file') {
    const path = name.replace(/^file:/, '');
    if (/^[a-z][a-z0-9+.-]*:/i.test(path)) throw refused(name, 'it is not a path: give it with --backing');
    return { kind: 'file', path: isAbsolute(path) ? path : join(dirname(namedBy.path), path) };
  }
  if (namedBy.kind === 'http') {
    const url = URL.canParse(name, namedBy.url) ? new URL(name, namedBy.url) : undefined;
    if (url?.origin !== namedBy.url.origin) throw refused(name, 'it is not on the same server: give it with --backing');
    return { kind: 'http', url };
  }
  if (namedBy.kind === 's3') {
    const key = keyBeside(namedBy.key, name);
    if (key === undefined) throw refused(name, 'it is not in the same bucket: give it with --backing');
    return { kind: 's3', bucket: namedBy.bucket, key };
  }
  throw refused(name, `${showSourceUri(namedBy)} has no folder: give it with --backing`);
}

/** Returns the key that a path relative to another key means; undefined if there is none in this bucket. */
function keyBeside(key: string, path: string): string | undefined {
  if (/^\/|^[a-z][a-z0-9+.-]*:/i.test(path)) return undefined;
  // A key may have empty segments.
  const parts = key.split('/').slice(0, -1);
  for (const part of path.split('/')) {
    if (part === '..' && parts.length === 0) return undefined;
    if (part === '..') parts.pop();
    else if (part !== '' && part !== '.') parts.push(part);
  }
  return parts.length === 0 ? undefined : parts.join('/');
}

/** Credentials are for the server of SOURCE only. */
export function flagsFor(place: SourceUri, uri: SourceUri, flags: HttpFlags): HttpFlags {
  if (place.kind === 'file') return {};
  if (place.kind === 'http' && uri.kind === 'http' && place.url.origin === uri.url.origin) return flags;
  if (place.kind === 's3' && uri.kind === 's3' && place.bucket === uri.bucket) return flags;
  const { retries, timeout, patienceMs, cacert, insecure, netrc, endpointUrl, signRequest } = flags;
  const kept = { retries, timeout, patienceMs, cacert, insecure, netrc, endpointUrl, signRequest };
  return Object.fromEntries(Object.entries(kept).filter(([, value]) => value !== undefined));
}

function refused(name: string, why: string): CodError {
  return new CodError('COD_UNSUPPORTED', `qcow2: the image needs ${name}, but ${why}`, { details: { name } });
}
