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
 */

import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs';
import { basename, dirname } from 'node:path';
import { errnoOf } from '../platform/errno.ts';

/** What is between the name of a copy and the rest of the name that was moved. */
const MOVED = /^\.lock\.[0-9a-f]{16}\.moved/;

/**
 * Removes a name; does nothing if it does not exist.
 * @param copy path of the copy, with which the name begins
 * @param isOwner checks the ownership. False, or an error: what the name leads to stays.
 */
export function removeName(path: string, copy: string, isOwner: () => boolean): void {
  for (;;) {
    const aside = `${copy}.lock.${randomBytes(8).toString('hex')}.moved${path.slice(copy.length)}`;
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

/** Puts back what an owner that was replaced or killed has moved aside. Only the owner may call this. */
export function restoreNames(copy: string): void {
  for (let [moved] = movedNames(copy); moved !== undefined; [moved] = movedNames(copy)) {
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
export function hasMoved(from: string, to: string): boolean {
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
