/** The transport for networks with proxies, private authorities and client certificates: its options. */

import type { ConnectionOptions } from 'node:tls';
import { lazyTransport } from './lazy-transport.ts';
import { proxiesOf } from './node-proxy.ts';
import type { HttpTransport } from './transport.ts';

/** TLS settings of {@link httpTransport}, in PEM, as `tls.connect` of Node takes them. */
export interface HttpTls extends Pick<ConnectionOptions, 'ca' | 'cert' | 'key' | 'passphrase'> {
  /** Verifies the certificate of the server. Default: true. */
  readonly rejectUnauthorized?: boolean;
}

/** Options of {@link httpTransport}. */
export interface HttpTransportOptions {
  /**
   * The proxies, as the variables `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` name them, for example `process.env`.
   * Names in lower case count first. Default: none.
   */
  readonly proxies?: Readonly<Record<string, string | undefined>>;
  /**
   * TLS settings. A function gets the origin of the server, such as `https://example.org`: with it, a client
   * certificate is not presented where a redirect leads to. Proxies with TLS get the settings without certificate and
   * key. Default: those of Node.
   */
  readonly tls?: HttpTls | ((origin: string) => HttpTls);
}

/**
 * Returns a transport for `httpSource` and `s3Source`, for networks with proxies, private authorities and client
 * certificates. It has connections of its own, which end with the source: make one for each source.
 *
 * - A proxy is asked for `http` itself, and for a tunnel to `https`. It may have TLS and Basic authentication.
 * - If a proxy denies access, or a certificate is not accepted, the source rejects with COD_SOURCE_IO.
 *
 * @throws `TypeError` when a proxy is not `http://user:password@host:port`, with http or https.
 * @example
 * ```ts
 * import { httpSource } from 'copyondemand';
 * import { httpTransport } from 'copyondemand/node';
 *
 * const company = { ca: process.env['COMPANY_CA'] }; // PEM
 * const proxies = { HTTPS_PROXY: 'http://me:secret@proxy.example.org:3128', NO_PROXY: '.local' }; // or process.env
 * const transport = httpTransport({ tls: company, proxies });
 * const source = await httpSource('https://example.org/disk.raw', { transport });
 * await source.close();
 * ```
 */
export function httpTransport({ tls, proxies }: HttpTransportOptions = {}): HttpTransport {
  const options = {
    ...(tls === undefined ? {} : { tls }),
    ...(proxies === undefined ? {} : { proxy: proxiesOf(proxies) }),
  };
  return lazyTransport(async () => (await import('./node-transport.ts')).nodeTransport(options));
}
