/**
 * What servers publish on the channels of `node:diagnostics_channel`. docs/METRICS.md describes it.
 *
 * Without subscribers, a command is neither timed nor described.
 */

import { type Channel, channel } from 'node:diagnostics_channel';
import { COMMAND, NBD_ERROR } from '../constants.ts';
import type { Request } from './transmission.ts';

/**
 * A client that has chosen an export: a message of `copyondemand:nbd:connected` and `copyondemand:nbd:disconnected`,
 * the same object in both.
 */
export interface NbdClientMessage {
  /** The name of the export. */
  readonly export: string;
  /** `address:port`. Undefined: a unix socket. */
  readonly address: string | undefined;
  /** Whether the client uses TLS. */
  readonly tls: boolean;
  /** Requests to read so far, also those that failed. */
  reads: number;
  /** Requests to write so far, also those that failed. A long write counts once for each of its pieces. */
  writes: number;
  /** Bytes of these requests. */
  readBytes: number;
  /** Bytes of these requests. */
  writtenBytes: number;
}

/** A message of `copyondemand:nbd:command`: a request of a client was answered. */
export interface NbdCommandMessage {
  /** The name of the export. */
  readonly export: string;
  /** What the client asked for. */
  readonly command: NbdCommandName;
  /** Bytes from the beginning of the device; 0 for `flush`. */
  readonly offset: number;
  /** Bytes; 0 for `flush`. */
  readonly length: number;
  /** Milliseconds since the request was taken from the socket. */
  readonly durationMs: number;
  /** What the client got, such as `EIO`. Absent: the request succeeded. */
  readonly error?: string;
}

/** The commands of the protocol that servers carry out. */
export type NbdCommandName = 'read' | 'write' | 'flush' | 'trim' | 'cache' | 'write_zeroes' | 'block_status' | 'other';

const NAMES: Readonly<Record<number, NbdCommandName>> = {
  [COMMAND.read]: 'read',
  [COMMAND.write]: 'write',
  [COMMAND.flush]: 'flush',
  [COMMAND.trim]: 'trim',
  [COMMAND.cache]: 'cache',
  [COMMAND.writeZeroes]: 'write_zeroes',
  [COMMAND.blockStatus]: 'block_status',
};

const COMMANDS: Channel = channel('copyondemand:nbd:command');
const CONNECTED: Channel = channel('copyondemand:nbd:connected');
/** A message of `copyondemand:nbd:refused`: a client was disconnected at once, since all places were taken. */
export interface NbdRefusedMessage {
  /** Clients that this server has refused so far. */
  readonly refusedCount: number;
}

const REFUSED: Channel = channel('copyondemand:nbd:refused');
const DISCONNECTED: Channel = channel('copyondemand:nbd:disconnected');

/** Publishes the answer to a request, with the error number that the client got, 0 if there is none. */
export type Answered = (error: number) => void;

/** Begins to time a request. Returns undefined if nothing subscribes. */
export function watchCommand(exportName: string, request: Request): Answered | undefined {
  return COMMANDS.hasSubscribers ? timed(exportName, request) : undefined;
}

function timed(exportName: string, { type, offset, length, rest }: Request): Answered {
  const startMs = performance.now();
  const command = NAMES[type] ?? 'other';
  const bytes = length + rest;
  return (error) => {
    const message: NbdCommandMessage = {
      export: exportName,
      command,
      offset,
      length: bytes,
      durationMs: performance.now() - startMs,
      ...(error === 0 ? {} : { error: nameOf(error) }),
    };
    COMMANDS.publish(message);
  };
}

function nameOf(error: number): string {
  return Object.entries(NBD_ERROR).find(([, number]) => number === error)?.[0] ?? String(error);
}

export function connected(client: NbdClientMessage): void {
  if (CONNECTED.hasSubscribers) CONNECTED.publish(client);
}

export function disconnected(client: NbdClientMessage): void {
  if (DISCONNECTED.hasSubscribers) DISCONNECTED.publish(client);
}

export function refused(message: NbdRefusedMessage): void {
  if (REFUSED.hasSubscribers) REFUSED.publish(message);
}
