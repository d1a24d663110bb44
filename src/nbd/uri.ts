/**
 * URIs of NBD exports (NetworkBlockDevice/nbd, doc/uri.md): `nbd://host:port/export`, `nbd+unix:///export?socket=PATH`,
 * and `nbds` for TLS.
 */

import { DEFAULT_PORT, MAX_STRING_BYTES } from './constants.ts';

/** The address of an export. */
export interface NbdLocation {
  readonly at: { readonly socket: string } | { readonly host: string; readonly port: number };
  /** The empty name is the default export. */
  readonly exportName: string;
  readonly tls: boolean;
  /** A folder with `ca-cert.pem`. For servers that verify clients, also with `client-cert.pem` and `client-key.pem`. */
  readonly tlsCertificates?: string;
}

/** Returns whether {@link parseNbdUri} knows a scheme, given without its colon. */
export function isNbdScheme(scheme: string): boolean {
  return scheme in SCHEMES;
}

const SCHEMES: Readonly<Record<string, { readonly tls: boolean; readonly unix: boolean }>> = {
  nbd: { tls: false, unix: false },
  nbds: { tls: true, unix: false },
  'nbd+unix': { tls: false, unix: true },
  'nbds+unix': { tls: true, unix: true },
};

/**
 * Parses the URI of an export.
 * @throws `TypeError` if the URI is malformed or has an unknown parameter. Ignoring a parameter could mean connecting
 *   without protection.
 */
export function parseNbdUri(uri: string | URL): NbdLocation {
  const text = String(uri);
  if (!URL.canParse(text)) throw new TypeError(`${text} is not a valid URI`);
  const url = new URL(text);
  const scheme = SCHEMES[url.protocol.slice(0, -1)];
  if (scheme === undefined)
    throw new TypeError(`the scheme ${url.protocol.slice(0, -1)} is not one of ${Object.keys(SCHEMES).join(', ')}`);
  const { tls, unix } = scheme;
  if (url.hash !== '') throw new TypeError(`${text}: write a # in the export name as %23`);
  if (url.username !== '' || url.password !== '')
    throw new TypeError(`${url.protocol}// URIs have no user or password: NBD does not support them`);
  const parameters = new Map(url.searchParams);
  const take = (name: string): string | undefined => {
    const value = parameters.get(name);
    parameters.delete(name);
    if (value === '') throw new TypeError(`${text}: the parameter ${name} is empty`);
    return value;
  };
  const socket = take('socket');
  const tlsCertificates = tls ? take('tls-certificates') : undefined;
  for (const name of parameters.keys()) throw new TypeError(`${text}: unknown parameter ${name}`);
  const exportName = decode(url.pathname.replace(/^\//, ''), text);
  if (Buffer.byteLength(exportName) > MAX_STRING_BYTES)
    throw new TypeError(
      `the export name has ${Buffer.byteLength(exportName)} bytes, at most ${MAX_STRING_BYTES} are allowed`,
    );
  return {
    at: unix ? socketOf(url, socket) : hostOf(url, socket),
    exportName,
    tls,
    ...(tlsCertificates === undefined ? {} : { tlsCertificates }),
  };
}

function socketOf(url: URL, socket: string | undefined): { socket: string } {
  if (url.host !== '')
    throw new TypeError(`${url}: a unix socket has no host; write ${url.protocol}///EXPORT?socket=PATH`);
  if (socket === undefined) throw new TypeError(`${url}: ?socket=PATH is missing`);
  if (socket.includes('\0')) throw new TypeError('the socket path contains a zero byte');
  return { socket };
}

function hostOf(url: URL, socket: string | undefined): { host: string; port: number } {
  if (socket !== undefined) throw new TypeError(`${url}: the parameter socket needs nbd+unix://`);
  if (url.hostname === '') throw new TypeError(`${url}: the host is missing`);
  const host = decode(url.hostname, url.href).replace(/^\[(.*)\]$/, '$1');
  const port = url.port === '' ? DEFAULT_PORT : Number(url.port);
  if (port === 0) throw new TypeError(`${url}: port 0 is not valid`);
  return { host, port };
}

function decode(text: string, uri: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new TypeError(`${uri}: ${text} is not percent-encoded UTF-8`);
  }
}

/** Returns the URI of a location, without its certificates. */
export function showNbdLocation({ at, exportName, tls }: NbdLocation): string {
  const name = encodeURIComponent(exportName).replaceAll('%2F', '/');
  const scheme = tls ? 'nbds' : 'nbd';
  if ('socket' in at) return `${scheme}+unix:///${name}?socket=${encodeURIComponent(at.socket).replaceAll('%2F', '/')}`;
  const host = at.host.includes(':') ? `[${at.host}]` : at.host;
  return `${scheme}://${host}${at.port === DEFAULT_PORT ? '' : `:${at.port}`}/${name}`;
}
