/**
 * The transmission phase of one client: connects the protocol to a device.
 *
 * Invariants:
 * - All requests of one socket read are taken before the socket is read again.
 * - Replies to requests that complete synchronously are sent in one write.
 * - The other requests run concurrently, and each is answered when it completes.
 * - While requests in flight or unsent replies exceed {@link LIMITS}, nothing is read from the socket.
 */

import type { Duplex } from 'node:stream';
import type { Done } from '../../async/done.ts';
import { BYTES, COMMAND, COMMAND_FLAG } from '../constants.ts';
import { BusyPoll } from './busy-poll.ts';
import { blockStatus, change, failureOf } from './commands.ts';
import { type InlineNbdDevice, submitRead } from './export.ts';
import type { Agreement } from './handshake.ts';
import { LIMITS } from './limits.ts';
import { ReadAhead } from './read-ahead.ts';
import { type DetachedReply, Replies } from './replies.ts';
import {
  type Cookie,
  errorReply,
  putReadReply,
  putSimpleReply,
  type Request,
  RequestDecoder,
  readReplyBytes,
} from './transmission.ts';

/** Replies to reads up to this length are built in the shared buffer: such reads may complete synchronously. */
const INLINE_READ_BYTES = 2 ** 16;

/** The transmission phase of one connection. */
export class Session {
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
  /** Whether requests are being taken. Their replies are sent when that ends. */
  #working = false;
  #requestsInWork = 0;
  #bytesInWork = 0;
  /** Whether the socket is paused because a limit is reached. */
  #held = false;
  /** Whether no more requests are taken. */
  #draining = false;
  #onIdle: (() => void) | undefined;
  /** Calls of {@link checkStall} in a row that found a partial request, with no byte received in between. */
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
        // A later read of the range fetches it again, and reports the failure.
        device.hydrateRange!(offset, length, { signal }).catch(() => undefined);
      });
    }
  }

  /** Takes requests, beginning with those in `rest`. */
  start(rest: Uint8Array): void {
    this.#socket.on('data', this.#onData);
    if (rest.length > 0) this.#onData(rest);
  }

  /** Takes no more requests. Ends the connection once those in flight are answered. */
  drain(): void {
    if (this.#draining) return;
    this.#draining = true;
    this.#socket.off('data', this.#onData);
    // Further bytes are dropped. They must still be read, so that the socket reports its end.
    this.#socket.resume();
    this.#endIfDone();
  }

  /** Takes no more requests. Resolves when none is in flight. */
  async idle(): Promise<void> {
    this.#draining = true;
    if (this.#requestsInWork > 0) await new Promise<void>((resolve) => (this.#onIdle = resolve));
  }

  /**
   * To be called every `requestStallMs / 2`. Closes the connection at the third call in a row that finds a partial
   * request, with no byte received in between.
   */
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

  /** Takes requests from the received bytes, until no whole one is left or a limit is reached. */
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
      // After a violation of the protocol, the boundaries of later requests are unknown.
      this.#draining = true;
      this.#socket.destroy();
    }
    this.#device.commitWrites?.();
    this.#working = false;
    if (this.#draining) this.#endIfDone();
    else {
      this.#replies.flush();
      // A client with several requests in flight gains more if they are taken together than from polling.
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

  /** Replies to a read when it completes. Its buffer is not part of the replies that are sent before. */
  #readLater(request: Request, reading: Promise<void>, reply: Uint8Array | DetachedReply): void {
    const { cookieHigh, cookieLow, offset, length } = request;
    this.#readAhead?.note(offset, length);
    this.#track({ cookieHigh, cookieLow }, length, async () => {
      try {
        await reading;
        const bytes = reply instanceof Uint8Array ? reply : reply.bytes;
        putReadReply(bytes, 0, { cookieHigh, cookieLow, offset, length }, this.#structured);
        // Copying a small reply costs less than a separate write to the socket.
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

  /** Runs a request while others are taken. `bytes` is the memory that it holds. */
  #begin(request: Request, bytes: number, task: (request: Request) => Promise<void>): void {
    const { type, flags, cookieHigh, cookieLow, offset, length, payload } = request;
    const kept: Request = { type, flags, cookieHigh, cookieLow, offset, length, payload, error: 0 };
    this.#track(kept, bytes, () => task(kept));
  }

  /** Counts a request as in flight until `task` has settled, and replies with an error if it failed. */
  #track(request: Cookie, bytes: number, task: () => Promise<void>): void {
    this.#requestsInWork++;
    this.#bytesInWork += bytes;
    task()
      .catch((error: unknown) => this.#fail(request, error))
      .finally(() => this.#ended(bytes));
  }

  /** Counts a request as answered. */
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

  /** Sends a reply from its own buffer, which counts as unsent until the socket has taken it. */
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

  /** Adds a simple reply without data to those that are sent next. */
  #reply(request: Cookie, error: number): void {
    const at = this.#replies.reserve(BYTES.simpleReply);
    putSimpleReply(this.#replies.bytes, at, request, error);
  }

  #endIfDone(): void {
    if (this.#working) return;
    this.#replies.flush();
    if (this.#requestsInWork > 0 || this.#socket.writableEnded || this.#socket.destroyed) return;
    this.#socket.end();
    // The client may neither read its replies nor close the connection.
    const timer = setTimeout(() => this.#socket.destroy(), LIMITS.drainMs).unref();
    this.#socket.once('close', () => clearTimeout(timer));
  }
}
