/**
 * What goes to one client: replies of one turn leave as one write.
 *
 * Small replies are made in place, in a buffer that is used again once the socket has taken it; large ones come as they are. Order is kept.
 */

import type { Duplex } from 'node:stream';

/** Room for small replies: two turns of a client with 32 reads of 4 KiB under way. */
const ARENA_BYTES = 2 ** 18;

/** Replies that may be outstanding in arenas; each can keep an arena of its own. */
const MAX_DETACHED = 16;

interface Arena {
  readonly bytes: Buffer<ArrayBuffer>;
  /** What `bytes` is of. */
  readonly memory: ArrayBuffer;
  used: number;
  /** Writes that the socket has not taken. */
  pending: number;
}

function newArena(): Arena {
  const bytes = Buffer.allocUnsafeSlow(ARENA_BYTES);
  return { bytes, memory: bytes.buffer, used: 0, pending: 0 };
}

/** Room for a reply that is made later. */
export interface DetachedReply {
  readonly bytes: Uint8Array;
  /** The room is no longer needed. To be called once. */
  release(): void;
}

export class Replies {
  readonly #socket: Duplex;
  readonly #onTaken: () => void;
  #arena: Arena = newArena();
  #spare: Arena | undefined;
  /** What of the arena has been filled and not handed to the socket: from here to `used`. */
  #start = 0;
  #detached = 0;
  #corked = false;
  #scheduled = false;

  /** `onTaken` is called whenever the socket has taken something. */
  constructor(socket: Duplex, onTaken: () => void) {
    this.#socket = socket;
    this.#onTaken = onTaken;
  }

  /** Bytes that the client has not taken. */
  get unsentBytes(): number {
    return this.#socket.writableLength + this.#arena.used - this.#start;
  }

  /** Room in {@link bytes} for a reply of a quarter of a megabyte at most, to be filled before the next call; it leaves with {@link flush}. Returns where it is. */
  reserve(length: number): number {
    if (this.#arena.used + length > ARENA_BYTES) this.#nextArena();
    const at = this.#arena.used;
    this.#arena.used += length;
    return at;
  }

  /** Where room was {@link reserve}d last. */
  get bytes(): Uint8Array {
    return this.#arena.bytes;
  }

  /** A part of {@link bytes}; cheaper than a Buffer's `subarray`, which is felt in a read of 4 KiB. */
  view(at: number, length: number): Uint8Array {
    return new Uint8Array(this.#arena.memory, at, length);
  }

  /** Takes back the room that was reserved last. */
  unreserve(length: number): void {
    this.#arena.used -= length;
  }

  /** Whether room may be detached: an arena is kept as long as any of its replies is outstanding. */
  get canDetach(): boolean {
    return this.#detached < MAX_DETACHED;
  }

  /** Takes the room that was reserved last out of what {@link flush} sends, for a reply that is made later. */
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

  /** Sends a reply as it is: its bytes are the socket's. */
  send(bytes: Uint8Array): void {
    this.#cork();
    this.#writeArena();
    this.#socket.write(bytes, () => this.#onTaken());
  }

  /** Lets what has gathered go. */
  flush(): void {
    this.#writeArena();
    if (!this.#corked) return;
    this.#corked = false;
    this.#socket.uncork();
  }

  /** As {@link flush}, once all that is done in this turn is done. */
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

  /** Hands the arena's replies up to `end` to the socket. */
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
      this.#spare = arena;
    } else if (this.#start === arena.used) {
      arena.used = 0;
      this.#start = 0;
    }
  }

  #nextArena(): void {
    this.#writeArena();
    this.#arena = this.#spare ?? newArena();
    this.#spare = undefined;
    this.#start = 0;
  }
}
