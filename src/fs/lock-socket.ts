/**
 * The sign of life of an owner on one kernel: a listening unix socket beside its lock file. The kernel answers for it,
 * whatever the owner's container, thread or namespace, also while the owner is stopped or busy.
 *
 * Invariants:
 * - A name is unique and never used again: libuv removes the name that a server has bound, at any later time.
 * - Only the owner's user can connect, from the first moment: the socket is bound in a private directory.
 */

import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import { connect as connectTo, createServer, type Server, type Socket } from 'node:net';
import { basename, dirname, join } from 'node:path';
import { isCodError } from '../errors.ts';
import { errnoOf, ioError } from '../platform/errno.ts';

/** Bytes of a socket's path on every platform. */
const MAX_PATH_BYTES = 103;
const PATIENCE_MS = 2000;
const MAX_CONNECTIONS = 32;
/** Time for a client to send its next line. Silent ones must not keep others out for their whole patience. */
const SPEAK_MS = 2000;

/** Suffix of the private directory in which the socket at a path is bound. */
const PRIVATE = '.new';

/** A listening socket. */
export interface SignOfLife {
  /** Stops listening, and removes the socket. */
  close(): void;
}

/**
 * Listens at `path`. Returns undefined where that is impossible.
 * @param serve is given each connection
 * @throws the error of the directory at `path`; that of the socket if the disk is full
 */
export async function listenAt(path: string, serve: (socket: Socket) => void): Promise<SignOfLife | undefined> {
  if (process.platform === 'win32') return undefined;
  const directory = path + PRIVATE;
  const bound = join(directory, randomBytes(8).toString('hex'));
  fs.mkdirSync(directory, 0o700);
  // A client may end its side, and still get its answers.
  const server = createServer({ allowHalfOpen: true }, serveWith(serve));
  server.maxConnections = MAX_CONNECTIONS;
  try {
    await withShortPath(bound, (short) => listen(server, short));
    fs.chmodSync(bound, 0o600);
    fs.renameSync(bound, path);
  } catch (error) {
    server.close();
    removeSocket(path);
    if (isCodError(ioError('listen', error), 'COD_NO_SPACE')) throw error;
    return undefined;
  }
  removeDirectory(directory);
  server.unref();
  return {
    close: () => {
      server.close();
      removeLeftover(path);
    },
  };
}

function serveWith(serve: (socket: Socket) => void): (socket: Socket) => void {
  return (socket) => {
    socket.unref();
    socket.on('error', () => undefined);
    socket.setTimeout(SPEAK_MS, () => socket.destroy());
    serve(socket);
  };
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, resolve);
  });
}

/**
 * Whether the socket at `path` may have a listening owner on this kernel: false if the kernel says that it has none.
 */
export async function mayBeListening(path: string): Promise<boolean> {
  try {
    // Neither a link nor a foreign file proves anything.
    if (!fs.lstatSync(path).isSocket()) return true;
    const socket = await connect(path);
    socket.destroy();
    return true;
  } catch (error) {
    return !['ECONNREFUSED', 'ENOENT'].includes(errnoOf(error) ?? '');
  }
}

/** Connects to the socket at `path`. Rejects after 2 s. */
export function connect(path: string): Promise<Socket> {
  return withShortPath(
    path,
    (short) =>
      new Promise((resolve, reject) => {
        const socket = connectTo(short);
        const timer = setTimeout(() => socket.destroy(new Error('the owner does not answer')), PATIENCE_MS);
        socket.once('error', reject);
        socket.once('close', () => clearTimeout(timer));
        socket.once('connect', () => {
          clearTimeout(timer);
          socket.off('error', reject);
          resolve(socket);
        });
      }),
  );
}

/** Removes a socket and its private directory, wherever its owner was killed. Other files stay. */
export function removeSocket(path: string): void {
  const directory = path + PRIVATE;
  if (typeOf(directory)?.isDirectory()) {
    for (const name of namesIn(directory)) removeSocket(join(directory, name));
    if (namesIn(directory).length === 0) removeDirectory(directory);
  }
  if (typeOf(path)?.isSocket()) fs.rmSync(path, { force: true });
}

/** Removes a file that does no harm if it stays: the next taker removes it. */
export function removeLeftover(path: string): void {
  try {
    fs.rmSync(path, { force: true });
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
  }
}

function namesIn(directory: string): readonly string[] {
  return unlessGone(() => fs.readdirSync(directory)) ?? [];
}

/** Another process may remove it too, as a leftover. */
function removeDirectory(path: string): void {
  unlessGone(() => fs.rmdirSync(path));
}

function unlessGone<T>(call: () => T): T | undefined {
  try {
    return call();
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

function typeOf(path: string): fs.Stats | undefined {
  return fs.lstatSync(path, { throwIfNoEntry: false });
}

/** Calls `use` with a path of the same file that is short enough for a socket. */
async function withShortPath<T>(path: string, use: (path: string) => Promise<T>): Promise<T> {
  if (Buffer.byteLength(path) <= MAX_PATH_BYTES) return use(path);
  const fd = fs.openSync(dirname(path), fs.constants.O_RDONLY);
  try {
    return await use(`/proc/self/fd/${fd}/${basename(path)}`);
  } finally {
    fs.closeSync(fd);
  }
}
