/** A proxy that counts: for requests (http) and tunnels (https). */

import { createServer, type IncomingMessage, request } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { pipeline } from 'node:stream';
import { onTestFinished } from 'vitest';

export class ProxyServer {
  /** The URLs of requests, and `CONNECT host:port` of tunnels. */
  readonly asks: string[] = [];
  /** `name:password`, if the proxy wants that. */
  login: string | undefined;
  /** The status of its next answer. Default: it does what it is asked for. */
  refusal: number | undefined;
  readonly #server = createServer((ask, answer) => {
    this.asks.push(ask.url!);
    const status = this.#refusal(ask);
    if (status !== undefined) {
      answer.writeHead(status).end('the proxy refuses');
      return;
    }
    const { host, 'proxy-authorization': _, ...headers } = ask.headers;
    const { hostname, port, pathname, search } = new URL(ask.url!);
    const method = ask.method ?? 'GET';
    const onward = request(
      { hostname, port, method, path: pathname + search, headers: { ...headers, host } },
      (got) => {
        answer.writeHead(got.statusCode!, got.headers);
        pipeline(got, answer, () => {});
      },
    );
    onward.on('error', () => answer.destroy());
    onward.end();
  });

  static async start(login?: string): Promise<ProxyServer> {
    const proxy = new ProxyServer();
    proxy.login = login;
    const server = proxy.#server;
    server.on('connect', (ask: IncomingMessage, socket: Socket) => {
      proxy.asks.push(`CONNECT ${ask.url}`);
      const status = proxy.#refusal(ask);
      if (status !== undefined) {
        socket.end(`HTTP/1.1 ${status} Refused\r\ncontent-length: 0\r\n\r\n`);
        return;
      }
      const { hostname, port } = new URL(`http://${ask.url}`);
      const onward = connect(Number(port || 80), hostname, () => socket.write('HTTP/1.1 200 Connected\r\n\r\n'));
      pipeline(socket, onward, () => {});
      pipeline(onward, socket, () => {});
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => {
      server.closeAllConnections();
      server.close();
    });
    return proxy;
  }

  /** Its URL, with credentials. */
  get url(): string {
    return `http://${this.login === undefined ? '' : `${this.login}@`}127.0.0.1:${this.port}`;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  #refusal({ headers }: IncomingMessage): number | undefined {
    const { refusal } = this;
    this.refusal = undefined;
    if (this.login === undefined) return refusal;
    const expected = `Basic ${Buffer.from(this.login).toString('base64')}`;
    return headers['proxy-authorization'] === expected ? refusal : 407;
  }
}
