/**
 * A lock that dies with its owner: the file `<name>.lock`, which says in one line of JSON which process has it.
 *
 * - It appears whole and durable: a draft of a unique name is written and synced, then linked into place. A link fails if the name is taken.
 * - Only its owner removes it, and only a taker replaces it, by a rename, when the owner is dead.
 * - There is one taker at a time. A taker first gives its draft a taker's name, then looks for other takers; whoever sees a live one draws back.
 *   Of two takers the later one therefore sees the earlier one's name, or that the lock is already replaced: so the owner is read again after that look.
 *   If both draw back, both try again after a random while. Takers' names are unique, so those of dead processes can be removed by anybody.
 * - Whoever has got it removes what processes left that were killed on the way; one that is about to write its draft finds it gone, and tries again.
 */

import { randomBytes, randomInt } from 'node:crypto';
import * as fs from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { CodError } from '../errors.ts';
import { errnoOf, ioError } from '../platform/errno.ts';
import type { Lease } from './file-system.ts';
import { mayBeAlive, type ProcessIdentity, thisProcess } from './node-process.ts';

/** Held in this thread, by the lock file's real path. */
const held = new Set<string>();

const ATTEMPTS = 50;
const LONGEST_WAIT_MS = 20;
const TAKER = '.taker';
/** Behind the lock's name and a dot: a draft, or a taker. */
const OWN_NAME = /^[0-9a-f]{16}(\.taker)?$/;

/**
 * Takes the lock of the file at `path`, which need not exist; resolves to its lease. A lock whose owner is dead is taken over.
 * @throws {@link CodError} COD_LOCKED if a live process has it, this one included; COD_NOT_FOUND if there is no such directory; COD_TARGET_IO.
 */
export async function lockFile(path: string): Promise<Lease> {
  const file = attempt(`lock ${path}`, () => `${realPath(path)}.lock`);
  if (held.has(file)) throw lockedError(file, `${path} is in use by this process`);
  held.add(file);
  try {
    const line = await acquire(file);
    let released = false;
    return {
      release: async () => {
        if (released) return;
        released = true;
        held.delete(file);
        attempt(`unlock ${path}`, () => {
          // If our file was removed by hand, another owner may have locked the name since.
          if (readIfThere(file) === line) fs.rmSync(file, { force: true });
        });
      },
    };
  } catch (error) {
    held.delete(file);
    throw error;
  }
}

/** What `path` is or would be called without symbolic links. */
function realPath(path: string): string {
  try {
    return fs.realpathSync(path);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
    return join(fs.realpathSync(dirname(path)), basename(path));
  }
}

/** Returns what the lock file says. */
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
  throw lockedError(file, 'other processes are taking it over');
}

/** Whether the lock was taken; if not, another taker or a release came in between, and it is worth trying again. */
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
  // FAT and its like. A crash may leave it torn here, and then it is up to the user to remove it.
  try {
    writeDurably(file, line);
    return true;
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') return false;
    throw error;
  }
}

const NO_LINKS: ReadonlySet<string> = new Set(['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EINVAL']);

/** False if it is not there: its owner now took it for a leftover, before there was anything in it. */
function renameIfThere(from: string, to: string): boolean {
  try {
    fs.renameSync(from, to);
    return true;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return false;
    throw error;
  }
}

/** To be called by the lock's owner. What is left over does no harm, and need not be removed where that is not allowed. */
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

/** False if the lock is gone; throws if its owner may be alive. */
function assertDead(file: string, self: ProcessIdentity): boolean {
  const line = readIfThere(file);
  if (line === undefined) return false;
  const owner = parseOwner(line);
  if (owner === undefined) throw lockedError(file, `it does not say by whom; if nothing uses it, remove it`);
  if (!mayBeAlive(owner, self)) return true;
  const where =
    owner.pidNamespace === self.pidNamespace ? '' : ' in another container; if that is gone, remove the file';
  throw lockedError(
    file,
    owner.pid === self.pid && where === '' ? 'in use by this process' : `in use by process ${owner.pid}${where}`,
    owner,
  );
}

/** Whether another live taker is there; removes dead ones. */
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

/** Synced before it gets its name: after a power cut a lock without content would be nobody's, and nobody could take it over. */
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
