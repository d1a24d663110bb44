/**
 * The control socket of a process with many disks: one path for all of them.
 *
 * A client's first line is `{"disk":NAME}`. From then on the connection is one to the owner of this disk (server.ts).
 * Without a name, the answer is one line with the names.
 *
 * Memory: 32 connections at a time, and one line of each.
 */

import type { Socket } from 'node:net';
import { CodError, isCodError } from '../errors.ts';
import { findOwner } from './client.ts';
import { parseObject, send } from './lines.ts';

const MAX_LINE_BYTES = 65_536;
const MAX_CONNECTIONS = 32;
/** Time for a client to send its first line. */
const SPEAK_MS = 2000;

/** A disk of the process. */
export interface ControlledDisk {
  readonly name: string;
  readonly target: string;
  readonly metadata: string;
  /** Why it is not open. Undefined: it is. */
  readonly problem: string | undefined;
}

/** Returns a function that serves the connections to the control socket. */
export function manyServer(disks: () => readonly ControlledDisk[]): (socket: Socket) => void {
  let connections = 0;
  return (socket) => {
    if (connections >= MAX_CONNECTIONS) {
      socket.destroy();
      return;
    }
    connections++;
    socket.on('close', () => connections--);
    socket.on('error', () => undefined);
    socket.setTimeout(SPEAK_MS, () => socket.destroy());
    void serve(socket, disks);
  };
}

async function serve(socket: Socket, disks: () => readonly ControlledDisk[]): Promise<void> {
  try {
    const [hello, rest] = await firstLine(socket);
    const name = parseObject(hello)?.['disk'];
    if (name === undefined) {
      await send(socket, { disks: disks().map((disk) => disk.name) });
      socket.destroySoon();
    } else await connectTo(disks().find((disk) => disk.name === name) ?? String(name), socket, rest);
  } catch (error) {
    if (isCodError(error)) {
      const { code, message } = error;
      await send(socket, { error: { code, message } }).catch(() => undefined);
    }
    socket.destroySoon();
  }
}

/** Passes everything on, in both directions. */
async function connectTo(disk: ControlledDisk | string, socket: Socket, rest: Buffer): Promise<void> {
  if (typeof disk === 'string') throw new CodError('COD_NOT_FOUND', `there is no disk ${JSON.stringify(disk)} here`);
  if (disk.problem !== undefined) throw new CodError('COD_NOT_RUNNING', `${disk.name} is not open: ${disk.problem}`);
  const { socket: owner, hello } = await findOwner(disk.target, disk.metadata);
  // The owner ends silent clients.
  socket.setTimeout(0);
  socket.on('close', () => owner.destroy());
  owner.on('close', () => socket.destroySoon());
  owner.write(`${JSON.stringify(hello)}\n`);
  owner.write(rest);
  socket.pipe(owner);
  owner.pipe(socket);
}

/** Resolves to the first line, and what came behind it. Rejects if the client ends before, or its line is too long. */
function firstLine(socket: Socket): Promise<[line: string, rest: Buffer]> {
  return new Promise((resolve, reject) => {
    let bytes = Buffer.alloc(0);
    const onData = (more: Buffer): void => {
      bytes = Buffer.concat([bytes, more]);
      const end = bytes.indexOf(10);
      if (end < 0 && bytes.length <= MAX_LINE_BYTES) return;
      socket.off('data', onData);
      socket.pause();
      if (end < 0) reject(new Error('the line is too long'));
      else resolve([bytes.toString('utf8', 0, end), bytes.subarray(end + 1)]);
    };
    socket.on('data', onData);
    socket.on('close', () => reject(new Error('the client has gone')));
  });
}
