/**
 * What a socket has brought and its consumer has not taken: at most about LIMIT_BYTES, then the socket is stopped.
 *
 * What came while the consumer was busy is handed over as one piece, at most PIECE_BYTES, in a buffer that the next piece takes over:
 * written one by one, the 64 KiB that a socket read brings cost 0.2 to 0.3 of the speed. What a waiting consumer gets is not copied.
 */

const LIMIT_BYTES = 512 << 10;
const PIECE_BYTES = 256 << 10;

export class ReceiveQueue {
  #chunks: Uint8Array[] = [];
  #queuedBytes = 0;
  #stopped = false;
  /** Nothing comes any more: the body is complete, or `error` says why not. */
  #ended: { error?: unknown } | undefined;
  #waiter: (() => void) | undefined;
  #buffer: Uint8Array | undefined;
  readonly #socket: { stop(): void; go(): void };

  constructor(socket: { stop(): void; go(): void }) {
    this.#socket = socket;
  }

  push(chunk: Uint8Array): void {
    if (this.#ended) return;
    // Not a Buffer, whose slice() would not copy: a trap for whoever is given a piece.
    this.#chunks.push(new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.length));
    this.#queuedBytes += chunk.length;
    if (this.#queuedBytes >= LIMIT_BYTES) {
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
    if (!this.#ended || this.#chunks.length > 0) this.#ended = { error };
    this.#chunks = [];
    this.#queuedBytes = 0;
    this.#wake();
  }

  /** The next piece, valid until the next call; undefined at the end. */
  async pull(): Promise<Uint8Array | undefined> {
    while (this.#chunks.length === 0) {
      if (this.#ended && 'error' in this.#ended) throw this.#ended.error;
      if (this.#ended) return undefined;
      await new Promise<void>((resolve) => {
        this.#waiter = resolve;
      });
    }
    const piece = this.#chunks.length === 1 ? this.#chunks.shift()! : this.#merge();
    this.#queuedBytes -= piece.length;
    if (this.#stopped && this.#queuedBytes <= LIMIT_BYTES / 2) {
      this.#stopped = false;
      this.#socket.go();
    }
    return piece;
  }

  #merge(): Uint8Array {
    this.#buffer ??= new Uint8Array(PIECE_BYTES);
    let length = 0;
    let count = 0;
    for (const chunk of this.#chunks) {
      if (length + chunk.length > PIECE_BYTES) break;
      this.#buffer.set(chunk, length);
      length += chunk.length;
      count++;
    }
    if (count === 0) return this.#chunks.shift()!;
    this.#chunks.splice(0, count);
    return this.#buffer.subarray(0, length);
  }

  #wake(): void {
    this.#waiter?.();
    this.#waiter = undefined;
  }
}
