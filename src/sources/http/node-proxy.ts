/** Proxies: which one a URL needs, and tunnels through it. Credentials of a proxy are in no message. */

import { request as requestHttp } from 'node:http';
import { request as requestHttps } from 'node:https';
import { BlockList, isIP, type Socket } from 'node:net';
import type { ConnectionOptions } from 'node:tls';
import { CodError } from '../../errors.ts';

/** Returns the proxy for a URL, http or https, with its credentials. Undefined: none. */
export type ProxyFunction = (url: URL) => URL | undefined;

/**
 * Returns the function for `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`. Lower case counts first, as in other programs.
 *
 * @throws `TypeError` when a proxy is no URL with http or https
 */
export function proxiesOf(env: Readonly<Record<string, string | undefined>>): ProxyFunction {
  const value = (name: string) => (env[name.toLowerCase()] || env[name])?.trim() || undefined;
  const proxies = { 'http:': parseProxy('HTTP_PROXY', value), 'https:': parseProxy('HTTPS_PROXY', value) };
  const exceptions = (value('NO_PROXY') ?? '').split(/[\s,]+/).filter((entry) => entry !== '');
  return (url) => {
    const proxy = proxies[url.protocol as keyof typeof proxies];
    return proxy === undefined || exceptions.some((entry) => covers(entry, url)) ? undefined : proxy;
  };
}

function parseProxy(name: string, value: (name: string) => string | undefined): URL | undefined {
  const text = value(name);
  if (text === undefined) return undefined;
  const full = text.includes('://') ? text : `http://${text}`;
  try {
    const url = new URL(full);
    proxyAuthorization(url);
    if (/^https?:$/.test(url.protocol)) return url;
  } catch {
    // The error would show the text, which may contain a password.
  }
  throw new TypeError(`${name} must have the form http://user:password@host:port, with http or https`);
}

/** Whether an entry of `NO_PROXY` covers a URL: `*`, a domain with all below it, an address, or a network. */
function covers(entry: string, url: URL): boolean {
  if (entry === '*') return true;
  const host = hostOf(url).replace(/\.$/, '');
  const [, named = '', port] = isIP(entry) > 0 ? ['', entry] : (/^\[?(.*?)\]?(?::(\d+))?$/.exec(entry) ?? []);
  if (port !== undefined && Number(port) !== portOf(url)) return false;
  if (isIP(host) === 0) {
    const domain = named.toLowerCase().replace(/^\*?\.|\.$/g, '');
    return host === domain || host.endsWith(`.${domain}`);
  }
  const [address = '', bits] = named.split('/');
  const family = isIP(address);
  if (family === 0 || family !== isIP(host)) return false;
  const most = family === 6 ? 128 : 32;
  const length = bits === undefined ? most : Number(bits);
  if (!(length >= 0 && length <= most)) return false;
  const network = new BlockList();
  network.addSubnet(address, length, family === 6 ? 'ipv6' : 'ipv4');
  return network.check(host, family === 6 ? 'ipv6' : 'ipv4');
}

/** Returns the host of a URL as node:net takes it. */
export function hostOf({ hostname }: URL): string {
  return hostname.replace(/^\[|\]$/g, '');
}

export function portOf({ port, protocol }: URL): number {
  return Number(port || (protocol === 'https:' ? 443 : 80));
}

/** Returns the header with the credentials of a proxy, if it has some. */
export function proxyAuthorization({ username, password }: URL): Record<string, string> {
  if (username === '' && password === '') return {};
  const credentials = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
  return { 'proxy-authorization': `Basic ${Buffer.from(credentials).toString('base64')}` };
}

/**
 * Opens a tunnel to `host:port` through a proxy. Calls `done` once, unless it is destroyed before.
 *
 * @param tls for the connection to a proxy with https
 */
export function openTunnel(
  proxy: URL,
  { host, port, tls }: { readonly host: string; readonly port: number; readonly tls: ConnectionOptions },
  done: (error: Error | undefined, socket?: Socket) => void,
): { destroy(): void } {
  const authority = `${isIP(host) === 6 ? `[${host}]` : host}:${port}`;
  const asked = (proxy.protocol === 'https:' ? requestHttps : requestHttp)({
    ...tls,
    host: hostOf(proxy),
    port: portOf(proxy),
    method: 'CONNECT',
    path: authority,
    agent: false,
    headers: { host: authority, 'user-agent': 'copyondemand', ...proxyAuthorization(proxy) },
  });
  asked.once('error', (error) => done(error));
  asked.once('connect', ({ statusCode = 0 }, socket: Socket, head) => {
    if (statusCode >= 200 && statusCode < 300) {
      if (head.length > 0) socket.unshift(head);
      done(undefined, socket);
      return;
    }
    socket.destroy();
    done(proxyRefusal(proxy, statusCode, authority));
  });
  asked.end();
  return asked;
}

/** Returns the error for the answer of a proxy. A CodError is final. */
export function proxyRefusal(proxy: URL, status: number, authority: string): Error {
  const message =
    status === 407
      ? `the proxy ${proxy.origin} denies access (407): set its user and password, as http://user:password@host:port`
      : `the proxy ${proxy.origin} does not connect to ${authority} (${status})`;
  return status >= 500 ? new Error(message) : new CodError('COD_SOURCE_IO', message, { details: { status } });
}
