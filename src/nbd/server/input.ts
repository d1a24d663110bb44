/**
 * The memory that one client's requests are received in.
 *
 * | what comes                                       | where it goes                                   |
 * | ------------------------------------------------ | ----------------------------------------------- |
 * | requests, and payloads up to their first 64 KiB  | a slab, of which the requests decoded are views |
 * | the rest of a payload, {@link DIRECT_BYTES} or more | straight to its place in the payload's buffer   |
 *
 * Invariants:
 * - No byte of a slab is received into while a write in flight, or a request that is not decoded, may need it.
 * - A slab starts again when none of its payloads is in flight. Otherwise the next bytes go behind the earlier ones, so
 *   that many short writes share a slab.
 * - Memory is given back for reuse when its last write has succeeded. After a failure something may still use it.
 */

import { giveBuffer, takeBuffer } from './large-buffers.ts';
import type { Receiver } from './receiving-socket.ts';
import type { RequestDecoder } from './transmission.ts';

/** Room for 48 short writes that come one by one. */
const SLAB_BYTES = 2 ** 18;
/** Bytes of one read into a slab: longer payloads have buffers of their own. */
const READ_BYTES = 2 ** 16;
/** A shorter rest of a payload is copied, together with the requests that follow. */
const DIRECT_BYTES = 2 ** 15;

/** Memory with payloads: a slab, a chunk that a stream has emitted, or the buffer of one payload. */
export interface PayloadMemory {
  readonly view: Uint8Array;
  readonly bytes: number;
  /** Writes in flight whose payloads are in it. */
  writes: number;
  /** Whether one of its writes has failed. */
  isSpoiled: boolean;
}

interface Slab extends PayloadMemory {
  /** Where the latest bytes end. */
  used: number;
}

function newSlab(): Slab {
  const view = takeBuffer(SLAB_BYTES);
  return { view, bytes: view.buffer.byteLength, writes: 0, isSpoiled: false, used: 0 };
}

export class Input implements Receiver {
  readonly #decoder: RequestDecoder;
  readonly #onInput: () => void;
  /** The memory of the latest bytes. Undefined: none have come. */
  #current: PayloadMemory | undefined;
  /** The latest slab. Becomes the current memory when bytes have come into it. */
  #slab: Slab | undefined;
  /** Where the next bytes go. */
  #room: Uint8Array | undefined;
  #isDirect = false;

  /** @param onInput called when bytes have come, which the decoder has then */
  constructor(decoder: RequestDecoder, onInput: () => void) {
    this.#decoder = decoder;
    this.#onInput = onInput;
  }

  /** Memory beside that of the payloads. */
  get heldBytes(): number {
    return this.#slab?.writes === 0 ? this.#slab.bytes : 0;
  }

  room(): Uint8Array {
    const rest = this.#decoder.missingPayload;
    this.#isDirect = rest !== undefined && rest.length >= DIRECT_BYTES;
    this.#room = this.#isDirect ? rest! : this.#slabRoom();
    return this.#room;
  }

  #slabRoom(): Uint8Array {
    let slab = this.#slab;
    if (slab?.writes === 0 && this.#decoder.isDrained && !slab.isSpoiled) slab.used = 0;
    if (slab === undefined || slab.isSpoiled || slab.used + READ_BYTES > slab.view.length)
      slab = this.#slab = newSlab();
    return slab.view.subarray(slab.used, slab.used + READ_BYTES);
  }

  received(length: number): void {
    if (this.#isDirect) this.#decoder.filled(length);
    else {
      const slab = this.#slab!;
      slab.used += length;
      this.#enter(slab);
      this.#decoder.push(this.#room!.subarray(0, length));
    }
    this.#onInput();
  }

  /** Takes bytes that came in memory of their own. */
  readonly push = (chunk: Uint8Array): void => {
    this.#enter({ view: chunk, bytes: chunk.buffer.byteLength, writes: 0, isSpoiled: false });
    this.#decoder.push(chunk);
    this.#onInput();
  };

  #enter(memory: PayloadMemory): void {
    const before = this.#current;
    this.#current = memory;
    if (before !== undefined && before.writes === 0) this.free(before);
  }

  /** Returns the memory of a payload that was decoded just now. */
  memoryOf(payload: Uint8Array): PayloadMemory {
    const current = this.#current;
    if (current !== undefined && payload.buffer === current.view.buffer) return current;
    return { view: payload, bytes: payload.length, writes: 0, isSpoiled: false };
  }

  /** To be called when the last write in flight of this memory has ended. */
  free(memory: PayloadMemory): void {
    if (memory !== this.#current && memory !== this.#slab && !memory.isSpoiled) giveBuffer(memory.view);
  }

  /** To be called when the socket is closed, and no write is in flight. */
  end(): void {
    const memories = new Set([this.#current, this.#slab]);
    this.#current = undefined;
    this.#slab = undefined;
    for (const memory of memories) if (memory !== undefined) this.free(memory);
  }
}
