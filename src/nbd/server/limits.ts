/** Limits of what clients may cost, each with its reason. */

import { DEFAULT_MAX_PAYLOAD_BYTES } from '../constants.ts';

export const LIMITS = {
  /**
   * Clients at a time. Each has buffers, so that their number bounds the memory. QEMU uses one connection, nbdcopy 4,
   * nbd-client up to 16.
   */
  connections: 64,
  /** Clients for each export, where that is more: QEMU, and a second one that migrates or copies. */
  connectionsPerExport: 4,
  /**
   * From the connection to the transmission phase, TLS included. A slower peer is not an NBD client, and takes the
   * place of one.
   */
  handshakeMs: 30_000,
  /**
   * Time without a byte in the middle of a request: the client is gone, or holds the buffer on purpose. Between
   * requests a client may be silent for any time.
   */
  requestStallMs: 120_000,
  /** On TCP, silence before the first keep-alive probe. A host that was switched off never answers it. */
  keepAliveMs: 60_000,
  /**
   * Payload of one request: what the specification lets both sides expect, and the most that QEMU and the kernel send.
   */
  payloadBytes: DEFAULT_MAX_PAYLOAD_BYTES as number,
  /**
   * Longer reads and writes are carried out in pieces of this length, so that one request of 32 MiB need not be held.
   * A power of two: pieces end where blocks end. QEMU's jobs and the kernel send no more in one request.
   */
  pieceBytes: 2_097_152,
  /** Requests of one client in flight. At the limit no more are read until some complete. */
  requestsInWork: 512,
  /**
   * Bytes that one client holds: requests in flight, unsent replies, a payload that has not come whole. At the limit no
   * more requests are read, so a client holds at most one piece more. More does not speed up a slow source.
   */
  clientBytes: 16_777_216,
  /**
   * Bytes that all clients hold. At the limit, no more requests are read from those that hold `reservedBytes`. So
   * clients that do not read their replies slow others down at most to that, and all clients hold at most
   * `allBytes + connections * (reservedBytes + pieceBytes)`.
   */
  allBytes: 268_435_456,
  reservedBytes: 2_097_152,
  /** What a block status request holds while its extents are collected: 0.8 MiB as measured (Node 20, 2026). */
  statusBytes: 1_048_576,
  /**
   * Bytes of replies that wait to be sent, since the client does not read them. At the limit no more requests are read.
   * Enough to keep a socket busy.
   */
  unsentBytes: 1_048_576,
  /** Extents in one block status reply. The client asks again from where they end. */
  statusExtents: 4096,
  /** Time that closing waits for requests in flight, and for clients to take their replies. */
  drainMs: 10_000,
} as const;
