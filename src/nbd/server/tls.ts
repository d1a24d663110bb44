/** TLS on a connection that began in the clear. */

import type { Duplex } from 'node:stream';
import { createSecureContext, createServer, type TLSSocket, type TlsOptions } from 'node:tls';
import { LIMITS } from './limits.ts';

/** X.509 certificates, as PEM. */
export interface NbdTlsOptions {
  /** The server's certificate, and those between it and the authority. */
  readonly cert: string | Uint8Array;
  /** Its private key. */
  readonly key: string | Uint8Array;
  /** The authority of the clients' certificates. Given: a client must have one. */
  readonly ca?: string | Uint8Array;
}

/**
 * What puts a socket under TLS, as its server.
 * @throws `TypeError` if key and certificate do not fit each other, or are none.
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
    throw new TypeError(`the TLS certificate, its key and its authority do not fit together: ${reason}`, { cause });
  }
  return (socket) => secure(socket, options);
}

/** One server for each connection: it tells whose handshake has ended, and how. */
function secure(socket: Duplex, options: TlsOptions): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const server = createServer({ ...options, allowHalfOpen: true });
    server.once('secureConnection', resolve);
    server.once('tlsClientError', (error) => {
      socket.destroy();
      reject(error);
    });
    socket.once('close', () => reject(new Error('the client is gone')));
    server.emit('connection', socket);
  });
}
