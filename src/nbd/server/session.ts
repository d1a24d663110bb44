/**
 * The transmission phase of one client: connects the protocol to a device.
 *
 * Invariants:
 * - All requests of one socket read are taken before the socket is read again.
 * - Replies to requests that complete synchronously are sent in one write.
 * - The other requests run concurrently, and each is answered when it completes.
 * - While requests in flight or unsent replies exceed {@link LIMITS}, nothing is read from the socket.
 * - A long read or write is carried out in pieces, so that its memory is that of one piece.
 */

import type { Duplex } from 'node:stream';
import type { Done } from '../../async/done.ts';
import { ReadAhead } from '../../device/read-ahead.ts';
import { BYTES, COMMAND, COMMAND_FLAG } from '../constants.ts';
import { BusyPoll } from './busy-poll.ts';
import { blockStatus, change, failureOf } from './commands.ts';
import { type Answered, type NbdClientMessage, watchCommand } from './diagnostics.ts';
import { type InlineNbdDevice, submitRead } from './export.ts';
import type { Agreement } from './handshake.ts';
import { Input } from './input.ts';
import { takeBuffer } from './large-buffers.ts';
import { LIMITS } from './limits.ts';
import { BrokenReply, isOneChunk, readInPieces } from './long-read.ts';
import type { ClientMemory, ServerMemory } from './memory.ts';
import { type Receiver, receiveInto } from './receiving-socket.ts';
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

const DROPPED = new Uint8Array(INLINE_READ_BYTES);
/** Takes what comes after the last request. */
const DROPPING: Receiver = { room: () => DROPPED, received: () => undefined };

/** A request that is being carried out. */
interface Taken extends Cookie {
  /** Undefined: nothing subscribes to its answer. */
  readonly answered: Answered | undefined;
}

/** A write whose pieces are in flight. */
interface PendingWrite extends Taken {
  /** Pieces that are not settled; those that have not come count as one. */
  pieces: number;
  /** The first failure of a piece. */
  error: unknown;
}

/** What a session works with, besides its socket and its device. */
export interface SessionOptions {
  readonly agreement: Agreement;
  readonly memory: ServerMemory;
  /** Aborted when the client is gone. */
  readonly signal: AbortSignal;
  /** Its requests are counted here. */
  readonly client: NbdClientMessage;
}

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
  readonly #client: NbdClientMessage;
  readonly #readAhead: ReadAhead | undefined;
  readonly #poll = new BusyPoll();
  /** Whether requests are being taken. Their replies are sent when that ends. */
  #working = false;
  #requestsInWork = 0;
  #bytesInWork = 0;
  readonly #memory: ClientMemory;
  readonly #input: Input;
  /** The write of which more pieces are to come. */
  #incoming: PendingWrite | undefined;
  /** A read whose reply must not be mixed with others. No more requests are taken before it is answered. */
  #lone: (Request & Taken) | undefined;
  /** Long reads that wait for room for their next piece. */
  #waiting: (() => void)[] = [];
  /** Whether the socket is paused because a limit is reached. */
  #held = false;
  /** Whether no more requests are taken. */
  #draining = false;
  /** Whether the client is gone, and none of its requests is in flight. */
  #isIdle = false;
  #onIdle: (() => void) | undefined;
  /** Calls of {@link checkStall} in a row that found a partial request, with no byte received in between. */
  #stalled = 0;

  constructor(socket: Duplex, device: InlineNbdDevice, { agreement, memory, signal, client }: SessionOptions) {
    const { structuredReplies, contexts } = agreement;
    this.#socket = socket;
    this.#device = device;
    this.#structured = structuredReplies;
    this.#readReplyBytes = readReplyBytes(structuredReplies);
    this.#contexts = contexts;
    this.#signal = signal;
    this.#client = client;
    this.#decoder = new RequestDecoder({
      size: agreement.export.size,
      flags: agreement.export.flags,
      structuredReplies,
      hasContexts: contexts.length > 0,
      maximumPayloadBytes: LIMITS.payloadBytes,
      pieceBytes: LIMITS.pieceBytes,
    });
    this.#input = new Input(this.#decoder, () => this.#onInput());
    this.#memory = memory.join(() => this.#onRoom());
    this.#replies = new Replies(socket, () => this.#onRoom());
    if (device.hydrateRange !== undefined) {
      this.#readAhead = new ReadAhead(device, (offset, length) => device.hydrateRange!(offset, length, { signal }));
    }
  }

  /** Takes requests, beginning with those in `rest`. */
  start(rest: Uint8Array): void {
    if (!receiveInto(this.#socket, this.#input)) this.#socket.on('data', this.#input.push);
    if (rest.length > 0) this.#input.push(rest);
  }

  /** Takes no more requests. Ends the connection once those in flight are answered. */
  drain(): void {
    if (this.#draining) return;
    this.#draining = true;
    this.#socket.off('data', this.#input.push);
    // Further bytes are dropped. They must still be read, so that the socket reports its end.
    receiveInto(this.#socket, DROPPING);
    this.#socket.resume();
    this.#endIfDone();
  }

  /** Takes no more requests. Resolves when none is in flight. */
  async idle(): Promise<void> {
    this.#draining = true;
    this.#wakeLongReads();
    if (this.#requestsInWork > 0) await new Promise<void>((resolve) => (this.#onIdle = resolve));
    this.#isIdle = true;
    this.#input.end();
    this.#memory.hold(0);
  }

  /**
   * To be called every `requestStallMs / 2`. Closes the connection at the third call in a row that finds a partial
   * request, with no byte received in between.
   */
  checkStall(): void {
    this.#stalled = this.#decoder.isPartial && !this.#held ? this.#stalled + 1 : 0;
    if (this.#stalled > 2) this.#socket.destroy();
  }

  /** States what the client holds. Returns whether a limit is reached. */
  #isFull(): boolean {
    const input = this.#input.heldBytes + this.#decoder.heldBytes;
    const mayHoldMore = this.#memory.hold(this.#bytesInWork + input + this.#replies.heldBytes);
    return (
      !mayHoldMore ||
      this.#lone !== undefined ||
      this.#requestsInWork >= LIMITS.requestsInWork ||
      this.#replies.unsentBytes >= LIMITS.unsentBytes
    );
  }

  #onInput(): void {
    this.#stalled = 0;
    this.#poll.received();
    this.#work();
  }

  /** Takes requests from the received bytes, until no whole one is left or a limit is reached. */
  #work(): void {
    this.#working = true;
    let taken = 0;
    try {
      while (!this.#draining) {
        if (this.#isFull()) {
          this.#device.commitWrites?.();
          if (this.#isFull()) {
            this.#held = true;
            this.#socket.pause();
            break;
          }
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
    if (this.#isIdle) return;
    const isFull = this.#isFull();
    if (this.#replies.unsentBytes < LIMITS.unsentBytes) this.#wakeLongReads();
    if (this.#draining) {
      this.#endIfDone();
      return;
    }
    if (!this.#held || isFull) return;
    this.#held = false;
    this.#work();
    if (!this.#held && !this.#draining) this.#socket.resume();
  }

  #take(request: Request): void {
    const { type, length, error } = request;
    if (type === COMMAND.disconnect) {
      this.drain();
      return;
    }
    // A further piece of a write belongs to the command that is watched already.
    const answered = this.#incoming === undefined ? watchCommand(this.#client.export, request) : undefined;
    if (error !== 0) this.#refuse({ ...cookieOf(request), answered }, error, 'the request is not allowed');
    else if (type === COMMAND.read) {
      this.#client.reads++;
      this.#client.readBytes += length;
      if (length > LIMITS.pieceBytes) this.#readLong(request, answered);
      else this.#read(request, answered);
    } else if (type === COMMAND.write) {
      this.#client.writes++;
      this.#client.writtenBytes += length;
      this.#write(request, answered);
    } else this.#begin(request, answered, type === COMMAND.blockStatus ? this.#status : this.#change);
  }

  #read(request: Request, answered: Answered | undefined): void {
    const { offset, length } = request;
    const head = this.#readReplyBytes;
    const replyBytes = head + length;
    const isInPlace = length <= INLINE_READ_BYTES && this.#replies.canDetach;
    const at = isInPlace ? this.#replies.reserve(replyBytes) : 0;
    const own = isInPlace ? undefined : takeBuffer(replyBytes);
    let reading: Done;
    try {
      const into = own === undefined ? this.#replies.view(at + head, length) : own.subarray(head);
      reading = submitRead(this.#device, into, offset, this.#signal);
    } catch (error) {
      if (isInPlace) this.#replies.unreserve(replyBytes);
      this.#fail({ ...cookieOf(request), answered }, error);
      return;
    }
    if (reading === undefined) {
      putReadReply(own ?? this.#replies.bytes, at, request, this.#structured);
      if (own !== undefined) this.#send(own);
      answered?.(0);
    } else this.#readLater(request, answered, reading, own ?? this.#replies.detach(replyBytes));
  }

  #readLong(request: Request, answered: Answered | undefined): void {
    const kept = copyOf(request, answered);
    if (!isOneChunk(request, this.#structured)) this.#track(kept, LIMITS.pieceBytes, () => this.#readInPieces(kept));
    else {
      this.#lone = kept;
      this.#startLone();
    }
  }

  /** Starts the read that must be alone, once no other request is in flight. */
  #startLone(): void {
    const lone = this.#lone;
    if (lone === undefined || this.#requestsInWork > 0) return;
    this.#track(lone, LIMITS.pieceBytes, async () => {
      try {
        await this.#readInPieces(lone);
      } catch (error) {
        if (!(error instanceof BrokenReply)) throw error;
        this.#socket.destroy();
      } finally {
        this.#lone = undefined;
      }
    });
  }

  #readInPieces(request: Request): Promise<void> {
    return readInPieces(this.#device, request, {
      structured: this.#structured,
      signal: this.#signal,
      room: async () => {
        if (this.#replies.unsentBytes >= LIMITS.unsentBytes)
          await new Promise<void>((resolve) => this.#waiting.push(resolve));
      },
      send: (bytes) => {
        this.#replies.send(bytes);
        this.#replies.flushSoon();
      },
    });
  }

  #wakeLongReads(): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }

  /** Replies to a read when it completes. Its buffer is not part of the replies that are sent before. */
  #readLater(
    request: Request,
    answered: Answered | undefined,
    reading: Promise<void>,
    reply: Uint8Array | DetachedReply,
  ): void {
    const { cookieHigh, cookieLow, offset, length } = request;
    this.#readAhead?.note(offset, length);
    this.#track({ cookieHigh, cookieLow, answered }, length, async () => {
      try {
        await reading;
        const bytes = reply instanceof Uint8Array ? reply : reply.bytes;
        putReadReply(bytes, 0, { cookieHigh, cookieLow, offset, length }, this.#structured);
        this.#send(bytes);
      } finally {
        if (!(reply instanceof Uint8Array)) reply.release();
      }
    });
  }

  /** Writes a whole payload, or a piece of one. The reply follows when all pieces are settled. */
  #write(request: Request, answered: Answered | undefined): void {
    const { flags, offset, payload, rest, cookieHigh, cookieLow } = request;
    const write = this.#incoming ?? { cookieHigh, cookieLow, answered, pieces: 1, error: undefined };
    if (rest > 0) write.pieces++;
    this.#incoming = rest > 0 ? write : undefined;
    const memory = this.#input.memoryOf(payload);
    if (memory.writes++ === 0) this.#bytesInWork += memory.bytes;
    this.#requestsInWork++;
    const settled = (error: unknown): void => {
      if (error !== undefined) memory.isSpoiled = true;
      const isLast = --memory.writes === 0;
      if (isLast) this.#input.free(memory);
      write.error ??= error;
      if (--write.pieces === 0) {
        if (write.error === undefined) {
          this.#reply(write, 0);
          write.answered?.(0);
        } else this.#fail(write, write.error);
      }
      this.#ended(isLast ? memory.bytes : 0);
    };
    if (this.#device.submitWrite !== undefined)
      this.#device.submitWrite(payload, offset, (flags & COMMAND_FLAG.fua) !== 0, settled);
    // `change` has read the request when it returns.
    else change(this.#device, request, this.#signal).then(settled, (error) => settled(error ?? new Error('no reason')));
  }

  /** Runs a request while others are taken. */
  #begin(request: Request, answered: Answered | undefined, task: (request: Request) => Promise<void>): void {
    const kept = copyOf(request, answered);
    const collects = request.type === COMMAND.blockStatus && (request.flags & COMMAND_FLAG.reqOne) === 0;
    this.#track(kept, collects ? LIMITS.statusBytes : 0, () => task(kept));
  }

  /** Counts a request as in flight until `task` has settled, and replies with an error if it failed. */
  #track(request: Taken, bytes: number, task: () => Promise<void>): void {
    this.#requestsInWork++;
    this.#bytesInWork += bytes;
    task()
      .then(
        () => request.answered?.(0),
        (error: unknown) => this.#fail(request, error),
      )
      .finally(() => this.#ended(bytes));
  }

  /** Counts a request as answered. */
  #ended(bytes: number): void {
    this.#requestsInWork--;
    this.#bytesInWork -= bytes;
    this.#startLone();
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

  /** Sends a reply: a small one from the shared buffer, since copying it costs less than a separate write. */
  #send(bytes: Uint8Array): void {
    if (bytes.length > this.#readReplyBytes + INLINE_READ_BYTES) this.#replies.send(bytes);
    else this.#replies.view(this.#replies.reserve(bytes.length), bytes.length).set(bytes);
  }

  #fail(request: Taken, error: unknown): void {
    const failure = failureOf(error);
    this.#refuse(request, failure.error, failure.message);
  }

  #refuse(request: Taken, error: number, message: string): void {
    if (this.#structured) this.#send(errorReply(request, error, message));
    else this.#reply(request, error);
    request.answered?.(error);
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

/** The decoder is its latest request, so a request that is needed later is copied. */
function copyOf(request: Request, answered: Answered | undefined): Request & Taken {
  const { type, flags, cookieHigh, cookieLow, offset, length, payload } = request;
  return { type, flags, cookieHigh, cookieLow, offset, length, payload, rest: 0, error: 0, answered };
}

function cookieOf({ cookieHigh, cookieLow }: Cookie): Cookie {
  return { cookieHigh, cookieLow };
}
