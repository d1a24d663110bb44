/** Options of the command for sources over a network, and the environment's settings for them. */

import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { createSecureContext } from 'node:tls';
import { ioError } from '../platform/errno.ts';
import { basic } from '../sources/http/location.ts';
import type { HttpTls } from '../sources/http/node-http-transport.ts';
import type { HttpSourceOptions } from '../sources/http/source.ts';
import type { HttpTransport } from '../sources/http/transport.ts';
import type { RetryReport } from '../sources/retry.ts';
import { UsageError } from './failure.ts';
import type { SourceUri } from './source-uri.ts';

/** Parsed options that apply to sources over a network. */
export interface HttpFlags {
  readonly header?: readonly string[];
  /** `NAME:PASSWORD`. */
  readonly user?: string;
  /** A file with that. */
  readonly userFile?: string;
  readonly netrc?: boolean;
  /** PEM files: authorities, a client certificate and its key. */
  readonly cacert?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly insecure?: boolean;
  readonly streamWhole?: boolean;
  readonly retries?: number;
  /** Seconds. */
  readonly timeout?: number;
  /** How long a read may fail. Milliseconds. */
  readonly patienceMs?: number;
  readonly sameSource?: boolean;
  /** The server of S3. */
  readonly endpointUrl?: string;
  /** False: the object in S3 is public. */
  readonly signRequest?: boolean;
  /** Gets each request that is tried again. */
  readonly onRetry?: (report: RetryReport) => void;
}

/** Which options a kind of source has. */
const KINDS: readonly (readonly [
  option: string,
  isGiven: (flags: HttpFlags) => unknown,
  kinds: readonly SourceUri['kind'][],
  needs: string,
])[] = [
  ['--header', ({ header }) => header, ['http', 's3'], 'an HTTP source'],
  ['--user', ({ user }) => user, ['http'], 'an HTTP source'],
  ['--user-file', ({ userFile }) => userFile, ['http'], 'an HTTP source'],
  ['--netrc', ({ netrc }) => netrc, ['http'], 'an HTTP source'],
  ['--stream-whole', ({ streamWhole }) => streamWhole, ['http'], 'an HTTP source'],
  ['--cacert', ({ cacert }) => cacert, ['http', 's3'], 'an HTTP source'],
  ['--cert', ({ cert }) => cert, ['http', 's3'], 'an HTTP source'],
  ['--key', ({ key }) => key, ['http', 's3'], 'an HTTP source'],
  ['--insecure', ({ insecure }) => insecure, ['http', 's3'], 'an HTTP source'],
  ['--endpoint-url', ({ endpointUrl }) => endpointUrl, ['s3'], 'an S3 source'],
  ['--no-sign-request', ({ signRequest = true }) => !signRequest, ['s3'], 'an S3 source'],
  ['--timeout', ({ timeout }) => timeout, ['http', 's3', 'nbd'], 'a network source'],
];

/**
 * Checks the options of a source as far as that needs no server.
 * @throws {@link UsageError} for options that do not apply to this kind of source, or are malformed.
 * @throws {@link CodError} COD_NOT_FOUND for a certificate that does not exist.
 */
export function checkSourceFlags({ kind }: SourceUri, flags: HttpFlags): void {
  for (const [option, isGiven, kinds, needs] of KINDS)
    if (isGiven(flags) && !kinds.includes(kind)) throw new UsageError(`${option} needs ${needs}, not ${NAMES[kind]}`);
  httpOptions(flags);
  if (kind === 'http' || kind === 's3') tlsOptions(flags);
}

/** Whether a kind of source has an option, such as `--header`. */
export function hasOption({ kind }: SourceUri, option: string): boolean {
  return KINDS.find(([name]) => name === option)?.[2].includes(kind) ?? true;
}

const NAMES = { file: 'a path', http: 'HTTP', s3: 'S3', nbd: 'NBD' } as const;

/**
 * Returns the options of the source. Files with secrets are read when the source asks for headers: at opening, and when
 * the server says that they have expired.
 * @throws {@link UsageError}
 */
export function httpOptions(flags: HttpFlags): HttpSourceOptions {
  const { header = [], user, userFile, streamWhole, retries, timeout, patienceMs, onRetry } = flags;
  if (user !== undefined && userFile !== undefined) throw new UsageError('use either --user or --user-file');
  const options: HttpSourceOptions = {};
  const headers = () => ({
    ...Object.fromEntries(header.flatMap(linesOf).map(splitHeader)),
    ...(userFile === undefined ? {} : basicOf(splitUser(readSecret(userFile), '--user-file'))),
  });
  if (userFile !== undefined || header.some((line) => line.startsWith('@'))) options.headers = headers;
  else if (header.length > 0) options.headers = headers();
  if (user !== undefined) Object.assign(options, splitUser(user, '--user'));
  if (streamWhole) options.allowWholeBody = true;
  if (retries !== undefined) options.retry = { attempts: retries + 1 };
  if (patienceMs !== undefined) options.retry = { ...options.retry, patienceMs };
  if (onRetry !== undefined) options.retry = { ...options.retry, onRetry };
  if (timeout !== undefined) options.stallTimeoutMs = timeout * 1000;
  return options;
}

/**
 * Returns the user and the password that `--netrc` has for a host: of the file `NETRC`, or `~/.netrc`.
 * @throws {@link CodError} COD_NOT_FOUND
 */
export function netrcLogin(host: string): { username?: string; password?: string } {
  const text = readSecret(process.env['NETRC'] || join(process.env['HOME'] || homedir(), '.netrc'));
  // A macro ends with an empty line.
  const plain = text.replace(/^\s*macdef\b[\s\S]*?(?:\n\s*\n|$(?![\s\S]))|^\s*#.*/gm, '');
  const words = plain.match(/"(?:[^"\\]|\\.)*"|\S+/g) ?? [];
  const login: { username?: string; password?: string } = {};
  let applies = false;
  for (let index = 0; index < words.length; index++) {
    const [word, next = ''] = [words[index], words[index + 1]];
    const value = next.startsWith('"') ? next.slice(1, -1).replace(/\\(.)/g, '$1') : next;
    if (word === 'machine' || word === 'default') {
      if (applies) break;
      applies = word === 'default' || value === host;
    } else if (applies && word === 'login') login.username = value;
    else if (applies && word === 'password') login.password = value;
    if (word !== 'default') index++;
  }
  return login;
}

/**
 * Opens the transport for a source: its authorities, client certificate and proxies.
 * @param origin the only one that gets the client certificate; undefined: all do
 */
export async function openTransport(origin: string | undefined, flags: HttpFlags): Promise<HttpTransport> {
  const { trust, client } = tlsOptions(flags);
  const { httpTransport } = await import('../sources/http/node-http-transport.ts');
  return httpTransport({
    // Where a redirect leads, the certificate is not presented.
    tls: (to) => (origin === undefined || to === origin ? { ...trust, ...client } : trust),
    proxies: process.env,
  });
}

/** @throws {@link CodError} COD_NOT_FOUND; {@link UsageError} */
function tlsOptions({ cacert = process.env['SSL_CERT_FILE'] || undefined, cert, key, insecure }: HttpFlags): {
  readonly trust: HttpTls;
  readonly client: HttpTls;
} {
  if ((cert === undefined) !== (key === undefined)) throw new UsageError('--cert and --key must be used together');
  const ca = cacert === undefined ? undefined : readText(cacert);
  if (ca !== undefined && !ca.includes('-----BEGIN')) throw new UsageError(`${cacert} has no certificate in PEM`);
  const trust = { ...(ca === undefined ? {} : { ca }), ...(insecure ? { rejectUnauthorized: false } : {}) };
  const client = cert === undefined || key === undefined ? {} : { cert: readText(cert), key: readText(key) };
  try {
    if (cert !== undefined) createSecureContext({ ...trust, ...client });
  } catch (cause) {
    throw new UsageError(`the certificates and the key do not match: ${(cause as Error).message}`);
  }
  return { trust, client };
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw ioError(`read ${path}`, cause, { path });
  }
}

function readSecret(path: string): string {
  return readText(path).replace(/\s+$/, '');
}

/** A header, or those in a file: `@FILE`. */
function linesOf(header: string): string[] {
  if (!header.startsWith('@')) return [header];
  return readSecret(header.slice(1))
    .split(/\r?\n/)
    .filter((line) => line.trim() !== '');
}

function splitHeader(text: string): [name: string, value: string] {
  const colon = text.indexOf(':');
  if (colon < 1) throw new UsageError("--header needs the form 'Name: value', or @FILE with such lines");
  return [text.slice(0, colon).trim(), text.slice(colon + 1).trim()];
}

function splitUser(text: string, option: string): { username: string; password: string } {
  const colon = text.indexOf(':');
  if (colon < 0) throw new UsageError(`${option} needs the form name:password`);
  return { username: text.slice(0, colon), password: text.slice(colon + 1) };
}

function basicOf({ username, password }: { username: string; password: string }): Record<string, string> {
  return basic(username, password);
}
