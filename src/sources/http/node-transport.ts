/** HTTP/1.1 over undici, which needs a third of the processor time of node:http (bench/http-transport.mjs). */

import type { Socket } from 'node:net';
import { type ConnectionOptions, connect as connectTls } from 'node:tls';
import { Client, type Dispatcher } from 'undici';
import { CodError } from '../../errors.ts';
import { ReceiveQueue } from '../receive-queue.ts';
import { hostOf, type ProxyFunction, portOf, proxyAuthorization } from './node-proxy.ts';
import { WideSocket } from './node-socket.ts';
import { openTunnel, proxyRefusal } from './node-tunnel.ts';
import type { HttpResponse, HttpTransport, InternalHttpRequest } from './transport.ts';

const MAX_IDLE = 16;
/** Limit for idle connections, since a NAT drops them silently. The source watches connections in use. */
const IDLE_MS = 30_000;
/** The head of a response, which proxies and object stores fill with cookies and policies. */
const MAX_HEAD_BYTES = 65_536;
/** Headers that a response has once. Several equal ones count as one. */
const SINGLE: ReadonlySet<string> = new Set(['content-range', 'content-length', 'etag', 'last-modified', 'location']);

interface NodeTransportOptions {
  /** Options of node:tls, for a private certificate authority or a client certificate; also by origin. */
  readonly tls?: ConnectionOptions | ((origin: string) => ConnectionOptions);
  /** Default: no proxies. */
  readonly proxy?: ProxyFunction;
}

/**
 * Returns a transport with its own connections, which are kept for later requests. Idle connections do not keep the
 * process alive.
 */
export function nodeTransport(options: NodeTransportOptions = {}): HttpTransport {
  return new NodeTransport(options);
}

/** The way to an origin: directly, by a tunnel through a proxy (https), or by requests to a proxy (http). */
class Route {
  readonly origin: string;
  readonly proxy: URL | undefined;
  readonly isTunnel: boolean;

  constructor({ origin, protocol }: URL, proxy: URL | undefined) {
    this.origin = origin;
    this.proxy = proxy;
    this.isTunnel = proxy !== undefined && protocol === 'https:';
  }

  /** Connections of equal names may serve each other's requests. */
  get name(): string {
    return this.proxy === undefined ? this.origin : `${this.isTunnel ? this.origin : ''} by ${this.proxy.href}`;
  }

  /** The server that requests are sent to. */
  get server(): string {
    return this.proxy === undefined || this.isTunnel ? this.origin : this.proxy.origin;
  }

  /** Returns the target of a request, and the headers that go with it. */
  target(url: URL): { readonly path: string; readonly headers: Record<string, string> } {
    const path = url.pathname + url.search;
    if (this.proxy === undefined || this.isTunnel) return { path, headers: {} };
    return { path: url.origin + path, headers: { host: url.host, ...proxyAuthorization(this.proxy) } };
  }
}

class NodeTransport implements HttpTransport {
  readonly #options: NodeTransportOptions;
  /** The most recently used connection is the last. */
  readonly #idle: Connection[] = [];
  #closed = false;

  constructor(options: NodeTransportOptions) {
    this.#options = options;
  }

  async request(request: InternalHttpRequest): Promise<HttpResponse> {
    for (;;) {
      if (this.#closed) throw new CodError('COD_CLOSED', 'the source is closed');
      request.signal.throwIfAborted();
      const { tls = {}, proxy } = this.#options;
      const route = new Route(request.url, proxy?.(request.url));
      const connection =
        this.#take(route.name) ?? new Connection(route, typeof tls === 'function' ? tls(route.origin) : tls);
      const { isKept } = connection;
      try {
        const response = await connection.send(request, () => this.#keep(connection));
        if (response.status !== 407 || route.proxy === undefined) return response;
        response.cancel();
        throw proxyRefusal(route.proxy, 407, request.url.host);
      } catch (error) {
        // The server may have closed a kept connection meanwhile, which is no failure. Each retry uses up a kept one.
        if (isKept && !request.signal.aborted && isReset(error)) continue;
        throw explain(error);
      }
    }
  }

  close(): void {
    this.#closed = true;
    for (const connection of this.#idle.splice(0)) connection.destroy();
  }

  #take(name: string): Connection | undefined {
    const index = this.#idle.findLastIndex(({ route }) => route.name === name);
    return index < 0 ? undefined : this.#idle.splice(index, 1)[0];
  }

  #keep(connection: Connection): void {
    if (this.#closed || !connection.isKept) {
      connection.destroy();
      return;
    }
    this.#idle.push(connection);
    if (this.#idle.length > MAX_IDLE) this.#idle.shift()!.destroy();
  }
}

/** One connection, with one request at a time. */
class Connection {
  readonly route: Route;
  readonly #client: Client;
  #socket: { destroy(): void } | undefined;
  /** Whether the connection has served a request and is open, as far as is known. */
  isKept = false;

  constructor(route: Route, tls: ConnectionOptions) {
    this.route = route;
    const { proxy, isTunnel } = route;
    this.#client = new Client(route.server, {
      connect: ({ servername }, callback) => {
        const server = new URL(route.server);
        const place = { host: hostOf(server), port: portOf(server) };
        const isSecure = server.protocol === 'https:';
        const start = (tunnel?: Socket) => {
          const secured = { ...tls, ...place, ...(tunnel && { socket: tunnel }), ALPNProtocols: ['http/1.1'] };
          const socket = isSecure
            ? connectTls({ ...secured, servername: tls.servername ?? servername ?? '' })
            : new WideSocket(place);
          this.#socket = socket;
          const onError = (error: Error) => callback(error, null);
          socket.once('error', onError);
          socket.once(isSecure ? 'secureConnect' : 'connect', () => {
            socket.off('error', onError);
            callback(null, socket as Parameters<typeof callback>[1] & object);
          });
        };
        if (proxy === undefined || !isTunnel) return start();
        // A client certificate is for the server.
        const { cert: _, key: __, ...trust } = tls;
        this.#socket = openTunnel(proxy, { ...place, tls: trust }, (error, socket) =>
          error === undefined ? start(socket) : callback(error, null),
        );
      },
      pipelining: 1,
      keepAliveTimeout: IDLE_MS,
      keepAliveMaxTimeout: IDLE_MS,
      // The source watches for stalls.
      headersTimeout: 0,
      bodyTimeout: 0,
      maxHeaderSize: MAX_HEAD_BYTES,
    });
    this.#client.on('disconnect', () => {
      this.isKept = false;
    });
  }

  /** Sends a request and resolves with the head of the response. Calls `whenFree` when the body has ended. */
  send({ method, url, headers, signal, pieceBytes }: InternalHttpRequest, whenFree: () => void): Promise<HttpResponse> {
    const { path, headers: own } = this.route.target(url);
    return new Promise((resolve, reject) => {
      let response: NodeResponse | undefined;
      const onAbort = () => {
        response?.queue.abort(signal.reason);
        reject(signal.reason);
        this.destroy();
      };
      const end = () => {
        signal.removeEventListener('abort', onAbort);
        this.destroy();
      };
      signal.addEventListener('abort', onAbort, { once: true });
      this.#client.dispatch(
        {
          method: method ?? 'GET',
          path,
          headers: { 'user-agent': 'copyondemand', accept: '*/*', 'accept-encoding': 'identity', ...headers, ...own },
        },
        {
          onRequestStart() {},
          onResponseStart(controller, status, fields) {
            // An interim response, such as 103, is skipped.
            if (status < 200) return;
            response = new NodeResponse(status, { url, fields, pieceBytes }, controller, end);
            resolve(response);
          },
          onResponseData(_controller, chunk) {
            response?.queue.push(chunk);
          },
          onResponseEnd: () => {
            signal.removeEventListener('abort', onAbort);
            this.isKept = true;
            response?.queue.end();
            whenFree();
          },
          onResponseError: (_controller, error) => {
            signal.removeEventListener('abort', onAbort);
            response?.queue.fail(error);
            reject(error);
            this.destroy();
          },
        },
      );
    });
  }

  destroy(): void {
    this.#socket?.destroy();
    void this.#client.destroy();
  }
}

type Fields = Readonly<Record<string, string | string[] | undefined>>;

class NodeResponse implements HttpResponse {
  readonly status: number;
  readonly url: URL;
  readonly queue: ReceiveQueue;
  readonly #fields: Fields;
  readonly #end: () => void;

  constructor(
    status: number,
    { url, fields, pieceBytes }: { url: URL; fields: Fields; pieceBytes: number | undefined },
    controller: Dispatcher.DispatchController,
    end: () => void,
  ) {
    this.status = status;
    this.url = url;
    this.#fields = fields;
    this.#end = end;
    const length = Number(this.header('content-length'));
    this.queue = new ReceiveQueue(
      { stop: () => controller.pause(), go: () => controller.resume() },
      { expectedBytes: Number.isSafeInteger(length) ? length : undefined, pieceBytes },
    );
  }

  header(name: string): string | undefined {
    const value = this.#fields[name];
    if (!Array.isArray(value)) return value;
    const different = [...new Set(value)];
    if (different.length > 1 && SINGLE.has(name))
      throw new CodError('COD_SOURCE_IO', `the server sends ${different.length} different headers ${name}`);
    return different.join(', ');
  }

  pull(): Promise<Uint8Array | undefined> {
    return this.queue.pull();
  }

  cancel(): void {
    // Only a body that was received to its end leaves its connection reusable.
    if (!this.queue.isEnded) {
      this.#end();
      this.queue.abort(new Error('the request was ended'));
    }
    this.queue.release();
  }
}

function isReset(error: unknown): boolean {
  return (
    error instanceof Error && 'code' in error && ['ECONNRESET', 'EPIPE', 'UND_ERR_SOCKET'].includes(String(error.code))
  );
}

/** Makes TLS errors final: a retry helps neither with a wrong certificate, on either side, nor without TLS. */
function explain(error: unknown): unknown {
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  if (!/^(ERR_TLS|ERR_SSL|ERR_OSSL|CERT_|UNABLE_TO_|SELF_SIGNED|DEPTH_ZERO)|_CERT|EPROTO/.test(code)) return error;
  const reason = `${(error as Error).message} (${code})`;
  const message = `the TLS connection failed: ${reason}; for a private CA, set NODE_EXTRA_CA_CERTS or the option ca`;
  return new CodError('COD_SOURCE_IO', message, { cause: error, details: { errno: code } });
}
