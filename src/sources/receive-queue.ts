/**
 * What a socket has brought and its consumer has not taken: at most about LIMIT_BYTES, then the socket is stopped.
 *
 * Everything is copied, since a chunk is the socket's own again after `push`; what came while the consumer was busy is handed over as one piece: written one by one,
 * chunks of 64 KiB cost 0.2 to 0.3 of the speed.
 */

const LIMIT_BYTES = 512 << 10;
const PIECE_BYTES = 256 << 10;

interface Piece {
  readonly bytes: Uint8Array;
  length: number;
}

export class ReceiveQueue {
  readonly #socket: { stop(): void; go(): void };
  readonly #pieceBytes: number;
  readonly #pieces: Piece[] = [];
  readonly #free: Piece[] = [];
  /** What the consumer holds. */
  #taken: Piece | undefined;
  #queuedBytes = 0;
  #stopped = false;
  /** Nothing comes any more: the body is complete, or `error` says why not. */
  #ended: { error?: unknown } | undefined;
  #waiter: (() => void) | undefined;

  /** `expectedBytes`: the body's length, if it is known. */
  constructor(socket: { stop(): void; go(): void }, expectedBytes: number | undefined) {
    this.#socket = socket;
    this.#pieceBytes = Math.max(1, Math.min(PIECE_BYTES, expectedBytes ?? PIECE_BYTES));
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
      const part = chunk.subarray(done, done + piece.bytes.length - piece.length);
      piece.bytes.set(part, piece.length);
      piece.length += part.length;
      done += part.length;
    }
    this.#queuedBytes += chunk.length;
    if (this.#queuedBytes >= LIMIT_BYTES && !this.#stopped) {
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
    this.#queuedBytes -= piece.length;
    if (this.#stopped && this.#queuedBytes <= LIMIT_BYTES / 2) {
      this.#stopped = false;
      this.#socket.go();
    }
    return piece.bytes.subarray(0, piece.length);
  }

  #unfilled(): Piece {
    const last = this.#pieces.at(-1);
    if (last && last.length < last.bytes.length) return last;
    const piece = this.#free.pop() ?? { bytes: new Uint8Array(this.#pieceBytes), length: 0 };
    this.#pieces.push(piece);
    return piece;
  }

  #wake(): void {
    this.#waiter?.();
    this.#waiter = undefined;
  }
}
