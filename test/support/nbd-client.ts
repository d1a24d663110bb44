/** An NBD client with several requests in flight on one connection. It speaks the oldest form: simple replies. */

import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { bytesOf, CLIENT_FLAGS, option, request } from '../nbd/client-bytes.ts';
import type { Disk } from './disk-users.ts';

const GREETING_BYTES = 18;
/** The size of the export and its flags, without the zeros after them. */
const EXPORT_BYTES = 10;
const REPLY_BYTES = 16;
const EXPORT_NAME = 1;
const FUA = 1;
const CMD = { read: 0, write: 1, disconnect: 2, flush: 3 };

/** The server refused a request, or the connection was lost. */
export class NbdFailure extends Error {
  override readonly name = 'NbdFailure';
}

interface Pending {
  /** Receives the bytes of a read. */
  readonly into: Uint8Array;
  resolve(): void;
  reject(error: NbdFailure): void;
}

export class NbdClient implements Disk {
  readonly #socket: Socket;
  readonly #pending = new Map<bigint, Pending>();
  #cookie = 0n;
  #received: Buffer = Buffer.alloc(0);

  /** Connects to the default export at the path of a unix socket. */
  static async connect(path: string): Promise<NbdClient> {
    const socket = connect(path);
    await once(socket, 'connect');
    socket.write(bytesOf(CLIENT_FLAGS, option(EXPORT_NAME)));
    let left = GREETING_BYTES + EXPORT_BYTES;
    while (left > 0) {
      const [chunk] = (await once(socket, 'data')) as [Buffer];
      left -= chunk.length;
    }
    return new NbdClient(socket);
  }

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => this.#onData(chunk));
    socket.on('error', () => undefined);
    socket.on('close', () => {
      for (const { reject } of this.#pending.values()) reject(new NbdFailure('the connection was lost'));
      this.#pending.clear();
    });
  }

  read(into: Uint8Array, offset: number): Promise<void> {
    return this.#send({ type: CMD.read, offset, length: into.length }, into);
  }

  write(from: Uint8Array, offset: number, { fua }: { fua: boolean }): Promise<void> {
    return this.#send({ type: CMD.write, flags: fua ? FUA : 0, offset, length: from.length, payload: from });
  }

  flush(): Promise<void> {
    return this.#send({ type: CMD.flush });
  }

  /** Ends the connection at once: requests in flight have no answer. */
  destroy(): void {
    this.#socket.destroy();
  }

  /** Tells the server, and resolves when the connection has ended. */
  async disconnect(): Promise<void> {
    this.#socket.end(request({ type: CMD.disconnect }));
    await once(this.#socket, 'close');
  }

  #send(fields: Parameters<typeof request>[0], into: Uint8Array = new Uint8Array(0)): Promise<void> {
    if (this.#socket.destroyed) return Promise.reject(new NbdFailure('the connection was lost'));
    const cookie = this.#cookie++;
    return new Promise((resolve, reject) => {
      this.#pending.set(cookie, { into, resolve, reject });
      this.#socket.write(request({ ...fields, cookie }));
    });
  }

  #onData(chunk: Buffer): void {
    this.#received = Buffer.concat([this.#received, chunk]);
    while (this.#received.length >= REPLY_BYTES) {
      const cookie = this.#received.readBigUInt64BE(8);
      const error = this.#received.readUInt32BE(4);
      const pending = this.#pending.get(cookie);
      if (pending === undefined) throw new Error(`a reply to request ${cookie}, which is not in flight`);
      const end = REPLY_BYTES + (error === 0 ? pending.into.length : 0);
      if (this.#received.length < end) return;
      pending.into.set(this.#received.subarray(REPLY_BYTES, end));
      this.#received = this.#received.subarray(end);
      this.#pending.delete(cookie);
      if (error === 0) pending.resolve();
      else pending.reject(new NbdFailure(`error ${error}`));
    }
  }
}
