/**
 * A lock that ends with its owner: the file `<name>.lock`, one line of JSON that identifies the owning process.
 *
 * - The lock file appears complete and durable: a draft with a unique name is written, synced and linked into place.
 *   The link fails if the name is taken.
 * - Only the owner removes the lock file. Only a taker replaces it, by a rename, when the owner is dead.
 * - At most one taker succeeds at a time. A taker renames its draft to a taker's name and then looks for other takers.
 *   If a live one exists, it gives up.
 * - Of two takers, the later one sees the earlier one's name, unless the lock is already replaced. A taker therefore
 *   reads the owner again after it has looked for others.
 * - If both give up, both try again after a random delay. Names of takers are unique, so any process may remove those
 *   of dead takers.
 * - The new owner removes the files of processes that were killed on the way. A process whose empty draft was removed
 *   that way tries again.
 * - No link is followed, and no file is removed or replaced that does not read as one of ours.
 */

import { randomBytes, randomInt } from 'node:crypto';
import * as fs from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { CodError } from '../errors.ts';
import { errnoOf, ioError } from '../platform/errno.ts';
import type { Lease } from './file-system.ts';
import { isOdd, keepForOwner } from './fs-adapter.ts';
import { mayBeAlive, type ProcessIdentity, thisProcess } from './node-process.ts';

/** Locks held in this thread, by the real path of the lock file. */
const held = new Set<string>();

const ATTEMPTS = 50;
const LONGEST_WAIT_MS = 20;
const TAKER = '.taker';
/** Suffix of a draft or a taker, after the lock's name and a dot. */
const OWN_NAME = /^[0-9a-f]{16}(\.taker)?$/;
/** Bytes of a file that are read. The line of an owner is shorter. */
const LONGEST_LINE = 4096;
const LINE_BEGINS = '{"pid":';
/** The fields of an owner. Another program's JSON has others. */
const FIELDS: ReadonlySet<string> = new Set<keyof ProcessIdentity>(['pid', 'startTime', 'bootId', 'pidNamespace']);
/** O_NONBLOCK, since opening a FIFO would block. Windows has neither. */
const READ_FLAGS = fs.constants.O_RDONLY | (fs.constants.O_NOFOLLOW ?? 0) | (fs.constants.O_NONBLOCK ?? 0);

/**
 * Takes the lock of the file at `path`, which need not exist, and resolves to its lease. Takes over the lock of a dead
 * owner.
 * @throws {@link CodError} COD_LOCKED if a live process has it, this process included, or if the lock file names no
 * owner; COD_EXISTS if no regular file is at its name; COD_NOT_FOUND if the directory does not exist; COD_TARGET_IO.
 */
export async function lockFile(path: string): Promise<Lease> {
  const file = attempt(`lock ${path}`, () => `${realPath(path)}.lock`);
  if (held.has(file)) throw lockedError(file, `${path} is in use by this process: close it first`);
  held.add(file);
  try {
    const line = await acquire(file);
    let released = false;
    return {
      release: async () => {
        if (released) return;
        attempt(`unlock ${path}`, () => {
          // If our file was removed by hand, another owner may have locked the name since.
          if (readIfThere(file) === line) fs.rmSync(file, { force: true });
        });
        // Only now: after a failure the lock is still ours, and another call may release it.
        released = true;
        held.delete(file);
      },
    };
  } catch (error) {
    held.delete(file);
    throw error;
  }
}

/**
 * Returns `path` without symbolic links. The file itself need not exist: a link to a file that is missing has the lock
 * that it will have when the file is there.
 */
function realPath(path: string): string {
  try {
    return fs.realpathSync(path);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
    const file = join(fs.realpathSync(dirname(path)), basename(path));
    const target = linkTarget(file);
    return target === undefined ? file : realPath(resolve(dirname(file), target));
  }
}

/** Where a symbolic link leads; undefined if the name is not one. */
function linkTarget(file: string): string | undefined {
  try {
    return fs.readlinkSync(file);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'EINVAL') return undefined;
    throw error;
  }
}

/** Takes the lock, in several attempts if needed. Returns the content of the lock file. */
async function acquire(file: string): Promise<string> {
  const self = thisProcess();
  const line = `${JSON.stringify(self)}\n`;
  for (let count = 0; count < ATTEMPTS; count++) {
    if (attempt(`lock ${file}`, () => tryOnce(file, line, self))) {
      removeLeftovers(file, self);
      return line;
    }
    await new Promise((resolve) => setTimeout(resolve, randomInt(LONGEST_WAIT_MS)));
  }
  throw lockedError(file, 'other processes are taking over this lock: try again');
}

/**
 * Returns whether the lock was taken. If not, another taker or a release interfered, and the caller should try again.
 */
function tryOnce(file: string, line: string, self: ProcessIdentity): boolean {
  const draft = `${file}.${randomBytes(8).toString('hex')}`;
  const taker = draft + TAKER;
  try {
    writeDurably(draft, line);
    if (linkIfFree(draft, file, line)) return true;
    if (!assertDead(file, self)) return false;
    if (!renameIfThere(draft, taker)) return false;
    if (hasRival(file, taker, self)) return false;
    if (!assertDead(file, self)) return false;
    return renameIfThere(taker, file);
  } finally {
    fs.rmSync(draft, { force: true });
    fs.rmSync(taker, { force: true });
  }
}

function linkIfFree(draft: string, file: string, line: string): boolean {
  try {
    fs.linkSync(draft, file);
    return true;
  } catch (error) {
    if (errnoOf(error) === 'EEXIST' || errnoOf(error) === 'ENOENT') return false;
    if (!NO_LINKS.has(errnoOf(error) ?? '')) throw error;
  }
  // The file system has no links, such as FAT. A crash here may leave a torn lock, which only the user can remove.
  try {
    writeDurably(file, line);
    return true;
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') return false;
    throw error;
  }
}

const NO_LINKS: ReadonlySet<string> = new Set(['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EINVAL']);

/** Returns false if the file does not exist: the lock's new owner removed the draft, still empty, as a leftover. */
function renameIfThere(from: string, to: string): boolean {
  try {
    fs.renameSync(from, to);
    return true;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false;
    throw error;
  }
}

/**
 * Removes the files of dead processes. Only the lock's owner calls this. Leftovers do no harm, so they may stay where
 * removing is not allowed.
 */
function removeLeftovers(file: string, self: ProcessIdentity): void {
  try {
    for (const name of ownNames(file)) {
      const path = join(dirname(file), name);
      const line = isOdd(fs, path) ? undefined : readIfThere(path);
      if (line === undefined) continue;
      const owner = parseOwner(line);
      if (owner === undefined ? isCutShort(line) : !mayBeAlive(owner, self)) fs.rmSync(path, { force: true });
    }
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
  }
}

/**
 * Returns false if the lock is gone.
 * @throws {@link CodError} COD_LOCKED if its owner may be alive; COD_EXISTS if it is not a regular file.
 */
function assertDead(file: string, self: ProcessIdentity): boolean {
  if (isOdd(fs, file)) throw existsError(file, 'not a regular file; move it away');
  const line = readIfThere(file);
  if (line === undefined) return false;
  const owner = parseOwner(line);
  if (owner === undefined) throw lockedError(file, 'this lock names no owner; remove it if no process uses it');
  if (!mayBeAlive(owner, self)) return true;
  const where =
    owner.pidNamespace === self.pidNamespace ? '' : ' in another container; remove the file if that container is gone';
  throw lockedError(
    file,
    owner.pid === self.pid && where === ''
      ? 'in use by this process: close it first'
      : `in use by process ${owner.pid}${where || '; stop it first'}`,
    owner,
  );
}

/** Returns the names of drafts and takers beside the lock file. */
function ownNames(file: string): string[] {
  const prefix = `${basename(file)}.`;
  return fs
    .readdirSync(dirname(file))
    .filter((name) => name.startsWith(prefix) && OWN_NAME.test(name.slice(prefix.length)));
}

/** Returns whether another live taker exists. Removes dead ones. */
function hasRival(file: string, own: string, self: ProcessIdentity): boolean {
  const directory = dirname(file);
  return ownNames(file).some((name) => {
    const path = join(directory, name);
    if (!name.endsWith(TAKER)) return false;
    if (path === own) return false;
    const line = readIfThere(path);
    if (line === undefined) return false;
    const rival = parseOwner(line);
    if (rival === undefined || mayBeAlive(rival, self)) return true;
    fs.rmSync(path, { force: true });
    return false;
  });
}

function parseOwner(line: string): ProcessIdentity | undefined {
  try {
    const owner = JSON.parse(line) as ProcessIdentity | null;
    if (line.length >= LONGEST_LINE || owner === null || !Number.isSafeInteger(owner.pid) || owner.pid <= 0)
      return undefined;
    return Object.keys(owner).every((field) => FIELDS.has(field)) ? owner : undefined;
  } catch {
    return undefined;
  }
}

/** Whether a killed process or a power cut may have left this of a line. */
function isCutShort(line: string): boolean {
  return LINE_BEGINS.startsWith(line) || line.startsWith(LINE_BEGINS) || /^\0*$/.test(line);
}

/** Returns the beginning of a file; undefined if there is none, or a symbolic link. */
function readIfThere(path: string): string | undefined {
  try {
    const fd = fs.openSync(path, READ_FLAGS);
    try {
      const bytes = Buffer.alloc(LONGEST_LINE);
      return bytes.toString('utf8', 0, fs.readSync(fd, bytes, 0, LONGEST_LINE, 0));
    } finally {
      fs.closeSync(fd);
    }
  } catch (error) {
    if (errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ELOOP') return undefined;
    throw error;
  }
}

/**
 * Writes and syncs a new file. The sync comes before the final name: after a power cut an empty lock would name no
 * owner, and no process could take it over.
 */
function writeDurably(path: string, line: string): void {
  const fd = fs.openSync(path, 'wx', 0o600);
  try {
    keepForOwner(fs, fd);
    fs.writeFileSync(fd, line);
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}

function existsError(file: string, reason: string): CodError {
  return new CodError('COD_EXISTS', `${file}: ${reason}`, { details: { file } });
}

function lockedError(file: string, reason: string, owner?: ProcessIdentity): CodError {
  return new CodError('COD_LOCKED', `${file}: ${reason}`, {
    details: { file, ...(owner === undefined ? {} : { pid: owner.pid }) },
  });
}

function attempt<T>(operation: string, call: () => T): T {
  try {
    return call();
  } catch (cause) {
    throw ioError(operation, cause);
  }
}
