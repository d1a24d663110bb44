/**
 * Replies to one client. Those of one turn of the event loop are sent in one write, in order.
 *
 * Small replies are built in an arena: a buffer that is reused once the socket has taken it. Large replies are sent
 * from their own buffers, which are given back then.
 */

import type { Duplex } from 'node:stream';
import { giveBuffer } from './large-buffers.ts';

/** Two turns of a client with 32 reads of 4 KiB in flight. */
const ARENA_BYTES = 2 ** 18;

/** Detached replies at a time. Each can keep an arena of its own from being reused. */
const MAX_DETACHED = 16;

interface Arena {
  readonly bytes: Buffer<ArrayBuffer>;
  /** The memory of `bytes`. */
  readonly memory: ArrayBuffer;
  used: number;
  /** Writes that the socket has not taken, and detached replies. At 0 the arena is reused. */
  pending: number;
}

function newArena(): Arena {
  const bytes = Buffer.allocUnsafeSlow(ARENA_BYTES);
  return { bytes, memory: bytes.buffer, used: 0, pending: 0 };
}

/** Space for a reply that is built later. */
export interface DetachedReply {
  readonly bytes: Uint8Array;
  /** Returns the space. To be called once. */
  release(): void;
}

export class Replies {
  readonly #socket: Duplex;
  readonly #onTaken: () => void;
  #arena: Arena = newArena();
  #spare: Arena | undefined;
  /** Arenas that are in use or spare. */
  #arenas = 1;
  /** The bytes from here to `used` are filled and not handed to the socket. */
  #start = 0;
  #detached = 0;
  #corked = false;
  #scheduled = false;

  /** @param onTaken called whenever the socket has taken something */
  constructor(socket: Duplex, onTaken: () => void) {
    this.#socket = socket;
    this.#onTaken = onTaken;
  }

  /** Bytes that wait to be sent. */
  get unsentBytes(): number {
    return this.#socket.writableLength + this.#arena.used - this.#start;
  }

  /** Bytes of all buffers for replies, sent or not. */
  get heldBytes(): number {
    return this.#socket.writableLength + this.#arenas * ARENA_BYTES;
  }

  /**
   * Reserves space in {@link bytes} and returns its offset. The caller fills it before the next call; {@link flush}
   * sends it.
   * @param length at most 256 KiB
   */
  reserve(length: number): number {
    if (this.#arena.used + length > ARENA_BYTES) this.#nextArena();
    const at = this.#arena.used;
    this.#arena.used += length;
    return at;
  }

  /** The arena of the last {@link reserve}. */
  get bytes(): Uint8Array {
    return this.#arena.bytes;
  }

  /** Returns a part of {@link bytes}. A Buffer's `subarray` costs more, which shows in a 4 KiB read. */
  view(at: number, length: number): Uint8Array {
    return new Uint8Array(this.#arena.memory, at, length);
  }

  /** Takes back the space that was reserved last. */
  unreserve(length: number): void {
    this.#arena.used -= length;
  }

  /** Whether {@link detach} may be called. An arena is not reused while one of its detached replies is outstanding. */
  get canDetach(): boolean {
    return this.#detached < MAX_DETACHED;
  }

  /** Excludes the space that was reserved last from {@link flush}, for a reply that is built later. */
  detach(length: number): DetachedReply {
    const arena = this.#arena;
    const at = arena.used - length;
    if (at > this.#start) {
      this.#cork();
      this.#writeArena(at);
    }
    this.#start = arena.used;
    arena.pending++;
    this.#detached++;
    return {
      bytes: this.view(at, length),
      release: () => {
        this.#detached--;
        arena.pending--;
        if (arena.pending === 0) this.#reuse(arena);
      },
    };
  }

  /** Sends a reply without a copy. Its bytes belong to the socket from now on. */
  send(bytes: Uint8Array): void {
    this.#cork();
    this.#writeArena();
    this.#socket.write(bytes, () => {
      giveBuffer(bytes);
      this.#onTaken();
    });
  }

  /** Sends all replies that have gathered. */
  flush(): void {
    this.#writeArena();
    if (!this.#corked) return;
    this.#corked = false;
    this.#socket.uncork();
  }

  /** Calls {@link flush} when the current callback has returned, so that its further replies are included. */
  flushSoon(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    process.nextTick(() => {
      this.#scheduled = false;
      this.flush();
    });
  }

  #cork(): void {
    if (this.#corked) return;
    this.#corked = true;
    this.#socket.cork();
  }

  /** Writes the arena's replies up to `end` to the socket. */
  #writeArena(end: number = this.#arena.used): void {
    const arena = this.#arena;
    if (this.#start === end) return;
    const bytes = arena.bytes.subarray(this.#start, end);
    this.#start = end;
    arena.pending++;
    this.#socket.write(bytes, () => {
      arena.pending--;
      if (arena.pending === 0) this.#reuse(arena);
      this.#onTaken();
    });
  }

  #reuse(arena: Arena): void {
    if (arena !== this.#arena) {
      arena.used = 0;
      if (this.#spare !== undefined) this.#arenas--;
      this.#spare = arena;
    } else if (this.#start === arena.used) {
      arena.used = 0;
      this.#start = 0;
    }
  }

  #nextArena(): void {
    this.#writeArena();
    if (this.#spare === undefined) this.#arenas++;
    this.#arena = this.#spare ?? newArena();
    this.#spare = undefined;
    this.#start = 0;
  }
}
