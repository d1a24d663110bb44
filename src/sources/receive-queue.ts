/**
 * Bytes that a socket has delivered and its consumer has not taken. At about two pieces the socket is stopped.
 *
 * - All bytes are copied, since a chunk belongs to the socket again after `push`.
 * - Bytes that come while the consumer is busy are delivered as one piece. Writing chunks of 64 KiB one by one costs
 *   0.2 to 0.3 of the speed.
 * - Where enough bytes have come, pieces begin and end on pages of the body, so that they can be written past the page
 *   cache.
 */

import { PAGE_BYTES, pieceBuffer, releasePages } from '../platform/pages.ts';

/** A piece of this length stays in a core's cache on its way from the socket to the page cache. */
const PIECE_BYTES = 256 << 10;

interface Piece {
  readonly bytes: Uint8Array;
  /** Bytes of the buffer that may be filled. */
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
  /** The piece that the consumer holds. */
  #taken: Piece | undefined;
  #receivedBytes = 0;
  #queuedBytes = 0;
  #stopped = false;
  /** Set when nothing more comes: the body is complete, or `error` is why it is not. */
  #ended: { error?: unknown } | undefined;
  #waiter: (() => void) | undefined;

  /**
   * @param options.expectedBytes the length of the body, if known
   * @param options.pieceBytes the length of pieces that the consumer prefers; their buffers begin on a page of memory
   */
  constructor(socket: { stop(): void; go(): void }, { expectedBytes, pieceBytes }: ReceiveQueueOptions) {
    this.#socket = socket;
    this.#limitBytes = 2 * (pieceBytes ?? PIECE_BYTES);
    this.#newBytes = () => pieceBuffer(pieceBytes, PIECE_BYTES, Math.max(1, expectedBytes ?? Number.POSITIVE_INFINITY));
  }

  /** Whether nothing more will come. */
  get isEnded(): boolean {
    return this.#ended !== undefined;
  }

  /** Copies bytes that have come into the queue. Stops the socket if the queue is full. */
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

  /** Makes `pull` throw `error` once all received bytes have been handed out. */
  fail(error: unknown): void {
    this.#ended ??= { error };
    this.#wake();
  }

  /** Drops the received bytes and makes `pull` throw `error`, unless the body was taken to its end. */
  abort(error: unknown): void {
    if (!this.#ended || this.#pieces.length > 0) this.#ended = { error };
    this.#free.push(...this.#pieces.splice(0));
    this.#queuedBytes = 0;
    this.#wake();
  }

  /** Releases all buffers. Nothing is pushed or pulled afterwards, and no piece is in use. */
  release(): void {
    for (const { bytes } of [...this.#pieces.splice(0), ...this.#free.splice(0)]) releasePages(bytes);
    if (this.#taken !== undefined) releasePages(this.#taken.bytes);
    this.#taken = undefined;
  }

  /** Resolves to the next piece, valid until the next call, or to undefined at the end. */
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

  /** Moves the beginning of a page from the end of a piece into the next one, since the rest of the page follows. */
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

  /** Adds a piece for the bytes from `offset` of the body on. */
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
