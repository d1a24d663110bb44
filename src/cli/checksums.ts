/** Digests of whole images: those of the options, and those of published files such as SHA256SUMS. */

import { basename } from 'node:path';
import { CodError } from '../errors.ts';
import { UsageError } from './failure.ts';
import type { HttpFlags } from './http-options.ts';
import { flagsFor } from './image.ts';
import { openSource, parseSourceUri, type SourceUri, showSourceUri } from './source-uri.ts';

/** The digest that an image must have. */
export interface Digest {
  readonly algorithm: 'sha256' | 'sha512';
  /** Lower-case. */
  readonly hex: string;
}

/** Options that name a digest. */
export interface DigestFlags {
  /** Lower-case hex. */
  readonly sha256?: string;
  readonly sha512?: string;
  /** A path or URL of a file with digests. */
  readonly checksums?: string;
}

/** What a file says of one image. */
export interface FoundDigest {
  readonly digest: Digest | undefined;
  /** Why there is no digest. */
  readonly problem?: string;
  readonly isSigned: boolean;
}

const MAX_FILE_BYTES = 2 ** 24;
const GNU = /^(\\?)([0-9a-f]+) [ *](.+)$/i;
const BSD = /^(\\?)SHA(?:256|512) \((.+)\) = ([0-9a-f]+)$/i;
const ALONE = /^([0-9a-f]+)$/i;
const SIGNED = '-----BEGIN PGP SIGNED MESSAGE-----';
const SIGNATURE = '-----BEGIN PGP SIGNATURE-----';
const ALGORITHMS: Readonly<Record<number, Digest['algorithm']>> = { 64: 'sha256', 128: 'sha512' };

/** `SHA-256` or `SHA-512`. */
export function nameOf({ algorithm }: Pick<Digest, 'algorithm'>): string {
  return algorithm === 'sha256' ? 'SHA-256' : 'SHA-512';
}

/**
 * Returns the digest that the options name; undefined if they name none.
 * @param warn gets what a user should know about the file
 * @throws {@link UsageError} for more than one, or a SOURCE without a name; {@link CodError} COD_NOT_FOUND if the file
 * has no digest of SOURCE; COD_CORRUPT if it has several; the errors of the file.
 */
export async function digestOf(
  uri: SourceUri,
  flags: DigestFlags & HttpFlags,
  signal: AbortSignal,
  warn: (message: string) => void,
): Promise<Digest | undefined> {
  const { sha256, sha512, checksums } = flags;
  if ([sha256, sha512, checksums].filter((flag) => flag !== undefined).length > 1)
    throw new UsageError('use only one of --sha256, --sha512 and --checksums');
  if (sha256 !== undefined) return { algorithm: 'sha256', hex: sha256 };
  if (sha512 !== undefined) return { algorithm: 'sha512', hex: sha512 };
  if (checksums === undefined) return undefined;
  const name = nameOfSource(uri);
  const place = parseSourceUri(checksums);
  const { digest, problem, isSigned } = findDigest(await textOf(place, uri, flags, signal), name);
  const shown = showSourceUri(place);
  if (digest === undefined) {
    throw new CodError(
      problem === undefined ? 'COD_NOT_FOUND' : 'COD_CORRUPT',
      `${shown} ${problem ?? 'has no SHA-256 or SHA-512'} of ${name}`,
      {
        details: { name },
      },
    );
  }
  if (isSigned) warn(`the signature in ${shown} is not verified: verify it with gpg`);
  return digest;
}

/** Returns the longest digest that a file has for `name`: in lines of GNU's or BSD's tools, or as a digest alone. */
export function findDigest(text: string, name: string): FoundDigest {
  const isSigned = text.includes(SIGNED) || text.includes(SIGNATURE);
  const found = new Map<Digest['algorithm'], Set<string>>();
  const alone: string[] = [];
  let lines = 0;
  for (const raw of text.split(SIGNATURE)[0]!.split(/\r?\n/)) {
    // A signed text has "- " before lines that begin with a dash.
    const line = raw.replace(/^- /, '').trimEnd();
    const [, gnuEscape, gnuHex, gnuName] = GNU.exec(line) ?? [];
    const [, bsdEscape, bsdName, bsdHex] = BSD.exec(line) ?? [];
    const hex = (gnuHex ?? bsdHex ?? ALONE.exec(line)?.[1])?.toLowerCase();
    const algorithm = ALGORITHMS[hex?.length ?? 0];
    if (hex === undefined || algorithm === undefined) continue;
    lines++;
    const written = gnuName ?? bsdName;
    if (written === undefined) alone.push(hex);
    else if (basename(unescaped(written, gnuEscape ?? bsdEscape)) === name)
      found.set(algorithm, (found.get(algorithm) ?? new Set()).add(hex));
  }
  // A file beside the image, such as disk.raw.sha256.
  if (lines === 1 && alone.length === 1) found.set(ALGORITHMS[alone[0]!.length]!, new Set(alone));
  for (const algorithm of ['sha512', 'sha256'] as const) {
    const [hex, other] = found.get(algorithm) ?? [];
    if (other !== undefined) return { digest: undefined, problem: 'has several digests', isSigned };
    if (hex !== undefined) return { digest: { algorithm, hex }, isSigned };
  }
  return { digest: undefined, isSigned };
}

/** GNU's tools write a backslash before a line whose name has escapes. */
function unescaped(name: string, mark: string | undefined): string {
  return mark === '\\' ? name.replace(/\\(.)/g, (_, what: string) => ({ n: '\n', r: '\r' })[what] ?? what) : name;
}

/** @throws {@link UsageError} for a source that has no name. */
function nameOfSource(uri: SourceUri): string {
  if (uri.kind === 'nbd') throw new UsageError('--checksums needs a SOURCE with a file name: use --sha256');
  if (uri.kind === 'file') return basename(uri.path);
  if (uri.kind === 's3') return basename(uri.key);
  const name = basename(uri.url.pathname);
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
}

async function textOf(place: SourceUri, uri: SourceUri, flags: HttpFlags, signal: AbortSignal): Promise<string> {
  const file = await openSource(place, { ...flagsFor(place, uri, flags), streamWhole: true }, signal);
  try {
    if (file.size > MAX_FILE_BYTES) {
      throw new CodError('COD_UNSUPPORTED', `${showSourceUri(place)} has ${file.size} bytes: no file of digests`, {
        details: { size: file.size },
      });
    }
    const bytes = new Uint8Array(file.size);
    await file.read(bytes, 0, { signal });
    return new TextDecoder().decode(bytes);
  } finally {
    await file.close();
  }
}
