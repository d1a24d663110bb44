/**
 * Sockets that receive into memory of ours.
 *
 * Node allocates 64 KiB for each read of a socket. The first touch of that memory costs more than the read itself. The
 * option `onread` of `net.Socket` names the memory instead, but sockets that a server accepts cannot be given it (Node
 * 26). So a new socket with that option takes over the accepted one's connection, by way of its `_handle`. Node does
 * not document that property: without it the accepted socket is used as it is, and emits 'data'.
 */

import { Socket } from 'node:net';
import type { Duplex } from 'node:stream';

/** What takes the bytes that come. */
export interface Receiver {
  /** Returns where the next bytes go, at least one. The socket may fill that memory until the next call. */
  room(): Uint8Array;
  /** The first `length` bytes of the latest {@link room} have come. */
  received(length: number): void;
}

/** The parts of a socket's handle that `onread` needs. */
interface Handle {
  readStart(): number;
  readStop(): number;
  useUserBuffer(bytes: Uint8Array): void;
}

/** Longer than any handshake that an honest client sends at once. */
const FIRST_ROOM_BYTES = 4096;

const receiving = new WeakMap<Duplex, (receiver: Receiver) => void>();

/** Returns a socket for the connection of `accepted`, which must not be used any more unless it is returned. */
export function receivingSocket(accepted: Socket): Socket {
  const handle = (accepted as { _handle?: unknown })._handle;
  // Bytes that the accepted socket holds already would be lost.
  if (!isHandle(handle) || !accepted.readable || accepted.bytesRead > 0) return accepted;
  const first = new Uint8Array(FIRST_ROOM_BYTES);
  let receiver: Receiver = {
    room: () => first,
    received: (length) => socket.emit('data', Buffer.from(first.subarray(0, length))),
  };
  const options = {
    handle,
    allowHalfOpen: true,
    readable: true,
    writable: true,
    onread: {
      buffer: () => receiver.room(),
      callback: (length: number) => {
        receiver.received(length);
        return true;
      },
    },
  };
  (accepted as { _handle?: unknown })._handle = null;
  const socket = new Socket(options);
  receiving.set(socket, (next) => (receiver = next));
  return socket;
}

function isHandle(handle: unknown): handle is Handle {
  const { readStart, readStop, useUserBuffer } = (handle ?? {}) as Partial<Record<keyof Handle, unknown>>;
  return [readStart, readStop, useUserBuffer].every((method) => typeof method === 'function');
}

/**
 * Has what comes from now on passed to `receiver`, and not emitted as 'data'. To be called in a listener of 'data', or
 * before the first one. Returns whether the socket can.
 */
export function receiveInto(socket: Duplex, receiver: Receiver): boolean {
  const change = receiving.get(socket);
  change?.(receiver);
  return change !== undefined;
}
