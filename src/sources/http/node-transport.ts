/** HTTP/1.1 over undici, which needs a third of the processor time of node:http (bench/http-transport.mjs). */

import { type ConnectionOptions, connect as connectTls } from 'node:tls';
import { Client, type Dispatcher } from 'undici';
import { CodError } from '../../errors.ts';
import { ReceiveQueue } from '../receive-queue.ts';
import { WideSocket } from './node-socket.ts';
import type { HttpResponse, HttpTransport, InternalHttpRequest } from './transport.ts';

const MAX_IDLE = 16;
/** Limit for idle connections, since a NAT drops them silently. The source watches connections in use. */
const IDLE_MS = 30_000;
/** The head of a response, which proxies and object stores fill with cookies and policies. */
const MAX_HEAD_BYTES = 65_536;
/** Headers that a response has once. Several equal ones count as one. */
const SINGLE: ReadonlySet<string> = new Set(['content-range', 'content-length', 'etag', 'last-modified', 'location']);

/**
 * Returns a transport with its own connections, which are kept for later requests. It uses no proxies. Idle connections
 * do not keep the process alive.
 *
 * @param options.tls options of node:tls, for a private certificate authority or a client certificate
 */
export function nodeTransport(options: { tls?: ConnectionOptions } = {}): HttpTransport {
  return new NodeTransport(options.tls ?? {});
}

class NodeTransport implements HttpTransport {
  readonly #tls: ConnectionOptions;
  /** The most recently used connection is the last. */
  readonly #idle: Connection[] = [];
  #closed = false;

  constructor(tls: ConnectionOptions) {
    this.#tls = tls;
  }

  async request(request: InternalHttpRequest): Promise<HttpResponse> {
    for (;;) {
      if (this.#closed) throw new CodError('COD_CLOSED', 'the source is closed');
      request.signal.throwIfAborted();
      const { origin } = request.url;
      const connection = this.#take(origin) ?? new Connection(origin, this.#tls);
      const { isKept } = connection;
      try {
        return await connection.send(request, () => this.#keep(connection));
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

  #take(origin: string): Connection | undefined {
    const index = this.#idle.findLastIndex((connection) => connection.origin === origin);
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
  readonly origin: string;
  readonly #client: Client;
  #socket: { destroy(): void } | undefined;
  /** Whether the connection has served a request and is open, as far as is known. */
  isKept = false;

  constructor(origin: string, tls: ConnectionOptions) {
    this.origin = origin;
    this.#client = new Client(origin, {
      connect: ({ hostname, port, protocol, servername }, callback) => {
        const host = hostname.replace(/^\[|\]$/g, '');
        const socket =
          protocol === 'https:'
            ? connectTls({
                ...tls,
                host,
                port: Number(port || 443),
                servername: tls.servername ?? servername ?? '',
                ALPNProtocols: ['http/1.1'],
              })
            : new WideSocket({ host, port: Number(port || 80) });
        this.#socket = socket;
        const onError = (error: Error) => callback(error, null);
        socket.once('error', onError);
        socket.once(protocol === 'https:' ? 'secureConnect' : 'connect', () => {
          socket.off('error', onError);
          callback(null, socket as Parameters<typeof callback>[1] & object);
        });
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
          path: url.pathname + url.search,
          headers: { 'user-agent': 'copyondemand', accept: '*/*', 'accept-encoding': 'identity', ...headers },
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

/** Makes TLS errors final: a retry helps neither with a rejected certificate nor with a server without TLS. */
function explain(error: unknown): unknown {
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  if (!/^(ERR_TLS|ERR_SSL|CERT_|UNABLE_TO_|SELF_SIGNED|DEPTH_ZERO)|_CERT|EPROTO/.test(code)) return error;
  const reason = `${(error as Error).message} (${code})`;
  const message = `the TLS connection failed: ${reason}; for a private CA, set NODE_EXTRA_CA_CERTS`;
  return new CodError('COD_SOURCE_IO', message, { cause: error, details: { errno: code } });
}
