/** Proxies: which one a URL needs. Credentials of a proxy are in no message. */

import { BlockList, isIP } from 'node:net';

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
