/**
 * What a socket has brought and its consumer has not taken: at most about two pieces, then the socket is stopped.
 *
 * Everything is copied, since a chunk is the socket's own again after `push`; what came while the consumer was busy is handed over as one piece: written one by one,
 * chunks of 64 KiB cost 0.2 to 0.3 of the speed. Pieces begin and end on pages of the body
 * wherever more has come than that, so that they may be written past the page cache.
 */

import { PAGE_BYTES, pieceBuffer } from '../platform/pages.ts';

/** Stays in a core's cache on its way from the socket into the page cache. */
const PIECE_BYTES = 256 << 10;

interface Piece {
  readonly bytes: Uint8Array;
  /** How much of it is to be used. */
  room: number;
  length: number;
}

export interface ReceiveQueueOptions {
  readonly expectedBytes?: number | undefined;
  readonly pieceBytes?: number | undefined;
}

export class ReceiveQueue {
  readonly #socket: { stop(): void; go(): void };
  readonly #limitBytes: number;
  readonly #newBytes: () => Uint8Array;
  readonly #pieces: Piece[] = [];
  readonly #free: Piece[] = [];
  /** What the consumer holds. */
  #taken: Piece | undefined;
  #receivedBytes = 0;
  #queuedBytes = 0;
  #stopped = false;
  /** Nothing comes any more: the body is complete, or `error` says why not. */
  #ended: { error?: unknown } | undefined;
  #waiter: (() => void) | undefined;

  /** `expectedBytes`: the body's length, if it is known. `pieceBytes`: how long its consumer would like pieces to be, out of a {@link pageBuffer}. */
  constructor(socket: { stop(): void; go(): void }, { expectedBytes, pieceBytes }: ReceiveQueueOptions) {
    this.#socket = socket;
    this.#limitBytes = 2 * (pieceBytes ?? PIECE_BYTES);
    this.#newBytes = () => pieceBuffer(pieceBytes, PIECE_BYTES, Math.max(1, expectedBytes ?? Number.POSITIVE_INFINITY));
  }

  /** Whether nothing more will come. */
  get isEnded(): boolean {
    return this.#ended !== undefined;
  }

  /** Copies what has come. */
  push(chunk: Uint8Array): void {
    if (this.#ended) return;
    for (let done = 0; done < chunk.length; ) {
      const piece = this.#unfilled();
      const part = chunk.subarray(done, done + piece.room - piece.length);
      piece.bytes.set(part, piece.length);
      piece.length += part.length;
      this.#receivedBytes += part.length;
      done += part.length;
    }
    this.#queuedBytes += chunk.length;
    if (this.#queuedBytes >= this.#limitBytes && !this.#stopped) {
      this.#stopped = true;
      this.#socket.stop();
    }
    this.#wake();
  }

  end(): void {
    this.#ended ??= {};
    this.#wake();
  }

  /** What has come is still handed out, then `error` is thrown. */
  fail(error: unknown): void {
    this.#ended ??= { error };
    this.#wake();
  }

  /** `error` is thrown at once, unless the body had been taken to its end. */
  abort(error: unknown): void {
    if (!this.#ended || this.#pieces.length > 0) this.#ended = { error };
    this.#pieces.length = 0;
    this.#queuedBytes = 0;
    this.#wake();
  }

  /** The next piece, valid until the next call; undefined at the end. */
  async pull(): Promise<Uint8Array | undefined> {
    if (this.#taken) {
      this.#taken.length = 0;
      this.#free.push(this.#taken);
      this.#taken = undefined;
    }
    while (this.#pieces.length === 0) {
      if (this.#ended && 'error' in this.#ended) throw this.#ended.error;
      if (this.#ended) return undefined;
      await new Promise<void>((resolve) => {
        this.#waiter = resolve;
      });
    }
    const piece = this.#pieces.shift()!;
    this.#taken = piece;
    if (this.#pieces.length === 0 && this.#ended === undefined) this.#keepPartOfPage(piece);
    this.#queuedBytes -= piece.length;
    if (this.#stopped && this.#queuedBytes <= this.#limitBytes / 2) {
      this.#stopped = false;
      this.#socket.go();
    }
    return piece.bytes.subarray(0, piece.length);
  }

  /** The beginning of a page, of which more will follow, goes into the next piece. */
  #keepPartOfPage(piece: Piece): void {
    const length = this.#receivedBytes % PAGE_BYTES;
    if (length === 0 || length >= piece.length) return;
    piece.length -= length;
    const next = this.#newPiece(this.#receivedBytes - length);
    next.bytes.set(piece.bytes.subarray(piece.length, piece.length + length));
    next.length = length;
  }

  #unfilled(): Piece {
    const last = this.#pieces.at(-1);
    return last !== undefined && last.length < last.room ? last : this.#newPiece(this.#receivedBytes);
  }

  /** For what comes from `offset` of the body on. */
  #newPiece(offset: number): Piece {
    const piece = this.#free.pop() ?? { bytes: this.#newBytes(), room: 0, length: 0 };
    piece.room = Math.max(1, piece.bytes.length - (offset % PAGE_BYTES));
    this.#pieces.push(piece);
    return piece;
  }

  #wake(): void {
    this.#waiter?.();
    this.#waiter = undefined;
  }
}
