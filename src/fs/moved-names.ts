/**
 * Removes a name of a copy, although its owner may be paused before any step, and replaced meanwhile.
 *
 * The name is moved aside first: `<copy><rest>` becomes `<copy>.lock.<16 hex>.moved<rest>`, which is never used again.
 * Then the owner looks whether it is still the owner. If it is, what it has moved is its own. Otherwise it may be its
 * successor's, and is put back.
 *
 * Invariants:
 * - An owner that was replaced removes nothing, and replaces nothing.
 * - Only the owner decides between a file that was moved aside and another one at its name ({@link restoreNames}).
 * - An owner that makes a name writes nothing to the file before it has checked its ownership (`Slots.make`). So an
 *   empty file is never needed.
 * - The lock has its name again before a taker judges its owner: the lock is moved aside in the same way, and no lock
 *   is taken while another one is aside (`Taking`).
 */

import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { errnoOf } from '../platform/errno.ts';

/** Follows the name of a copy. */
export const LOCK = '.lock';
/** What is between the name of a copy and the rest of the name that was moved. */
const MOVED_PART = /\.lock\.[0-9a-f]{16}\.moved/;
const MOVED = new RegExp(`^${MOVED_PART.source}`);

/**
 * Removes a name; does nothing if it does not exist.
 * @param copy path of the copy, with which the name begins
 * @param isOwner checks the ownership. False, or an error: what the name leads to stays.
 */
export function removeName(path: string, copy: string, isOwner: () => boolean): void {
  for (;;) {
    const aside = asideOf(path, copy);
    const isMoved = hasMoved(path, aside);
    const found = movedNames(copy).filter((moved) => moved.path === path);
    let isMine = false;
    try {
      isMine = isOwner();
    } finally {
      if (isMoved && !isMine) putBack(aside, path);
    }
    if (!isMine) return;
    // Also what an earlier owner holds aside: it must not come back.
    for (const moved of found) fs.rmSync(moved.aside, { force: true });
    // That owner may have put it back meanwhile.
    if (isMoved || (found.length === 0 && !isThere(path))) return;
  }
}

function asideOf(path: string, copy: string): string {
  return `${copy}.lock.${randomBytes(8).toString('hex')}.moved${path.slice(copy.length)}`;
}

/**
 * Removes the name of a lock whose file is open as `fd`. After a pause it may be another owner's, which is put back. A
 * taker may put the own one back meanwhile.
 */
export function removeLock(file: string, fd: number): void {
  while (isFile(fd, file)) {
    const aside = asideOf(file, file.slice(0, -LOCK.length));
    // Missing: a successor has released it already.
    if (!hasMoved(file, aside)) return;
    if (isFile(fd, aside)) fs.rmSync(aside, { force: true });
    else putBack(aside, file);
  }
}

/** Returns where owners hold the lock `file` aside, or were killed on the way. */
export function movedLocks(file: string): string[] {
  const moved = movedNames(file.slice(0, -LOCK.length));
  return moved.filter(({ path }) => path === file).map(({ aside }) => aside);
}

/** Gives a lock that was moved aside its name again, unless another one has it. */
export function restoreLock(file: string, aside: string): void {
  const there = statOf(file);
  const moved = statOf(aside);
  if (there === undefined) putBack(aside, file);
  else if (there.ino === moved?.ino && there.dev === moved.dev) fs.rmSync(aside, { force: true });
}

/** Whether an open file is the one that has this name. */
export function isFile(fd: number, path: string): boolean {
  const found = statOf(path);
  const own = fs.fstatSync(fd, { bigint: true });
  return own.ino === found?.ino && own.dev === found.dev;
}

function statOf(path: string): fs.BigIntStats | undefined {
  return fs.lstatSync(path, { bigint: true, throwIfNoEntry: false });
}

/** Returns where the file that a name led to is held aside, for a reader that changes nothing. */
export function movedFrom(path: string): string | undefined {
  if (!isThere(dirname(path))) return undefined;
  const found = fs
    .readdirSync(dirname(path))
    .find((name) => name.replace(MOVED_PART, '') === basename(path) && name !== basename(path));
  return found === undefined ? undefined : join(dirname(path), found);
}

/** Puts back what an owner that was replaced or killed has moved aside. Only the owner may call this. */
export function restoreNames(copy: string): void {
  const next = (): ReturnType<typeof movedNames>[number] | undefined =>
    movedNames(copy).find(({ path }) => path !== copy + LOCK);
  for (let moved = next(); moved !== undefined; moved = next()) {
    const { aside, path } = moved;
    const there = fs.lstatSync(path, { throwIfNoEntry: false });
    if (there === undefined) putBack(aside, path);
    // An owner that was replaced has made an empty file, and stops.
    else if (there.size === 0) hasMoved(aside, path);
    else fs.rmSync(aside, { force: true });
  }
}

/** Gives a file its name again, unless that is taken: then the next owner decides. */
function putBack(aside: string, path: string): void {
  try {
    fs.linkSync(aside, path);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 'EEXIST' || errno === 'ENOENT') return;
    // No links, such as on FAT.
    if (!isThere(path)) hasMoved(aside, path);
    return;
  }
  syncDirectory(dirname(path));
  fs.rmSync(aside, { force: true });
}

/** Keeps the order of names where the file system does not: one of both is durable at any time. */
function syncDirectory(path: string): void {
  try {
    const fd = fs.openSync(path, 'r');
    try {
      fs.fsyncSync(fd);
    } finally {
      fs.closeSync(fd);
    }
  } catch {
    // Not every file system can sync a directory.
  }
}

/** Returns what owners hold aside of a copy. */
function movedNames(copy: string): { readonly aside: string; readonly path: string }[] {
  const start = basename(copy);
  return fs
    .readdirSync(dirname(copy))
    .filter((name) => name.startsWith(start))
    .map((name) => name.slice(start.length))
    .filter((end) => MOVED.test(end))
    .map((end) => ({ aside: copy + end, path: copy + end.replace(MOVED, '') }));
}

/** Returns false if there is no file to be renamed. */
function hasMoved(from: string, to: string): boolean {
  try {
    fs.renameSync(from, to);
    return true;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false;
    throw error;
  }
}

function isThere(path: string): boolean {
  return fs.lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}
