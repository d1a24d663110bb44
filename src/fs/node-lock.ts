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
 */

import { randomBytes, randomInt } from 'node:crypto';
import * as fs from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { CodError } from '../errors.ts';
import { errnoOf, ioError } from '../platform/errno.ts';
import type { Lease } from './file-system.ts';
import { mayBeAlive, type ProcessIdentity, thisProcess } from './node-process.ts';

/** Locks held in this thread, by the real path of the lock file. */
const held = new Set<string>();

const ATTEMPTS = 50;
const LONGEST_WAIT_MS = 20;
const TAKER = '.taker';
/** Suffix of a draft or a taker, after the lock's name and a dot. */
const OWN_NAME = /^[0-9a-f]{16}(\.taker)?$/;

/**
 * Takes the lock of the file at `path`, which need not exist, and resolves to its lease. Takes over the lock of a dead
 * owner.
 * @throws {@link CodError} COD_LOCKED if a live process has it, this process included; COD_NOT_FOUND if the directory
 * does not exist; COD_TARGET_IO.
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

/** Returns `path` without symbolic links. The file itself need not exist. */
function realPath(path: string): string {
  try {
    return fs.realpathSync(path);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
    return join(fs.realpathSync(dirname(path)), basename(path));
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
  const directory = dirname(file);
  const prefix = `${basename(file)}.`;
  try {
    for (const name of fs.readdirSync(directory)) {
      if (!name.startsWith(prefix) || !OWN_NAME.test(name.slice(prefix.length))) continue;
      const path = join(directory, name);
      const owner = parseOwner(readIfThere(path) ?? '');
      if (owner === undefined || !mayBeAlive(owner, self)) fs.rmSync(path, { force: true });
    }
  } catch (error) {
    if (errnoOf(error) === undefined) throw error;
  }
}

/** Returns false if the lock is gone. @throws {@link CodError} COD_LOCKED if its owner may be alive. */
function assertDead(file: string, self: ProcessIdentity): boolean {
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

/** Returns whether another live taker exists. Removes dead ones. */
function hasRival(file: string, own: string, self: ProcessIdentity): boolean {
  const directory = dirname(file);
  const takers = fs
    .readdirSync(directory)
    .filter((name) => name.startsWith(`${basename(file)}.`) && name.endsWith(TAKER));
  return takers.some((name) => {
    const path = join(directory, name);
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
    return owner !== null && Number.isSafeInteger(owner.pid) && owner.pid > 0 ? owner : undefined;
  } catch {
    return undefined;
  }
}

function readIfThere(path: string): string | undefined {
  try {
    return fs.readFileSync(path, 'utf8');
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/**
 * Writes and syncs a new file. The sync comes before the final name: after a power cut an empty lock would name no
 * owner, and no process could take it over.
 */
function writeDurably(path: string, line: string): void {
  const fd = fs.openSync(path, 'wx');
  try {
    fs.writeFileSync(fd, line);
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
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
