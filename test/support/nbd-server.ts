/**
 * An NBD server under a test's control. A behaviour handles each request, and may answer wrongly, late or not at all.
 */

import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface NbdAsk {
  /** Number of the request over all connections, from 0. */
  readonly index: number;
  readonly connection: number;
  readonly command: number;
  readonly cookie: bigint;
  readonly offset: number;
  readonly length: number;
  readonly socket: Socket;
  /** Sends a correct reply, if this server supports the command. */
  send(): void;
}

export interface NbdServerOptions {
  /** Default: true. */
  readonly structured?: boolean;
  /** The reply to block status. Without it the server offers no block status. */
  readonly runs?: (offset: number, length: number) => { length: number; flags: number }[];
  readonly blockSizes?: { readonly min: number; readonly max: number };
  readonly behaviour?: (ask: NbdAsk) => void;
  /** Replaces the whole handshake. */
  readonly greet?: (socket: Socket) => void;
  /** Replaces the reply to an option. `undefined`: the usual reply. */
  readonly onOption?: (option: number, data: Buffer) => Buffer | undefined;
}

export const CONTEXT = 7;

export function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

export function u64(value: number | bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
}

/** Encodes a reply to an option. */
export function optionReply(option: number, type: number, data: Buffer = Buffer.alloc(0)): Buffer {
  return Buffer.concat([u64(0x3e889045565a9n), u32(option), u32(type), u32(data.length), data]);
}

/** Encodes a chunk of a structured reply. */
export function chunk(
  cookie: bigint,
  type: number,
  data: Buffer,
  { done = true, length = data.length }: { done?: boolean; length?: number } = {},
): Buffer {
  return Buffer.concat([u32(0x668e33ef), u16(done ? 1 : 0), u16(type), u64(cookie), u32(length), data]);
}

export function simpleReply(cookie: bigint, error: number, data: Buffer = Buffer.alloc(0)): Buffer {
  return Buffer.concat([u32(0x67446698), u32(error), u64(cookie), data]);
}

export const GREETING: Buffer = Buffer.concat([Buffer.from('NBDMAGICIHAVEOPT'), u16(3)]);

export class TestNbdServer {
  readonly asks: NbdAsk[] = [];
  connections = 0;
  /** A test may change these between requests. */
  options: NbdServerOptions;
  /** The content of the export. A test may change it between connections. */
  content: Uint8Array;
  readonly #server: Server;
  readonly #directory = mkdtempSync(join(tmpdir(), 'cod-nbd-'));
  readonly #open = new Set<Socket>();

  private constructor(content: Uint8Array, options: NbdServerOptions) {
    this.content = content;
    this.options = options;
    this.#server = createServer((socket) => this.#serve(socket, this.connections++));
  }

  static async start(content: Uint8Array, options: NbdServerOptions = {}): Promise<TestNbdServer> {
    const server = new TestNbdServer(content, options);
    await new Promise<void>((resolve) => server.#server.listen(server.#path, resolve));
    return server;
  }

  get #path(): string {
    return join(this.#directory, 's');
  }

  get uri(): string {
    return `nbd+unix:///disk?socket=${this.#path}`;
  }

  /** Returns the requests of a command, as `[offset, length]`. */
  asked(command: number): [offset: number, length: number][] {
    return this.asks.filter((ask) => ask.command === command).map(({ offset, length }) => [offset, length]);
  }

  /** Closes all connections. */
  hangUp(): void {
    for (const socket of this.#open) socket.destroy();
  }

  async stop(): Promise<void> {
    this.hangUp();
    await new Promise((resolve) => this.#server.close(resolve));
    rmSync(this.#directory, { recursive: true, force: true });
  }

  #serve(socket: Socket, connection: number): void {
    this.#open.add(socket);
    socket.on('error', () => undefined);
    socket.on('close', () => this.#open.delete(socket));
    if (this.options.greet !== undefined) {
      socket.resume();
      this.options.greet(socket);
      return;
    }
    socket.write(GREETING);
    let bytes = Buffer.alloc(0);
    let phase: 'flags' | 'options' | 'transmission' = 'flags';
    const take = (length: number): Buffer => {
      const taken = bytes.subarray(0, length);
      bytes = bytes.subarray(length);
      return taken;
    };
    socket.on('data', (more) => {
      bytes = Buffer.concat([bytes, more]);
      for (;;) {
        if (phase === 'flags') {
          if (bytes.length < 4) return;
          take(4);
          phase = 'options';
        } else if (phase === 'options') {
          if (bytes.length < 16 || bytes.length < 16 + bytes.readUInt32BE(12)) return;
          const head = take(16);
          const option = head.readUInt32BE(8);
          const data = take(head.readUInt32BE(12));
          const given = this.options.onOption?.(option, data);
          socket.write(given ?? this.#answer(option));
          // NBD_OPT_EXPORT_NAME and NBD_OPT_GO.
          if (option === 1 || (option === 7 && given === undefined)) phase = 'transmission';
        } else {
          if (bytes.length < 28) return;
          this.#onRequest(take(28), socket, connection);
        }
      }
    });
  }

  #answer(option: number): Buffer {
    const { structured = true, runs, blockSizes } = this.options;
    if (option === 8) return optionReply(option, structured ? 1 : 0x80000001);
    if (option === 10) {
      const context = optionReply(option, 4, Buffer.concat([u32(CONTEXT), Buffer.from('base:allocation')]));
      return Buffer.concat([...(runs === undefined ? [] : [context]), optionReply(option, 1)]);
    }
    if (option === 7) {
      const info = optionReply(option, 3, Buffer.concat([u16(0), u64(this.content.length), u16(1)]));
      const sizes = optionReply(
        option,
        3,
        Buffer.concat([u16(3), u32(blockSizes?.min ?? 1), u32(4096), u32(blockSizes?.max ?? 2 ** 25)]),
      );
      return Buffer.concat([info, ...(blockSizes === undefined ? [] : [sizes]), optionReply(option, 1)]);
    }
    if (option === 1) return Buffer.concat([u64(this.content.length), u16(1)]);
    return optionReply(option, 0x80000001);
  }

  #onRequest(head: Buffer, socket: Socket, connection: number): void {
    const ask: NbdAsk = {
      index: this.asks.length,
      connection,
      command: head.readUInt16BE(6),
      cookie: head.readBigUInt64BE(8),
      offset: Number(head.readBigUInt64BE(16)),
      length: head.readUInt32BE(24),
      socket,
      send: () => void socket.write(this.#right(ask)),
    };
    this.asks.push(ask);
    if (ask.command === 2) socket.end();
    else if (this.options.behaviour === undefined) ask.send();
    else this.options.behaviour(ask);
  }

  #right({ command, cookie, offset, length }: NbdAsk): Buffer {
    const { structured = true, runs } = this.options;
    if (command === 7) {
      const extents = runs?.(offset, length) ?? [{ length, flags: 0 }];
      const data = extents.map((run) => Buffer.concat([u32(run.length), u32(run.flags)]));
      return chunk(cookie, 5, Buffer.concat([u32(CONTEXT), ...data]));
    }
    const data = Buffer.from(this.content.subarray(offset, offset + length));
    return structured ? chunk(cookie, 1, Buffer.concat([u64(offset), data])) : simpleReply(cookie, 0, data);
  }
}
