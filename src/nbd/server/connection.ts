/**
 * One client of the server, from its connection to its end.
 *
 *   handshake → (TLS → handshake) → transmission (`session.ts`) → draining → closed
 */

import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { sharedAbort } from '../../async/shared-abort.ts';
import { connected, disconnected, type NbdClientMessage } from './diagnostics.ts';
import type { Exports } from './export.ts';
import { type Agreement, Handshake, type HandshakeAction } from './handshake.ts';
import { LIMITS } from './limits.ts';
import type { ServerMemory } from './memory.ts';
import { Session } from './session.ts';
import { ProtocolError } from './transmission.ts';

/** What a connection serves, and how it is secured. */
export interface ConnectionOptions {
  readonly exports: Exports;
  /** As of `Handshake`. */
  readonly onlyIsDefault?: boolean;
  /** Shared by all connections of a server. */
  readonly memory: ServerMemory;
  /** Starts TLS on a socket, as the server. Absent: TLS is not offered. */
  readonly secure?: ((socket: Duplex) => Promise<Duplex>) | undefined;
}

export class Connection {
  /** Resolves when the socket is closed and no request is in flight. */
  readonly closed: Promise<void>;
  readonly #options: ConnectionOptions;
  readonly #handshake: Handshake;
  readonly #abort = sharedAbort();
  readonly #onClosed: () => void;
  readonly #plain: Duplex;
  /** The plain socket, or TLS over it. */
  #socket: Duplex;
  #timer: NodeJS.Timeout;
  #session: Session | undefined;
  /** Set once the client has chosen an export. */
  #client: NbdClientMessage | undefined;
  #isClosed = false;
  #draining = false;

  constructor(socket: Duplex, options: ConnectionOptions) {
    this.#options = options;
    this.#plain = socket;
    this.#socket = socket;
    let resolveClosed!: () => void;
    this.closed = new Promise<void>((resolve) => (resolveClosed = resolve));
    this.#onClosed = resolveClosed;
    const { exports, secure, onlyIsDefault = true } = options;
    const tls = secure === undefined ? 'absent' : 'required';
    this.#handshake = new Handshake({ exports: exports.infos, tls, onlyIsDefault });
    this.#timer = setTimeout(() => this.destroy(), LIMITS.handshakeMs);
    this.#attach(socket);
    socket.on('data', this.#onHandshake);
    socket.write(this.#handshake.greeting());
  }

  /** Whether the client has not reached the transmission phase. TLS is part of the handshake. */
  get isInHandshake(): boolean {
    return this.#session === undefined;
  }

  /** The export that the client uses. Undefined during the handshake. */
  get exportName(): string | undefined {
    return this.#client?.export;
  }

  /**
   * Takes no more requests. Ends the connection once the client has the replies to those in flight. During the
   * handshake, closes it immediately.
   */
  drain(): void {
    if (this.#draining) return;
    this.#draining = true;
    this.#drainOrDestroy();
  }

  #drainOrDestroy(): void {
    if (this.#session === undefined) this.destroy();
    else this.#session.drain();
  }

  /** Closes the connection immediately. Replies that are not sent are lost. */
  destroy(): void {
    this.#socket.destroy();
    this.#plain.destroy();
  }

  #attach(socket: Duplex): void {
    // An error means that the client is gone. The event 'close' follows.
    socket.on('error', () => socket.destroy());
    socket.on('close', () => void this.#close());
    // A client that has closed its sending side may still read.
    socket.on('end', () => this.#drainOrDestroy());
  }

  async #close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    clearTimeout(this.#timer);
    this.#abort.abort(new ProtocolError('the client has disconnected'));
    await this.#session?.idle();
    if (this.#client !== undefined) disconnected(this.#client);
    this.#onClosed();
  }

  readonly #onHandshake = (chunk: Uint8Array): void => {
    const action = this.#handshake.receive(chunk);
    if (action.send.length > 0) this.#socket.write(action.send);
    if (action.next === 'receive') {
      // The client sends options and does not read the replies.
      if (this.#socket.writableLength > LIMITS.unsentBytes) this.destroy();
      return;
    }
    this.#socket.off('data', this.#onHandshake);
    this.#leaveHandshake(action);
  };

  #leaveHandshake(action: Exclude<HandshakeAction, { next: 'receive' }>): void {
    if (action.next === 'close') this.#socket.resume().end(() => this.#socket.destroy());
    else if (action.next === 'starttls') this.#secure().catch(() => this.destroy());
    else this.#transmit(action.agreement, action.rest);
  }

  async #secure(): Promise<void> {
    const socket = await this.#options.secure!(this.#socket);
    if (this.#isClosed) {
      socket.destroy();
      return;
    }
    this.#socket = socket;
    this.#attach(socket);
    this.#handshake.secured();
    socket.on('data', this.#onHandshake);
  }

  #transmit(agreement: Agreement, rest: Uint8Array): void {
    clearTimeout(this.#timer);
    const { exports, memory } = this.#options;
    const { name } = agreement.export;
    // The client has agreed on it just now.
    const device = exports.device(name)!;
    const client = {
      export: name,
      address: addressOf(this.#plain),
      tls: this.#socket !== this.#plain,
      reads: 0,
      writes: 0,
      readBytes: 0,
      writtenBytes: 0,
    };
    const session = new Session(this.#socket, device, { agreement, memory, signal: this.#abort.signal, client });
    this.#session = session;
    this.#client = client;
    connected(client);
    this.#timer = setInterval(() => session.checkStall(), LIMITS.requestStallMs / 2);
    this.#timer.unref();
    if (this.#draining) session.drain();
    else session.start(rest);
  }
}

/** `address:port` of the other side; undefined on a unix socket. */
function addressOf(socket: Duplex): string | undefined {
  const { remoteAddress: host, remotePort: port } = socket as Partial<Socket>;
  if (host === undefined) return undefined;
  return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
}
