/** An HTTP server on loopback with byte ranges, a limited speed and counters. For the demo and for tests. */

import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

const PIECE_BYTES = 2 ** 16;
/** A late timer is made up for by at most this time. */
const MAX_LAG_MS = 20;

/** What is served, and how fast. */
export interface RangeServerOptions {
  readonly size: number;
  /** Fills `into` with the bytes from `offset` on. */
  read(into: Uint8Array, offset: number): Promise<void>;
  /** Includes its quotes. Sent with each response. */
  readonly etag: string;
  /** Further headers of each response, such as CORS permissions. */
  readonly headers?: Readonly<Record<string, string>>;
  /** Limit of all connections together, read before each piece of 64 KiB. Default: no limit. */
  readonly bytesPerSecond?: number | undefined;
  /** Delay before each response. Default: none. */
  readonly latencyMs?: number;
  /** Default: a free port. */
  readonly port?: number;
}

/** A running server. */
export interface RangeServer {
  readonly url: string;
  /** Bytes of bodies passed to the system, whether or not they arrived. */
  readonly sentBytes: number;
  readonly requests: number;
  /** Closes the server and ends all connections. */
  close(): Promise<void>;
}

/** Starts a server on 127.0.0.1. */
export async function startRangeServer(options: RangeServerOptions): Promise<RangeServer> {
  const pacer = new Pacer();
  let sentBytes = 0;
  let requests = 0;
  const server = createServer((request, response) => {
    requests++;
    answer(request, response, options, async (bytes) => {
      await pacer.take(bytes, options.bytesPerSecond);
      sentBytes += bytes;
    }).catch(() => response.destroy());
  });
  await new Promise<void>((resolve, reject) =>
    server.once('error', reject).listen(options.port ?? 0, '127.0.0.1', resolve),
  );
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}/disk.raw`,
    get sentBytes() {
      return sentBytes;
    },
    get requests() {
      return requests;
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  { size, read, etag, headers = {}, latencyMs = 0 }: RangeServerOptions,
  take: (bytes: number) => Promise<void>,
): Promise<void> {
  if (latencyMs > 0) await sleep(latencyMs);
  const range = rangeOf(request.headers.range, size);
  for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
  response.setHeader('ETag', etag);
  response.setHeader('Accept-Ranges', 'bytes');
  if (range === 'unsatisfiable') {
    response.writeHead(416, { 'Content-Range': `bytes */${size}` }).end();
    return;
  }
  const { start, end } = range ?? { start: 0, end: size };
  response.setHeader('Content-Length', end - start);
  if (range === undefined) response.writeHead(200);
  else response.writeHead(206, { 'Content-Range': `bytes ${start}-${end - 1}/${size}` });
  if (request.method === 'HEAD') {
    response.end();
    return;
  }
  for (let at = start; at < end && !response.destroyed; ) {
    const piece = new Uint8Array(Math.min(PIECE_BYTES, end - at));
    await take(piece.length);
    await read(piece, at);
    at += piece.length;
    if (!response.write(piece)) await drained(response);
  }
  response.end();
}

function rangeOf(
  header: string | undefined,
  size: number,
): { start: number; end: number } | 'unsatisfiable' | undefined {
  const match = /^bytes=(\d+)-(\d*)$/.exec(header ?? '');
  if (match === null) return undefined;
  const start = Number(match[1]);
  const end = match[2] === '' ? size : Math.min(size, Number(match[2]) + 1);
  return start < end ? { start, end } : 'unsatisfiable';
}

function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      response.off('drain', done).off('close', done);
      resolve();
    };
    response.on('drain', done).on('close', done);
    if (response.destroyed) done();
  });
}

/** Delays its callers so that all of them together stay below a rate. */
class Pacer {
  #free = 0;

  async take(bytes: number, bytesPerSecond = Number.POSITIVE_INFINITY): Promise<void> {
    const now = performance.now();
    this.#free = Math.max(this.#free, now - MAX_LAG_MS) + (bytes * 1000) / bytesPerSecond;
    if (this.#free > now) await sleep(this.#free - now);
  }
}
