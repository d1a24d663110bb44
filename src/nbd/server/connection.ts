/**
 * One client: ties the protocol to a device.
 *
 *   handshake → (TLS → handshake) → transmission → draining → closed
 *
 * Invariants: all that one read of the socket brings is worked through before anything else is read; what can be answered at once is, in one write; the rest runs
 * side by side and is answered as it is done. While more is in work, or unsent, than {@link LIMITS} allows, nothing is read.
 */

import { setMaxListeners } from 'node:events';
import type { Duplex } from 'node:stream';
import type { Done } from '../../async/done.ts';
import { BYTES, COMMAND, COMMAND_FLAG } from '../constants.ts';
import { BusyPoll } from './busy-poll.ts';
import { blockStatus, change, failureOf } from './commands.ts';
import { exportInfo, type InlineNbdDevice, type NbdExport, submitRead } from './export.ts';
import { type Agreement, type ExportInfo, Handshake, type HandshakeAction } from './handshake.ts';
import { LIMITS } from './limits.ts';
import { ReadAhead } from './read-ahead.ts';
import { type DetachedReply, Replies } from './replies.ts';
import {
  type Cookie,
  errorReply,
  ProtocolError,
  putReadReply,
  putSimpleReply,
  type Request,
  RequestDecoder,
  readReplyBytes,
} from './transmission.ts';

/** Replies to reads up to this size are made in place: they may complete synchronously. */
const INLINE_READ_BYTES = 2 ** 16;

/** What a connection is made for. */
export interface ConnectionOptions {
  readonly exports: ReadonlyMap<string, NbdExport>;
  /** Puts a socket under TLS; absent: there is none. */
  readonly secure?: ((socket: Duplex) => Promise<Duplex>) | undefined;
}

export class Connection {
  /** Resolves when the connection is over and nothing of it is in work. */
  readonly closed: Promise<void>;
  readonly #options: ConnectionOptions;
  readonly #handshake: Handshake;
  readonly #infos: readonly ExportInfo[];
  readonly #abort = new AbortController();
  readonly #onClosed: () => void;
  readonly #plain: Duplex;
  /** The plain socket, or TLS over it. */
  #socket: Duplex;
  #timer: NodeJS.Timeout;
  #session: Session | undefined;
  #isClosed = false;
  #draining = false;

  constructor(socket: Duplex, options: ConnectionOptions) {
    this.#options = options;
    this.#plain = socket;
    this.#socket = socket;
    // Each cold read listens.
    setMaxListeners(0, this.#abort.signal);
    let resolveClosed!: () => void;
    this.closed = new Promise<void>((resolve) => (resolveClosed = resolve));
    this.#onClosed = resolveClosed;
    this.#infos = [...options.exports].map(([name, each]) => exportInfo(name, each));
    this.#handshake = new Handshake({
      exports: this.#infos,
      tls: options.secure === undefined ? 'absent' : 'required',
    });
    this.#timer = setTimeout(() => this.destroy(), LIMITS.handshakeMs);
    this.#attach(socket);
    socket.on('data', this.#onHandshake);
    socket.write(this.#handshake.greeting());
  }

  /** Reads no more requests; ends once those in work are answered and the client has the answers. */
  drain(): void {
    if (this.#draining) return;
    this.#draining = true;
    this.#drainOrDestroy();
  }

  #drainOrDestroy(): void {
    if (this.#session === undefined) this.destroy();
    else this.#session.drain();
  }

  /** Ends at once. */
  destroy(): void {
    this.#socket.destroy();
    this.#plain.destroy();
  }

  #attach(socket: Duplex): void {
    // What an error means here is that the client is gone; 'close' follows.
    socket.on('error', () => socket.destroy());
    socket.on('close', () => void this.#close());
    // A client that sends nothing more may still read.
    socket.on('end', () => this.#drainOrDestroy());
  }

  async #close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    clearTimeout(this.#timer);
    this.#abort.abort(new ProtocolError('the client is gone'));
    await this.#session?.idle();
    this.#onClosed();
  }

  readonly #onHandshake = (chunk: Uint8Array): void => {
    const action = this.#handshake.receive(chunk);
    if (action.send.length > 0) this.#socket.write(action.send);
    if (action.next === 'receive') {
      // A client that asks and does not listen.
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
    const { device } = this.#options.exports.get(agreement.export.name)!;
    const session = new Session(this.#socket, device, agreement, this.#abort.signal);
    this.#session = session;
    this.#timer = setInterval(() => session.checkStall(), LIMITS.requestStallMs / 2);
    this.#timer.unref();
    if (this.#draining) session.drain();
    else session.start(rest);
  }
}

/** The transmission phase of one connection. */
class Session {
  readonly #socket: Duplex;
  readonly #device: InlineNbdDevice;
  readonly #structured: boolean;
  readonly #readReplyBytes: number;
  readonly #contexts: readonly number[];
  readonly #decoder: RequestDecoder;
  readonly #replies: Replies;
  readonly #signal: AbortSignal;
  readonly #readAhead: ReadAhead | undefined;
  readonly #poll = new BusyPoll();
  /** Requests are being taken; what they are answered leaves when that is over. */
  #working = false;
  #requestsInWork = 0;
  #bytesInWork = 0;
  /** Nothing is read from the socket until there is room again. */
  #held = false;
  /** No more requests are taken. */
  #draining = false;
  #onIdle: (() => void) | undefined;
  /** Looks of {@link checkStall} in a row that found the same unfinished request. */
  #stalled = 0;

  constructor(socket: Duplex, device: InlineNbdDevice, agreement: Agreement, signal: AbortSignal) {
    const { structuredReplies, contexts } = agreement;
    this.#socket = socket;
    this.#device = device;
    this.#structured = structuredReplies;
    this.#readReplyBytes = readReplyBytes(structuredReplies);
    this.#contexts = contexts;
    this.#signal = signal;
    this.#decoder = new RequestDecoder({
      size: agreement.export.size,
      flags: agreement.export.flags,
      structuredReplies,
      hasContexts: contexts.length > 0,
      maximumPayloadBytes: LIMITS.payloadBytes,
    });
    this.#replies = new Replies(socket, () => this.#onRoom());
    if (device.hydrateRange !== undefined) {
      this.#readAhead = new ReadAhead(device.size, (offset, length) => {
        // Whoever reads it will ask again, and be told.
        device.hydrateRange!(offset, length, { signal }).catch(() => undefined);
      });
    }
  }

  /** Takes requests, the first of them from `rest`. */
  start(rest: Uint8Array): void {
    this.#socket.on('data', this.#onData);
    if (rest.length > 0) this.#onData(rest);
  }

  /** Takes no more requests, and ends the connection once those in work are answered. */
  drain(): void {
    if (this.#draining) return;
    this.#draining = true;
    this.#socket.off('data', this.#onData);
    // Whatever else comes is of no interest, but its end is.
    this.#socket.resume();
    this.#endIfDone();
  }

  /** Resolves when nothing is in work. */
  async idle(): Promise<void> {
    this.#draining = true;
    if (this.#requestsInWork > 0) await new Promise<void>((resolve) => (this.#onIdle = resolve));
  }

  /** To be called now and then: ends a connection that has let a request lie unfinished since the call before the last. */
  checkStall(): void {
    this.#stalled = this.#decoder.isPartial && !this.#held ? this.#stalled + 1 : 0;
    if (this.#stalled > 2) this.#socket.destroy();
  }

  get #isFull(): boolean {
    return (
      this.#requestsInWork >= LIMITS.requestsInWork ||
      this.#bytesInWork >= LIMITS.bytesInWork ||
      this.#replies.unsentBytes >= LIMITS.unsentBytes
    );
  }

  readonly #onData = (chunk: Uint8Array): void => {
    this.#stalled = 0;
    this.#poll.received();
    this.#decoder.push(chunk);
    this.#work();
  };

  /** Takes requests from what has come. */
  #work(): void {
    this.#working = true;
    let taken = 0;
    try {
      while (!this.#draining) {
        if (this.#isFull) this.#device.commitWrites?.();
        if (this.#isFull) {
          this.#held = true;
          this.#socket.pause();
          break;
        }
        if (!this.#decoder.next()) break;
        taken++;
        this.#take(this.#decoder);
      }
    } catch {
      // What the client sent makes no sense, and neither would what it would be read as from here on.
      this.#draining = true;
      this.#socket.destroy();
    }
    this.#device.commitWrites?.();
    this.#working = false;
    if (this.#draining) this.#endIfDone();
    else {
      this.#replies.flush();
      // Who has several under way gains more by their being taken together.
      if (taken === 1 && this.#requestsInWork === 0) this.#poll.answered();
    }
  }

  #onRoom(): void {
    if (this.#draining) {
      this.#endIfDone();
      return;
    }
    if (!this.#held || this.#isFull) return;
    this.#held = false;
    this.#work();
    if (!this.#held && !this.#draining) this.#socket.resume();
  }

  #take(request: Request): void {
    if (request.type === COMMAND.disconnect) this.drain();
    else if (request.error !== 0) this.#refuse(request, request.error, 'the request is not allowed');
    else if (request.type === COMMAND.read) this.#read(request);
    else if (request.type === COMMAND.write) this.#write(request);
    else if (request.type === COMMAND.blockStatus) this.#begin(request, 0, this.#status);
    else this.#begin(request, 0, this.#change);
  }

  #read(request: Request): void {
    const { offset, length } = request;
    const head = this.#readReplyBytes;
    const replyBytes = head + length;
    const isInPlace = length <= INLINE_READ_BYTES && this.#replies.canDetach;
    const at = isInPlace ? this.#replies.reserve(replyBytes) : 0;
    const own = isInPlace ? undefined : Buffer.allocUnsafeSlow(replyBytes);
    let reading: Done;
    try {
      const into = own === undefined ? this.#replies.view(at + head, length) : own.subarray(head);
      reading = submitRead(this.#device, into, offset, this.#signal);
    } catch (error) {
      if (isInPlace) this.#replies.unreserve(replyBytes);
      this.#fail(request, error);
      return;
    }
    if (reading === undefined) {
      putReadReply(own ?? this.#replies.bytes, at, request, this.#structured);
      if (own !== undefined) this.#send(own);
    } else this.#readLater(request, reading, own ?? this.#replies.detach(replyBytes));
  }

  /** Replies to a read when it is done, with a reply that is not part of what leaves before. */
  #readLater(request: Request, reading: Promise<void>, reply: Uint8Array | DetachedReply): void {
    const { cookieHigh, cookieLow, offset, length } = request;
    this.#readAhead?.note(offset, length);
    this.#track({ cookieHigh, cookieLow }, length, async () => {
      try {
        await reading;
        const bytes = reply instanceof Uint8Array ? reply : reply.bytes;
        putReadReply(bytes, 0, { cookieHigh, cookieLow, offset, length }, this.#structured);
        // A copy of a small reply costs less than a write of its own.
        if (length <= INLINE_READ_BYTES)
          this.#replies.view(this.#replies.reserve(bytes.length), bytes.length).set(bytes);
        else this.#send(bytes);
      } finally {
        if (!(reply instanceof Uint8Array)) reply.release();
      }
    });
  }

  #write(request: Request): void {
    const { flags, offset, payload, cookieHigh, cookieLow } = request;
    if (this.#device.submitWrite === undefined) {
      this.#begin(request, payload.length, this.#change);
      return;
    }
    this.#requestsInWork++;
    this.#bytesInWork += payload.length;
    this.#device.submitWrite(payload, offset, (flags & COMMAND_FLAG.fua) !== 0, (error) => {
      if (error === undefined) this.#reply({ cookieHigh, cookieLow }, 0);
      else this.#fail({ cookieHigh, cookieLow }, error);
      this.#ended(payload.length);
    });
  }

  /** Does a request while others are taken; `bytes` is what it keeps in memory. */
  #begin(request: Request, bytes: number, task: (request: Request) => Promise<void>): void {
    const { type, flags, cookieHigh, cookieLow, offset, length, payload } = request;
    const kept: Request = { type, flags, cookieHigh, cookieLow, offset, length, payload, error: 0 };
    this.#track(kept, bytes, () => task(kept));
  }

  /** Counts a request as in work until `task` has ended, and replies if it failed. */
  #track(request: Cookie, bytes: number, task: () => Promise<void>): void {
    this.#requestsInWork++;
    this.#bytesInWork += bytes;
    task()
      .catch((error: unknown) => this.#fail(request, error))
      .finally(() => this.#ended(bytes));
  }

  /** A request has been answered. */
  #ended(bytes: number): void {
    this.#requestsInWork--;
    this.#bytesInWork -= bytes;
    if (this.#requestsInWork === 0) this.#onIdle?.();
    if (this.#working) return;
    this.#replies.flushSoon();
    if (this.#requestsInWork === 0) this.#poll.answered();
    this.#onRoom();
  }

  readonly #change = async (request: Request): Promise<void> => {
    await change(this.#device, request, this.#signal);
    this.#reply(request, 0);
  };

  readonly #status = async (request: Request): Promise<void> => {
    for (const chunk of await blockStatus(this.#device, request, this.#contexts)) this.#send(chunk);
  };

  /** Sends a reply of its own buffer, which counts as unsent until the socket has taken it. */
  #send(bytes: Uint8Array): void {
    this.#replies.send(bytes);
  }

  #fail(request: Cookie, error: unknown): void {
    const failure = failureOf(error);
    this.#refuse(request, failure.error, failure.message);
  }

  #refuse(request: Cookie, error: number, message: string): void {
    if (this.#structured) this.#send(errorReply(request, error, message));
    else this.#reply(request, error);
  }

  /** A simple reply without data. */
  #reply(request: Cookie, error: number): void {
    const at = this.#replies.reserve(BYTES.simpleReply);
    putSimpleReply(this.#replies.bytes, at, request, error);
  }

  #endIfDone(): void {
    if (this.#working) return;
    this.#replies.flush();
    if (this.#requestsInWork > 0 || this.#socket.writableEnded || this.#socket.destroyed) return;
    this.#socket.end();
    // A client that neither takes its replies nor goes away.
    const timer = setTimeout(() => this.#socket.destroy(), LIMITS.drainMs).unref();
    this.#socket.once('close', () => clearTimeout(timer));
  }
}
