/** Tunnels through proxies, and what a proxy's refusal means. Credentials of a proxy are in no message. */

import { request as requestHttp } from 'node:http';
import { request as requestHttps } from 'node:https';
import { isIP, type Socket } from 'node:net';
import type { ConnectionOptions } from 'node:tls';
import { CodError } from '../../errors.ts';
import { hostOf, portOf, proxyAuthorization } from './node-proxy.ts';

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
