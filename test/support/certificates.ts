/** Certificates by openssl, and a server that ends TLS in front of another one. */

import { mkdirSync, writeFileSync } from 'node:fs';
import { type AddressInfo, connect } from 'node:net';
import { join } from 'node:path';
import { pipeline } from 'node:stream';
import { createServer, type TlsOptions } from 'node:tls';
import { onTestFinished } from 'vitest';
import { mustRun } from './programs.ts';

/** Makes a certificate authority in `directory`: `ca-cert.pem` and its key. */
export async function makeAuthority(directory: string, name: string): Promise<void> {
  mkdirSync(directory, { recursive: true });
  const [key, cert] = [join(directory, 'ca-key.pem'), join(directory, 'ca-cert.pem')];
  await mustRun(
    'openssl',
    'req',
    '-x509',
    '-newkey',
    'rsa:2048',
    '-nodes',
    '-days',
    '3',
    '-subj',
    `/CN=${name}`,
    '-keyout',
    key,
    '-out',
    cert,
  );
}

/** Makes a key certified by the authority of `directory`: `<role>-cert.pem` and `<role>-key.pem` in `into`. */
export async function certify(directory: string, role: 'server' | 'client', into: string): Promise<void> {
  mkdirSync(into, { recursive: true });
  const [key, cert, ask, extensions] = [`${role}-key.pem`, `${role}-cert.pem`, `${role}.csr`, `${role}.ext`].map(
    (name) => join(into, name),
  );
  await mustRun(
    'openssl',
    'req',
    '-newkey',
    'rsa:2048',
    '-nodes',
    '-subj',
    '/CN=localhost',
    '-keyout',
    key!,
    '-out',
    ask!,
  );
  writeFileSync(extensions!, `subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=${role}Auth\n`);
  const by = ['-CA', join(directory, 'ca-cert.pem'), '-CAkey', join(directory, 'ca-key.pem'), '-CAcreateserial'];
  await mustRun('openssl', 'x509', '-req', '-days', '3', '-in', ask!, ...by, '-extfile', extensions!, '-out', cert!);
}

/** Starts a TLS server that passes everything on to the server at `origin`. Returns its origin. */
export async function startTls(origin: string, options: TlsOptions): Promise<string> {
  const port = Number(new URL(origin).port);
  const server = createServer(options, (socket) => {
    const inner = connect(port, '127.0.0.1');
    pipeline(socket, inner, () => {});
    pipeline(inner, socket, () => {});
  });
  server.on('tlsClientError', () => {});
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.close();
  });
  return `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
}
