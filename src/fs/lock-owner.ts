/**
 * The content of a lock file: one line of JSON that names the owner.
 *
 * The line ends with a part of fixed length, which its owner overwrites in place: the beat, and whether an earlier
 * owner may still be alive. Every mixture of two such parts is JSON, so a reader that meets a write sees a changed
 * line.
 */

import * as fs from 'node:fs';
import { CodError } from '../errors.ts';
import { errnoOf, ioError } from '../platform/errno.ts';
import { keepForOwner } from './fs-adapter.ts';
import type { ProcessIdentity } from './node-process.ts';

/** An owner, as its lock file names it. */
export interface Owner extends ProcessIdentity {
  /** Names this lease, and no other. Absent: an older version of this package made the lock. */
  readonly token?: string;
  readonly machineId?: string | undefined;
  readonly host?: string;
  /** When the lock was taken, by the owner's wall clock. */
  readonly since?: string;
  /** End of the name of its socket, behind the name of the lock file and a dot. Absent: it has none. */
  readonly socket?: string | undefined;
  /** Whether an owner before may be alive, and know the metadata files. */
  readonly unproved?: boolean;
  /** Counts up while the owner lives. -1: it has released the lock. */
  readonly beat?: number;
}

/** What an owner overwrites. */
export interface Tail {
  readonly unproved: boolean;
  readonly beat: number;
}

export const RELEASED = -1;
/** Bytes of a lock file that are read. The line of an owner is shorter. */
const LONGEST_LINE = 4096;
/** O_NONBLOCK, since opening a FIFO would block. Windows has neither. */
const READ_FLAGS = fs.constants.O_RDONLY | (fs.constants.O_NOFOLLOW ?? 0) | (fs.constants.O_NONBLOCK ?? 0);
const LINE_BEGINS = ['{"token":"', '{"pid":'];

/** Each field, and whether a value of it is one of ours. */
const FIELDS: Readonly<Record<keyof Owner, (value: unknown) => boolean>> = {
  token: isHex,
  pid: (value) => Number.isSafeInteger(value) && (value as number) > 0,
  startTime: Number.isSafeInteger,
  bootId: isString,
  pidNamespace: isString,
  machineId: isString,
  host: isString,
  since: isString,
  socket: (value) => isHex(value) && value.length === 16,
  unproved: (value) => typeof value === 'boolean',
  beat: Number.isSafeInteger,
};

function isString(value: unknown): value is string {
  return typeof value === 'string';
}

function isHex(value: unknown): value is string {
  return isString(value) && /^[0-9a-f]+$/.test(value);
}

/** Returns the part of the line that stays. */
export function encodeHead(owner: Omit<Owner, keyof Tail>): string {
  return JSON.stringify(owner).slice(0, -1);
}

/** Returns the part that follows {@link encodeHead}, always of the same length. */
export function encodeTail({ unproved, beat }: Tail): string {
  return `,"unproved":${String(unproved).padEnd(5)},"beat":${String(beat).padEnd(16)}}\n`;
}

/** Returns the owner that a line names. Undefined: the line is not one of ours. */
export function parseOwner(line: string): Owner | undefined {
  try {
    const owner = JSON.parse(line) as Owner | null;
    if (line.length >= LONGEST_LINE || owner?.pid === undefined) return undefined;
    const isOurs = Object.entries(owner).every(([field, value]) => FIELDS[field as keyof Owner]?.(value));
    return isOurs ? owner : undefined;
  } catch {
    return undefined;
  }
}

/** Whether a killed process or a power cut may have left this of a line. */
export function isCutShort(line: string): boolean {
  return LINE_BEGINS.some((start) => start.startsWith(line) || line.startsWith(start)) || /^\0*$/.test(line);
}

/** Returns who an owner is: process, host, and since when it has the lock. */
export function nameOf({ pid, host, since }: Owner, where = ''): string {
  return [`process ${pid}${where}`, host && `on ${host}`, since && `since ${since}`].filter(Boolean).join(' ');
}

/** Returns the beginning of a file; undefined if there is none, or a symbolic link. */
export function readIfThere(path: string): string | undefined {
  try {
    const fd = fs.openSync(path, READ_FLAGS);
    try {
      return readOpen(fd);
    } finally {
      fs.closeSync(fd);
    }
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ELOOP') return undefined;
    throw error;
  }
}

/** Returns the beginning of an open file. */
export function readOpen(fd: number): string {
  const bytes = Buffer.alloc(LONGEST_LINE);
  return bytes.toString('utf8', 0, fs.readSync(fd, bytes, 0, LONGEST_LINE, 0));
}

/** Makes a file for its owner only. */
export function openNew(path: string): number {
  const fd = fs.openSync(path, 'wx+', 0o600);
  try {
    keepForOwner(fs, fd);
    return fd;
  } catch (error) {
    fs.closeSync(fd);
    throw error;
  }
}

/** Writes all of a new file's content. */
export function writeLine(fd: number, line: string): void {
  fs.ftruncateSync(fd);
  for (let bytes = Buffer.from(line), at = 0; at < bytes.length; )
    at += fs.writeSync(fd, bytes, at, bytes.length - at, at);
}

export function existsError(file: string, reason: string): CodError {
  return new CodError('COD_EXISTS', `${file}: ${reason}`, { details: { file } });
}

export function lockedError(file: string, reason: string, owner?: Owner): CodError {
  const { pid, host, since } = owner ?? {};
  return new CodError('COD_LOCKED', `${file}: ${reason}`, {
    details: { file, ...(pid && { pid }), ...(host && { host }), ...(since && { since }) },
  });
}

export function attempt<T>(operation: string, call: () => T): T {
  try {
    return call();
  } catch (cause) {
    throw ioError(operation, cause);
  }
}
