/** What a client may cost, each with its reason. */

import { DEFAULT_MAX_PAYLOAD_BYTES } from '../constants.ts';

export const LIMITS = {
  /** Clients at a time. A client has its buffers, so that their number bounds the memory; QEMU uses one connection, nbdcopy four, nbd-client up to 16. */
  connections: 64,
  /** From the connection to the transmission phase, TLS included: one that takes longer is no client, but takes the place of one. */
  handshakeMs: 30_000,
  /** A request that has begun and of which nothing more comes: its client is gone, or holds the buffer on purpose. Between requests a client may be silent for ever. */
  requestStallMs: 120_000,
  /** On TCP, the first question to a silent peer whether it is still there: the answer of a host that was switched off never comes. */
  keepAliveMs: 60_000,
  /** Payload of one request: what the specification lets both sides expect, and the most that QEMU and the kernel send. */
  payloadBytes: DEFAULT_MAX_PAYLOAD_BYTES as number,
  /** Requests of one client in work, and their bytes: no more are read until some are done. More make a slow source no faster. */
  requestsInWork: 512,
  bytesInWork: 16_777_216,
  /** Replies that the client has not taken: no more requests are read until it has. Enough to keep a socket busy. */
  unsentBytes: 1_048_576,
  /** Runs in one answer to a question for block status; the client asks again from where they end. */
  statusExtents: 4096,
  /** What closing waits for requests in work and for clients to take their replies. */
  drainMs: 10_000,
} as const;
