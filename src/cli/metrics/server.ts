/**
 * Serves metrics over HTTP: `/metrics` and `/healthz`.
 *
 * The port may be open to anyone, so what a client can hold is bounded: connections, the bytes of a head, the time for
 * a head, and the time in which nothing of the answer is read.
 */

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { listenError } from '../../nbd/server/listener.ts';
import type { MetricsAddress } from './address.ts';
import { CONTENT_TYPE } from './exposition.ts';

const MAX_CONNECTIONS = 16;
const HEAD_BYTES = 4096;
const REQUEST_MS = 5000;
/** A client that reads nothing of its answer for so long is disconnected. */
const IDLE_MS = 10_000;

export class MetricsServer {
  readonly #server: Server;

  /**
   * Starts to listen.
   * @param text returns the metrics at the moment of the call
   * @param requestMs the time for a request
   * @throws {@link CodError} COD_LOCKED when another process listens at the address; COD_NOT_FOUND when the host does
   * not exist; COD_TARGET_IO when listening fails otherwise.
   */
  static async open(
    { host, port }: MetricsAddress,
    text: () => string,
    { requestMs = REQUEST_MS }: { requestMs?: number } = {},
  ): Promise<MetricsServer> {
    const options = {
      maxHeaderSize: HEAD_BYTES,
      headersTimeout: requestMs,
      requestTimeout: requestMs,
      keepAliveTimeout: requestMs,
      connectionsCheckingInterval: requestMs / 5,
      noDelay: true,
    };
    const server = createServer(options, (request, response) => answer(request, response, text));
    bound(server);
    server.timeout = IDLE_MS;
    server.on('clientError', (_, socket) => socket.destroy());
    await new Promise<void>((resolve, reject) => {
      server.once('error', (error) => reject(listenError(error, `${host}:${port}`)));
      server.listen({ host, port }, resolve);
    });
    // Later errors, such as a lack of file descriptors, must not end the process.
    server.on('error', () => undefined);
    return new MetricsServer(server);
  }

  private constructor(server: Server) {
    this.#server = server;
  }

  get url(): string {
    const bound = this.#server.address();
    if (bound === null || typeof bound === 'string') throw new Error('the server is not listening');
    const host = bound.family === 'IPv6' ? `[${bound.address}]` : bound.address;
    return `http://${host}:${bound.port}/metrics`;
  }

  /** Stops listening, and disconnects every client. */
  close(): void {
    this.#server.close();
    this.#server.closeAllConnections();
  }
}

/** The oldest connection gives its place to a new one, so that silent ones keep no client out. */
function bound(server: Server): void {
  const sockets = new Set<Socket>();
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
    for (const oldest of sockets) {
      if (sockets.size <= MAX_CONNECTIONS) break;
      sockets.delete(oldest);
      oldest.destroy();
    }
  });
}

function answer(request: IncomingMessage, response: ServerResponse, text: () => string): void {
  const path = request.url?.replace(/[?#].*$/s, '');
  // A body is not read: the connection ends instead.
  if (request.headers['content-length'] !== undefined || request.headers['transfer-encoding'] !== undefined)
    response.shouldKeepAlive = false;
  const isRead = request.method === 'GET' || request.method === 'HEAD';
  if (path !== '/metrics' && path !== '/healthz') send(response, 404, 'not found: use /metrics or /healthz\n');
  else if (!isRead) send(response.setHeader('allow', 'GET, HEAD'), 405, 'use GET\n');
  else if (path === '/healthz') send(response, 200, 'ok\n');
  else send(response, 200, text(), CONTENT_TYPE);
}

function send(response: ServerResponse, status: number, text: string, type = 'text/plain; charset=utf-8'): void {
  response.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(text) }).end(text);
}
