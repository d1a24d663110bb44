/** A link to a server: its TCP connections share a rate, and requests arrive late. Counts what it carries. */

import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

export class SlowLink implements AsyncDisposable {
  /** The origin that clients use. */
  readonly origin: string;
  /** Bytes from the server so far. */
  carriedBytes = 0;
  readonly #close: () => Promise<void>;
  readonly #bytesPerMs: number;
  readonly #delayMs: number;
  /** When the link has carried all bytes that it was given. */
  #freeAtMs = 0;

  private constructor(port: number, rate: { bytesPerSecond: number; delayMs: number }, close: () => Promise<void>) {
    this.origin = `http://127.0.0.1:${port}`;
    this.#bytesPerMs = rate.bytesPerSecond / 1000;
    this.#delayMs = rate.delayMs;
    this.#close = close;
  }

  /** @param server the origin of the server, such as `http://127.0.0.1:7480` */
  static async start(server: string, rate: { bytesPerSecond: number; delayMs: number }): Promise<SlowLink> {
    const { hostname, port } = new URL(server);
    const open = new Set<Socket>();
    const listener = createServer((client) => {
      const upstream = connect(Number(port), hostname);
      for (const socket of [client, upstream]) {
        open.add(socket);
        socket.setNoDelay(true);
        socket.on('error', () => undefined);
        socket.once('close', () => {
          open.delete(socket);
          client.destroy();
          upstream.destroy();
        });
      }
      void link.#carry(client, upstream, () => sleep(link.#delayMs));
      void link.#carry(upstream, client, (bytes) => link.#take(bytes));
    });
    listener.listen(0, '127.0.0.1');
    await once(listener, 'listening');
    const close = async (): Promise<void> => {
      for (const socket of open) socket.destroy();
      listener.close();
      await once(listener, 'close');
    };
    const link = new SlowLink((listener.address() as AddressInfo).port, rate, close);
    return link;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#close();
  }

  async #carry(from: Socket, to: Socket, wait: (bytes: number) => Promise<unknown>): Promise<void> {
    try {
      for await (const chunk of from as AsyncIterable<Buffer>) {
        await wait(chunk.length);
        if (to.destroyed) return;
        if (!to.write(chunk)) await drained(to);
      }
      to.end();
    } catch {
      // The other side has ended the connection.
    }
  }

  /** Resolves when the link has carried so many more bytes. */
  async #take(bytes: number): Promise<void> {
    this.carriedBytes += bytes;
    const now = performance.now();
    this.#freeAtMs = Math.max(now, this.#freeAtMs) + bytes / this.#bytesPerMs;
    const waitMs = this.#freeAtMs - now;
    // A shorter timer fires late. What it lets through early comes off the next wait.
    if (waitMs > 2) await sleep(waitMs);
  }
}

/** Resolves when a socket takes more bytes, or takes none any more. */
function drained(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      socket.off('drain', end).off('close', end);
      resolve();
    };
    socket.on('drain', end).on('close', end);
  });
}
