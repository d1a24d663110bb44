/** TLS on a connection that began in plaintext. */

import type { Duplex } from 'node:stream';
import { createSecureContext, createServer, type TLSSocket, type TlsOptions } from 'node:tls';
import { LIMITS } from './limits.ts';

/** TLS settings of a server: X.509 certificates in PEM. The lowest version is TLS 1.2. */
export interface NbdTlsOptions {
  /** The server's certificate, and any intermediate certificates. */
  readonly cert: string | Uint8Array;
  /** The private key of `cert`. */
  readonly key: string | Uint8Array;
  /** The authority of the clients' certificates. If given, a client must present one. Default: none. */
  readonly ca?: string | Uint8Array;
}

/**
 * Returns a function that starts TLS on a socket, as the server.
 * @throws `TypeError` if the certificate, the key or the authority is malformed, or they do not match.
 */
export function tlsServer({ cert, key, ca }: NbdTlsOptions): (socket: Duplex) => Promise<Duplex> {
  const asBuffer = (pem: string | Uint8Array): string | Buffer => (typeof pem === 'string' ? pem : Buffer.from(pem));
  const options: TlsOptions = {
    cert: asBuffer(cert),
    key: asBuffer(key),
    ...(ca === undefined ? {} : { ca: asBuffer(ca), requestCert: true, rejectUnauthorized: true }),
    minVersion: 'TLSv1.2',
    handshakeTimeout: LIMITS.handshakeMs,
  };
  try {
    createSecureContext(options);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new TypeError(`the TLS certificate, its key and its CA do not match: ${reason}`, { cause });
  }
  return (socket) => secure(socket, options);
}

/** Starts TLS. Each connection has a TLS server of its own, whose events therefore belong to this handshake. */
function secure(socket: Duplex, options: TlsOptions): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const server = createServer({ ...options, allowHalfOpen: true });
    server.once('secureConnection', resolve);
    server.once('tlsClientError', (error) => {
      socket.destroy();
      reject(error);
    });
    socket.once('close', () => reject(new Error('the client has disconnected')));
    server.emit('connection', socket);
  });
}
