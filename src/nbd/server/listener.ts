/** Where clients connect: a unix socket, or TCP. */

import { lstat, rm } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { isMainThread } from 'node:worker_threads';
import { CodError } from '../../errors.ts';
import { errnoOf } from '../../platform/errno.ts';
import { DEFAULT_PORT } from '../constants.ts';
import { LIMITS } from './limits.ts';

const LOOPBACK = '127.0.0.1';
/** Room for a path in an address, less the zero byte at its end (unix(7)). */
const MAX_SOCKET_PATH_BYTES = 107;

/** A unix socket, or an address of TCP. */
export interface NbdAddress {
  /** Path of a unix socket, which only its owner may use; one that a dead process left is replaced. */
  readonly socket?: string;
  /** Address or name to listen at over TCP. Default: loopback. */
  readonly host?: string;
  /** Default: 10809, as IANA has it. 0: any that is free. */
  readonly port?: number;
}

/** A place where clients can connect; they wait until somebody takes them. */
export class Listener {
  readonly #server: Server;
  readonly #address: NbdAddress;
  #waiting: Socket[] | undefined = [];

  /** @throws {@link CodError} COD_LOCKED if somebody listens there; COD_EXISTS, COD_NOT_FOUND, COD_TARGET_IO; `RangeError`, `TypeError`. */
  static async open(address: NbdAddress): Promise<Listener> {
    check(address);
    if (address.socket !== undefined) await removeStale(address.socket);
    const server = createServer({
      allowHalfOpen: true,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: LIMITS.keepAliveMs,
    });
    server.maxConnections = LIMITS.connections;
    const listener = new Listener(server, address);
    await listener.#listen();
    return listener;
  }

  private constructor(server: Server, address: NbdAddress) {
    this.#server = server;
    this.#address = address;
    server.on('connection', (socket) => {
      socket.on('error', () => socket.destroy());
      this.#waiting?.push(socket);
    });
  }

  async #listen(): Promise<void> {
    const { socket, host = LOOPBACK, port = DEFAULT_PORT } = this.#address;
    const server = this.#server;
    const listening = new Promise<void>((resolve, reject) => {
      server.once('listening', resolve);
      server.once('error', (error) => reject(listenError(error, socket ?? `${host}:${port}`)));
    });
    if (socket === undefined) server.listen({ host, port });
    else withUmask(0o177, () => server.listen({ path: socket }));
    await listening;
    // Out of file descriptors, say: those who are here stay.
    server.on('error', () => undefined);
  }

  /** Hands over those who wait and whoever comes. */
  take(onSocket: (socket: Socket) => void): void {
    const waiting = this.#waiting ?? [];
    this.#waiting = undefined;
    this.#server.on('connection', onSocket);
    for (const socket of waiting) if (!socket.destroyed) onSocket(socket);
  }

  /** The URI of an export, as NBD's clients take it. */
  uri(name: string, tls: boolean): string {
    const scheme = tls ? 'nbds' : 'nbd';
    const path = name.split('/').map(encodeURIComponent).join('/');
    const { socket } = this.#address;
    if (socket !== undefined)
      return `${scheme}+unix:///${path}?socket=${socket.split('/').map(encodeURIComponent).join('/')}`;
    const bound = this.#server.address();
    if (bound === null || typeof bound === 'string') throw new Error('the server does not listen');
    const host = bound.family === 'IPv6' ? `[${bound.address}]` : bound.address;
    return `${scheme}://${host}:${bound.port}/${path}`;
  }

  /** Lets nobody in any more; a unix socket is removed. Who is in stays. */
  close(): void {
    for (const socket of this.#waiting ?? []) socket.destroy();
    this.#waiting = undefined;
    this.#server.close();
  }
}

function check({ socket, host, port }: NbdAddress): void {
  if (socket !== undefined && (host !== undefined || port !== undefined))
    throw new TypeError('either a unix socket, or a host and a port');
  if (socket !== undefined && (socket === '' || Buffer.byteLength(socket) > MAX_SOCKET_PATH_BYTES)) {
    throw new RangeError(`the path of a unix socket has 1 to ${MAX_SOCKET_PATH_BYTES} bytes`);
  }
  if (port !== undefined && !(Number.isInteger(port) && port >= 0 && port <= 65_535))
    throw new RangeError(`port ${port}`);
}

/** Removes a socket that nobody listens at. */
async function removeStale(path: string): Promise<void> {
  let found: Awaited<ReturnType<typeof lstat>>;
  try {
    found = await lstat(path);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw listenError(error, path);
    // libuv calls a missing folder a lack of permission.
    await lstat(dirname(path)).catch((missing: unknown) => {
      throw listenError(missing, path);
    });
    return;
  }
  if (!found.isSocket()) throw new CodError('COD_EXISTS', `${path} exists and is no socket`, { details: { path } });
  const answer = await new Promise<string | undefined>((resolve) => {
    const probe = connect({ path });
    probe.once('connect', () => {
      probe.destroy();
      resolve(undefined);
    });
    probe.once('error', (error) => resolve(errnoOf(error) ?? error.message));
  });
  if (answer === undefined)
    throw new CodError('COD_LOCKED', `somebody listens at ${path} already`, { details: { path } });
  if (answer === 'ECONNREFUSED') await rm(path, { force: true });
  else if (answer !== 'ENOENT')
    throw new CodError('COD_LOCKED', `${path} cannot be taken over: ${answer}`, { details: { path } });
}

/** Runs what makes a file that only its owner may use; in a worker, where the mask cannot be set, the process's own holds. */
function withUmask(mask: number, task: () => void): void {
  if (!isMainThread) {
    task();
    return;
  }
  const before = process.umask(mask);
  try {
    task();
  } finally {
    process.umask(before);
  }
}

function listenError(error: unknown, where: string): CodError {
  const errno = errnoOf(error) ?? '';
  const reason = error instanceof Error ? error.message : String(error);
  const details = { where, errno };
  if (errno === 'EADDRINUSE')
    return new CodError('COD_LOCKED', `somebody listens at ${where} already`, { cause: error, details });
  if (errno === 'ENOENT' || errno === 'ENOTDIR') {
    return new CodError('COD_NOT_FOUND', `listen at ${where}: there is no folder ${dirname(where)}`, {
      cause: error,
      details,
    });
  }
  const missing = errno === 'ENOTFOUND' || errno === 'EAI_AGAIN' || errno === 'EADDRNOTAVAIL';
  return new CodError(missing ? 'COD_NOT_FOUND' : 'COD_TARGET_IO', `listen at ${where}: ${reason}`, {
    cause: error,
    details,
  });
}
