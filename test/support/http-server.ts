/**
 * A range server under a test's control. A behaviour handles each request, and may answer wrongly, late or not at all.
 */

import { createServer, type Server, type Socket } from 'node:net';

export interface Ask {
  /** Number of the request over all connections, from 0. */
  readonly index: number;
  /** Number of the request on its connection, from 0. */
  readonly indexOnConnection: number;
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  /** The range [start, end) of the Range header, or the whole content without one. */
  readonly start: number;
  readonly end: number;
  /** Asks for the first byte, or for the first or last bytes that tell a disk from a container. */
  readonly isOpening: boolean;
  readonly socket: Socket;
  /**
   * Sends a correct response, except for the overrides. A header of `undefined` is omitted. `body: false` sends only
   * the head.
   */
  send(overrides?: {
    status?: number;
    headers?: Record<string, string | undefined>;
    body?: Uint8Array | string | false;
  }): void;
}

export type Behaviour = (ask: Ask) => unknown;

export const honest: Behaviour = (ask) => ask.send();

export class HostileServer {
  readonly asks: Ask[] = [];
  readonly content: Uint8Array;
  /** A test may change this between requests. */
  behaviour: Behaviour;
  readonly #server: Server;
  readonly #open = new Set<Socket>();
  #onAllClosed: () => void = () => {};

  private constructor(content: Uint8Array, behaviour: Behaviour) {
    this.content = content;
    this.behaviour = behaviour;
    this.#server = createServer({ noDelay: true }, (socket) => this.#serve(socket));
  }

  static async start(content: Uint8Array, behaviour: Behaviour = honest): Promise<HostileServer> {
    const server = new HostileServer(content, behaviour);
    await new Promise<void>((resolve) => server.#server.listen(0, '127.0.0.1', resolve));
    return server;
  }

  get origin(): string {
    const address = this.#server.address();
    if (address === null || typeof address === 'string') throw new Error('not listening');
    return `http://127.0.0.1:${address.port}`;
  }

  get url(): string {
    return `${this.origin}/disk.img`;
  }

  /** The Range headers of all requests. */
  get ranges(): (string | undefined)[] {
    return this.asks.map((ask) => ask.headers['range']);
  }

  /** Resolves when no client is connected. */
  allClosed(): Promise<void> {
    if (this.#open.size === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#onAllClosed = resolve;
    });
  }

  async stop(): Promise<void> {
    for (const socket of this.#open) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #serve(socket: Socket): void {
    this.#open.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => {
      this.#open.delete(socket);
      if (this.#open.size === 0) this.#onAllClosed();
    });
    let text = '';
    let requests = 0;
    socket.on('data', (bytes) => {
      text += bytes.toString('latin1');
      for (let end = text.indexOf('\r\n\r\n'); end >= 0; end = text.indexOf('\r\n\r\n')) {
        const ask = this.#parse(text.slice(0, end), socket, requests++);
        text = text.slice(end + 4);
        this.asks.push(ask);
        void this.behaviour(ask);
      }
    });
  }

  #parse(head: string, socket: Socket, indexOnConnection: number): Ask {
    const [requestLine = '', ...lines] = head.split('\r\n');
    const headers = Object.fromEntries(
      lines.map((line) => [line.split(':')[0]!.toLowerCase(), line.slice(line.indexOf(':') + 1).trim()]),
    );
    const range = /^bytes=(\d+)-(\d+)$/.exec(headers['range'] ?? '');
    const size = this.content.length;
    const start = range ? Number(range[1]) : 0;
    const end = range ? Math.min(Number(range[2]) + 1, size) : size;
    const send: Ask['send'] = ({
      status = 206,
      headers: overrides = {},
      body = this.content.subarray(start, end),
    } = {}) => {
      const all: Record<string, string | undefined> = {
        'content-type': 'application/octet-stream',
        'content-length': String(body === false ? end - start : body.length),
        'content-range': `bytes ${start}-${end - 1}/${size}`,
        etag: '"v1"',
        'last-modified': 'Sat, 01 Nov 2025 00:00:00 GMT',
        ...overrides,
      };
      const sent = Object.entries(all).flatMap(([name, value]) =>
        value === undefined ? [] : [`${name}: ${value}\r\n`],
      );
      socket.write(`HTTP/1.1 ${status} Status\r\n${sent.join('')}\r\n`);
      if (body !== false) socket.write(body);
    };
    return {
      index: this.asks.length,
      indexOnConnection,
      method: requestLine.split(' ')[0] ?? '',
      isOpening: end - start <= 1024,
      path: requestLine.split(' ')[1] ?? '',
      headers,
      start,
      end,
      socket,
      send,
    };
  }
}
