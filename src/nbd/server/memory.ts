/**
 * The memory that clients hold: {@link LIMITS.clientBytes} each, {@link LIMITS.allBytes} together.
 *
 * Each session states what it holds before it takes a request, and whenever that may have become less. A client that
 * holds less than {@link LIMITS.reservedBytes} is never blocked, whatever the others hold.
 */

import { LIMITS } from './limits.ts';

/** The memory that all clients of a server hold. */
export class ServerMemory {
  #bytes = 0;
  /** Clients that wait until others hold less. */
  #blocked = new Set<() => void>();

  /** Adds a client. `onRoom` is called some time after others have made it wait. */
  join(onRoom: () => void): ClientMemory {
    return new ClientMemory(this, onRoom);
  }

  /** Changes what all clients hold. */
  add(bytes: number): void {
    this.#bytes += bytes;
    if (this.#blocked.size === 0 || this.#bytes >= LIMITS.allBytes) return;
    const blocked = this.#blocked;
    this.#blocked = new Set();
    // The caller is in the middle of its own requests.
    setImmediate(() => {
      for (const onRoom of blocked) onRoom();
    });
  }

  /** Returns whether no client may hold more than is reserved for it. If so, `onRoom` is called later. */
  blocks(onRoom: () => void): boolean {
    if (this.#bytes < LIMITS.allBytes) return false;
    this.#blocked.add(onRoom);
    return true;
  }
}

/** The memory that one client holds. */
export class ClientMemory {
  readonly #server: ServerMemory;
  readonly #onRoom: () => void;
  #bytes = 0;

  constructor(server: ServerMemory, onRoom: () => void) {
    this.#server = server;
    this.#onRoom = onRoom;
  }

  /** States what the client holds now. Returns whether it may hold more. */
  hold(bytes: number): boolean {
    const change = bytes - this.#bytes;
    this.#bytes = bytes;
    if (change !== 0) this.#server.add(change);
    if (bytes < LIMITS.reservedBytes) return true;
    return bytes < LIMITS.clientBytes && !this.#server.blocks(this.#onRoom);
  }
}
