/** HTTP over node:http and node:https, for speed: 1.3 to 1.9 times Node's fetch, as fast as curl (bench/http-transport.mjs). */

import { type AgentOptions, type ClientRequest, Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import type { ConnectionOptions } from 'node:tls';
import { CodError } from '../core/errors.ts';
import type { HttpRequest, HttpResponse, HttpTransport } from './http-transport.ts';
import { ReceiveQueue } from './receive-queue.ts';

const AGENT: AgentOptions = {
  keepAlive: true,
  noDelay: true,
  maxFreeSockets: 16,
  // Of idle sockets: a NAT forgets them without a word. What is in use is watched by the source.
  timeout: 30_000,
};

/**
 * A transport with connections of its own, kept for later requests; idle ones do not keep the process alive.
 * `tls`: what node:tls takes, for a private certificate authority or a client certificate. No proxies.
 */
export function nodeTransport(options: { tls?: ConnectionOptions } = {}): HttpTransport {
  return new NodeTransport(options.tls ?? {});
}

class NodeTransport implements HttpTransport {
  readonly #http = new HttpAgent(AGENT);
  readonly #https: HttpsAgent;
  #closed = false;

  constructor(tls: ConnectionOptions) {
    this.#https = new HttpsAgent({ ...tls, ...AGENT });
  }

  async request(request: HttpRequest): Promise<HttpResponse> {
    for (;;) {
      if (this.#closed) throw new CodError('COD_CLOSED', 'the source is closed');
      request.signal.throwIfAborted();
      const sent = this.#send(request);
      try {
        return new NodeResponse(await headOf(sent, request.signal), request);
      } catch (error) {
        // A kept connection that its server had closed meanwhile says nothing of the server. Each turn uses one up.
        if (sent.reusedSocket && !request.signal.aborted && isReset(error)) continue;
        throw explain(error);
      }
    }
  }

  close(): void {
    this.#closed = true;
    this.#http.destroy();
    this.#https.destroy();
  }

  #send({ url, headers }: HttpRequest): ClientRequest {
    const all = { 'user-agent': 'copyondemand', accept: '*/*', 'accept-encoding': 'identity', ...headers };
    const sent =
      url.protocol === 'https:'
        ? httpsRequest(url, { agent: this.#https, headers: all })
        : httpRequest(url, { agent: this.#http, headers: all });
    return sent.end();
  }
}

class NodeResponse implements HttpResponse {
  readonly status: number;
  readonly url: URL;
  readonly #message: IncomingMessage;
  readonly #queue: ReceiveQueue;
  readonly #signal: AbortSignal;
  readonly #onAbort: () => void;

  constructor(message: IncomingMessage, { url, signal }: HttpRequest) {
    this.status = message.statusCode ?? 0;
    this.url = url;
    this.#message = message;
    this.#signal = signal;
    this.#queue = new ReceiveQueue({ stop: () => message.pause(), go: () => message.resume() });
    message.on('data', (chunk: Buffer) => this.#queue.push(chunk));
    message.on('end', () => this.#queue.end());
    message.on('error', (error) => this.#queue.fail(error));
    message.on('close', () => this.#queue.fail(new Error('the connection was closed')));
    this.#onAbort = () => {
      this.#queue.abort(signal.reason);
      message.destroy();
    };
    signal.addEventListener('abort', this.#onAbort, { once: true });
  }

  header(name: string): string | undefined {
    const value = this.#message.headers[name];
    return Array.isArray(value) ? value.join(', ') : value;
  }

  pull(): Promise<Uint8Array | undefined> {
    return this.#queue.pull();
  }

  cancel(): void {
    this.#signal.removeEventListener('abort', this.#onAbort);
    this.#queue.abort(new Error('the request was ended'));
    // Only a message that was read to its end gives its connection back.
    if (this.#message.complete) this.#message.resume();
    else this.#message.destroy();
  }
}

function headOf(sent: ClientRequest, signal: AbortSignal): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const onAbort = () => {
      reject(signal.reason);
      sent.destroy();
    };
    signal.addEventListener('abort', onAbort, { once: true });
    // It stays, also for what goes wrong on the connection after the answer.
    sent.on('error', (error) => {
      signal.removeEventListener('abort', onAbort);
      reject(error);
    });
    sent.on('response', (message) => {
      signal.removeEventListener('abort', onAbort);
      resolve(message);
    });
  });
}

function isReset(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'ECONNRESET' || error.code === 'EPIPE');
}

/** Certificates that are not accepted, and servers that do not speak TLS, do not get better by asking again. */
function explain(error: unknown): unknown {
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  if (!/^(ERR_TLS|ERR_SSL|CERT_|UNABLE_TO_|SELF_SIGNED|DEPTH_ZERO)|_CERT|EPROTO/.test(code)) return error;
  const message = `the TLS connection is refused: ${(error as Error).message} (${code}); a private authority goes into NODE_EXTRA_CA_CERTS`;
  return new CodError('COD_SOURCE_IO', message, { cause: error, details: { errno: code } });
}
