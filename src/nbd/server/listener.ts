/** The addresses where clients connect: a unix socket or TCP, or sockets that a service manager holds. */

import { readFileSync, readlinkSync } from 'node:fs';
import { lstat, rm } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { isMainThread } from 'node:worker_threads';
import { CodError } from '../../errors.ts';
import { errnoOf } from '../../platform/errno.ts';
import { DEFAULT_PORT } from '../constants.ts';
import { LIMITS } from './limits.ts';

const LOOPBACK = '127.0.0.1';
/** Bytes of a path in a socket's address, without the zero byte at its end (unix(7)). */
const MAX_SOCKET_PATH_BYTES = 107;

/** A unix socket or a TCP address. Default: TCP on 127.0.0.1, port 10809. */
export interface NbdAddress {
  /**
   * Path of a unix socket, 1 to 107 bytes. Only the owner of the process may connect (mode 0600). In a worker thread
   * the process's umask applies instead. A socket that a dead process left is replaced. Excludes {@link host} and
   * {@link port}. Default: TCP.
   */
  readonly socket?: string;
  /** Address or name to listen on over TCP. Default: 127.0.0.1. */
  readonly host?: string;
  /** TCP port, 0 to 65,535; 0 chooses a free one. Default: 10809, as assigned by IANA. */
  readonly port?: number;
}

/**
 * A socket that listens. Clients that connect wait until {@link take} is called: the latest 64.
 */
export class Listener {
  readonly #servers: readonly Server[];
  /** Path of the first server's unix socket. Undefined: it listens on TCP. */
  readonly #path: string | undefined;
  #waiting: Socket[] | undefined = [];

  /**
   * Starts to listen.
   * @throws {@link CodError} COD_LOCKED when another process listens at the address.
   * @throws {@link CodError} COD_EXISTS when the path is not a socket.
   * @throws {@link CodError} COD_NOT_FOUND when the folder or the host does not exist.
   * @throws {@link CodError} COD_TARGET_IO when listening fails otherwise.
   * @throws `TypeError`, `RangeError` when an option is wrong.
   */
  static async open(address: NbdAddress): Promise<Listener> {
    check(address);
    const { socket, host = LOOPBACK, port = DEFAULT_PORT } = address;
    if (socket !== undefined) await removeStale(socket);
    const server = newServer();
    const start =
      socket === undefined
        ? () => server.listen({ host, port })
        : () => withUmask(0o177, () => server.listen({ path: socket }));
    await listening(server, start, socket ?? `${host}:${port}`);
    return new Listener([server], socket);
  }

  /**
   * Takes sockets over that listen already, under their descriptors. Closing the listener leaves their paths.
   * @throws {@link CodError} COD_TARGET_IO when a descriptor is no socket that can listen.
   */
  static async adopt(descriptors: readonly number[]): Promise<Listener> {
    const servers: Server[] = [];
    try {
      for (const fd of descriptors) {
        const server = newServer();
        await listening(server, () => server.listen({ fd }), `descriptor ${fd}`);
        servers.push(server);
      }
    } catch (error) {
      for (const server of servers) server.close();
      throw error;
    }
    const isTcp = typeof servers[0]!.address() === 'object' && servers[0]!.address() !== null;
    return new Listener(servers, isTcp ? undefined : pathOfSocket(descriptors[0]!));
  }

  private constructor(servers: readonly Server[], path: string | undefined) {
    this.#servers = servers;
    this.#path = path;
    this.#onConnection((socket) => {
      socket.on('error', () => socket.destroy());
      if (this.#waiting === undefined) return;
      this.#waiting.push(socket);
      // None of them has begun its handshake, so the oldest one has to go (see `serveAt`).
      if (this.#waiting.length > LIMITS.connections) this.#waiting.shift()?.destroy();
    });
  }

  #onConnection(onSocket: (socket: Socket) => void): void {
    for (const server of this.#servers) server.on('connection', onSocket);
  }

  /** Passes the clients that wait, and each later one, to `onSocket`. */
  take(onSocket: (socket: Socket) => void): void {
    const waiting = this.#waiting ?? [];
    this.#waiting = undefined;
    this.#onConnection(onSocket);
    for (const socket of waiting) if (!socket.destroyed) onSocket(socket);
  }

  /** Returns the URI of the export `name`, as NBD clients accept it. */
  uri(name: string, tls: boolean): string {
    const scheme = tls ? 'nbds' : 'nbd';
    const path = name.split('/').map(encodeURIComponent).join('/');
    const socket = this.#path;
    if (socket !== undefined)
      return `${scheme}+unix:///${path}?socket=${socket.split('/').map(encodeURIComponent).join('/')}`;
    const bound = this.#servers[0]!.address();
    if (bound === null || typeof bound === 'string') throw new Error('the server is not listening');
    const host = bound.family === 'IPv6' ? `[${bound.address}]` : bound.address;
    return `${scheme}://${host}:${bound.port}/${path}`;
  }

  /** Stops listening, removes a unix socket, and disconnects clients that still wait. Other clients stay. */
  close(): void {
    for (const socket of this.#waiting ?? []) socket.destroy();
    this.#waiting = undefined;
    for (const server of this.#servers) server.close();
  }
}

function newServer(): Server {
  return createServer({
    allowHalfOpen: true,
    noDelay: true,
    keepAlive: true,
    keepAliveInitialDelay: LIMITS.keepAliveMs,
  });
}

async function listening(server: Server, start: () => void, where: string): Promise<void> {
  const done = new Promise<void>((resolve, reject) => {
    server.once('listening', resolve);
    server.once('error', (error) => reject(listenError(error, where)));
  });
  start();
  await done;
  // Later errors, such as a lack of file descriptors, must not disconnect clients.
  server.on('error', () => undefined);
}

/**
 * Returns the path of a unix socket, or `fd:N` if nothing tells it. Node does not know the path of a socket that it did
 * not bind. The kernel lists it: see proc_pid_net(5), "unix".
 */
function pathOfSocket(fd: number): string {
  try {
    const inode = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/self/fd/${fd}`))?.[1];
    for (const line of readFileSync('/proc/net/unix', 'utf8').split('\n')) {
      // Num RefCount Protocol Flags Type St Inode Path
      const [found, path] = /^(?:\S+\s+){6}(\d+) (\/.*)$/.exec(line)?.slice(1) ?? [];
      if (path !== undefined && found === inode) return path;
    }
  } catch {
    // Another system than Linux.
  }
  return `fd:${fd}`;
}

function check({ socket, host, port }: NbdAddress): void {
  if (socket !== undefined && (host !== undefined || port !== undefined))
    throw new TypeError('pass either `socket`, or `host` and `port`');
  if (socket !== undefined && (socket === '' || Buffer.byteLength(socket) > MAX_SOCKET_PATH_BYTES)) {
    throw new RangeError(
      `the path of a unix socket must have 1 to ${MAX_SOCKET_PATH_BYTES} bytes, not ${Buffer.byteLength(socket)}`,
    );
  }
  if (port !== undefined && !(Number.isInteger(port) && port >= 0 && port <= 65_535))
    throw new RangeError(`port ${port} is not an integer from 0 to 65535`);
}

/** Removes a unix socket at which no process listens. */
async function removeStale(path: string): Promise<void> {
  let found: Awaited<ReturnType<typeof lstat>>;
  try {
    found = await lstat(path);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw listenError(error, path);
    // libuv reports a missing folder as a lack of permission.
    await lstat(dirname(path)).catch((missing: unknown) => {
      throw listenError(missing, path);
    });
    return;
  }
  if (!found.isSocket())
    throw new CodError('COD_EXISTS', `${path} exists and is not a socket: choose another path`, { details: { path } });
  const answer = await new Promise<string | undefined>((resolve) => {
    const probe = connect({ path });
    probe.once('connect', () => {
      probe.destroy();
      resolve(undefined);
    });
    probe.once('error', (error) => resolve(errnoOf(error) ?? error.message));
  });
  if (answer === undefined)
    throw new CodError('COD_LOCKED', `another process listens at ${path}: stop it or choose another path`, {
      details: { path },
    });
  if (answer === 'ECONNREFUSED') await rm(path, { force: true });
  else if (answer !== 'ENOENT')
    throw new CodError('COD_LOCKED', `the socket ${path} may be in use (${answer}): remove it or choose another path`, {
      details: { path },
    });
}

/**
 * Runs `task` under the umask `mask`: a file that it creates is accessible to its owner only. In a worker the umask
 * cannot be set, so the process's own applies.
 */
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

/** Returns the error of an attempt to listen at an address or a path. */
export function listenError(error: unknown, where: string): CodError {
  const errno = errnoOf(error) ?? '';
  const reason = error instanceof Error ? error.message : String(error);
  const details = { where, errno };
  if (errno === 'EADDRINUSE')
    return new CodError('COD_LOCKED', `another process listens at ${where}: stop it or choose another address`, {
      cause: error,
      details,
    });
  if (errno === 'ENOENT' || errno === 'ENOTDIR') {
    return new CodError('COD_NOT_FOUND', `listen at ${where}: the directory ${dirname(where)} does not exist`, {
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
