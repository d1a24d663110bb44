/**
 * A lock that ends with its owner: the file `<name>.lock`, one line of JSON that names the owner.
 *
 * Whether an owner is alive:
 * - On the same kernel its socket tells ({@link mayBeListening}), or its process where there are no sockets.
 * - After a reboot of the same machine, a refused connection on a local file system proves its death.
 * - Otherwise its beat tells, which it writes every 5 s: a taker watches it stand still for 30 s of its own clock.
 *
 * - The lock file appears complete and durable: a draft with a unique name is written, synced and linked into place.
 *   The link fails if the name is taken.
 * - Only a taker replaces it, by a rename, when the owner is dead. The owner writes to its own open file only: it may
 *   have lost its name. The owner removes the name while takers see it alive, and looks at what it has removed.
 * - At most one taker succeeds at a time. A taker renames its draft to a taker's name and then looks for other takers.
 *   If a live one exists, it gives up. It removes the name of a dead one, which then cannot replace the lock any more.
 * - Of two takers, the later one sees the earlier one's name, unless the lock is already replaced. A taker therefore
 *   reads the owner again after it has looked for others.
 * - A lock that an owner holds aside to remove it counts as the lock. A taker gives it its name again, and judges it. A
 *   taker that has the name gives up if another lock is aside: that one had the name before.
 * - If both give up, both try again after a random delay.
 * - Draft, taker and socket of one attempt share a unique name, so any process may remove those of a dead one.
 * - The new owner removes the files of processes that were killed on the way. A process whose empty draft was removed
 *   that way tries again.
 * - No link is followed, and no file is removed or replaced that does not read as one of ours.
 * - A taker that finds no room gives up the spare file (node-spare.ts), once it has seen that the owner is dead.
 */

import { channel } from 'node:diagnostics_channel';
import * as fs from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { CodError, isCodError } from '../errors.ts';
import { errnoOf, ioError } from '../platform/errno.ts';
import type { Lease } from './file-system.ts';
import {
  attempt,
  encodeTail,
  lockedError,
  nameOf,
  type Owner,
  parseOwner,
  RELEASED,
  readIfThere,
  readOpen,
  type Tail,
} from './lock-owner.ts';
import { type Lock, type NodeLockOptions, Taking } from './lock-taking.ts';
import { isFile, LOCK, removeLock, removeName, restoreNames } from './moved-names.ts';
import { type Machine, thisMachine } from './node-process.ts';
import { makeSpare, removeSpare } from './node-spare.ts';

/** Locks held in this thread: by machine, the real paths of the lock files. */
const held = new WeakMap<Machine, Set<string>>();

const BEAT_MS = 5000;
/** Beats from one look at the spare file to the next: it may be missing or short. */
const BEATS_TO_SPARE = 12;
/** Names of the metadata files, behind the name of the lock. */
const METADATA = ['.bak', '.bak.1', '.wil', '.wil.1'];
/** What was known by a check is true for so long: shorter than a beat has to stand still. */
const RECENT_MS = 10_000;

/**
 * Takes the lock of the file at `path`, which need not exist, and resolves to its lease. Takes over the lock of a dead
 * owner.
 * @throws {@link CodError} COD_LOCKED if its owner is alive, or if the lock file names no owner; COD_EXISTS if no
 * regular file is at its name; COD_NOT_FOUND if the directory does not exist; COD_UNSUPPORTED for a block device;
 * COD_TARGET_IO.
 */
export async function lockFile(path: string, options: NodeLockOptions = {}): Promise<Lease> {
  const machine = options.machine ?? thisMachine();
  const file = attempt(`lock ${path}`, () => lockFileOf(path));
  refuseDevice(file.slice(0, -LOCK.length));
  const files = held.get(machine) ?? new Set();
  held.set(machine, files);
  if (files.has(file)) throw lockedError(file, `${path} is in use by this process: close it first`);
  files.add(file);
  try {
    const lock = await new Taking(file, machine, options).take();
    // The target may be elsewhere, behind a link, and be removed there.
    const names = { path, copies: [path, file.slice(0, -LOCK.length)], resolve: options.resolve ?? resolve };
    const lease = new NodeLease(lock, machine, names, () => files.delete(file));
    try {
      await lease.restore();
      return lease;
    } catch (error) {
      await lease.release();
      throw error;
    }
  } catch (error) {
    files.delete(file);
    // The caller's reason to stop stays as it is.
    throw Object(error).syscall === undefined ? error : ioError(`lock ${path}`, error);
  }
}

/**
 * Checks that no owner that may be alive has the lock of the file at `path`. Takes and changes nothing. Waits for the
 * heartbeat of an owner on another machine.
 * @throws {@link CodError} as {@link lockFile}.
 */
export async function assertNotOwned(path: string, options: NodeLockOptions = {}): Promise<void> {
  const machine = options.machine ?? thisMachine();
  const file = attempt(`look at the lock of ${path}`, () => lockFileOf(path));
  await new Taking(file, machine, options).assertNotOwned();
}

/** A lock file beside a block device would not survive a reboot. */
function refuseDevice(path: string): void {
  if (!fs.lstatSync(path, { throwIfNoEntry: false })?.isBlockDevice()) return;
  throw new CodError(
    'COD_UNSUPPORTED',
    `${path} is a block device: say where its metadata is, with \`metadata\` (\`--metadata PREFIX\`)`,
    { details: { path } },
  );
}

/** Returns the path of the lock file of `path`. Throws the error of the system. */
export function lockFileOf(path: string): string {
  return `${realPath(path)}${LOCK}`;
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

/** A moment on both clocks of the machine, in milliseconds. */
interface Moment {
  readonly now: number;
  readonly wall: number;
}

interface Names {
  /** The copy's path, as it was given. */
  readonly path: string;
  /** Paths with which the names of the copy's files begin. */
  readonly copies: readonly string[];
  /** Returns the path of a name. */
  resolve(name: string): string;
}

/** A message of `copyondemand:heartbeat`: an owner has written its heartbeat, or is none any more. */
export interface HeartbeatMessage {
  /** The name under which the copy is owned: its target, or `metadata` of `openDevice`. */
  readonly path: string;
  /** `owned`: it still owns the copy. `lost`: another owner has taken over. `released`: the copy was closed. */
  readonly state: 'owned' | 'lost' | 'released';
}

const HEARTBEAT = channel('copyondemand:heartbeat');

class NodeLease implements Lease {
  readonly #lock: Lock;
  readonly #machine: Machine;
  readonly #names: Names;
  readonly #onReleased: () => void;
  readonly #stopBeating: () => void;
  #tail: Tail;
  #checked: Moment;
  #beaten: Moment;
  #successor: Owner | undefined;
  #isReleased = false;
  /** The making of the spare file. Undefined: this lease has no metadata files, so it needs none. */
  #spare: Promise<void> | undefined;

  constructor(lock: Lock, machine: Machine, names: Names, onReleased: () => void) {
    this.#lock = lock;
    this.#machine = machine;
    this.#names = names;
    this.#onReleased = onReleased;
    this.#tail = lock.tail;
    this.#checked = this.#beaten = this.#now();
    this.#stopBeating = machine.repeat(BEAT_MS, () => this.#beat());
    this.#tell('owned');
  }

  #tell(state: HeartbeatMessage['state']): void {
    if (HEARTBEAT.hasSubscribers) HEARTBEAT.publish({ path: this.#names.path, state } satisfies HeartbeatMessage);
  }

  get unproved(): boolean {
    return this.#tail.unproved;
  }

  get isRecent(): boolean {
    return this.#isRecent(this.#checked);
  }

  #now(): Moment {
    return { now: this.#machine.now(), wall: this.#machine.wallNow() };
  }

  #isRecent({ now, wall }: Moment): boolean {
    const present = this.#now();
    // The first clock stands still while the machine is suspended. The second one may be set.
    return present.now - now < RECENT_MS && Math.abs(present.wall - wall) < RECENT_MS;
  }

  get successor(): string | undefined {
    return this.#successor === undefined ? undefined : nameOf(this.#successor);
  }

  async check(): Promise<boolean> {
    return this.#check();
  }

  #check(): boolean {
    const { file, owner } = this.#lock;
    const checked = this.#now();
    const line = attempt(`check ${file}`, () => readIfThere(file));
    const found = line === undefined ? undefined : parseOwner(line);
    if (found?.token === owner.token) {
      this.#checked = checked;
      return true;
    }
    this.#successor = found;
    return false;
  }

  #beat(): void {
    try {
      this.#beaten = this.#now();
      this.#write({ ...this.#tail, beat: this.#tail.beat + 1 });
      // Not known to be recent any more, if it fails: the next call checks again.
      const isOwner = this.#check();
      this.#tell(isOwner ? 'owned' : 'lost');
      if (isOwner && this.#spare !== undefined && this.#tail.beat % BEATS_TO_SPARE === 0) void this.#makeSpare();
    } catch {
      // The next check tells.
    }
  }

  /** Writes to the owner's own file, whatever its name is now, unless another program has written there. */
  #write(tail: Tail): void {
    if (parseOwner(readOpen(this.#lock.fd))?.token !== this.#lock.owner.token) return;
    fs.writeSync(this.#lock.fd, encodeTail(tail), this.#lock.tailOffset);
    this.#tail = tail;
  }

  async remove(name: string): Promise<void> {
    const path = this.#names.resolve(name);
    const copy = this.#names.copies.find((each) => path.startsWith(each)) ?? path;
    attempt(`remove ${path}`, () => removeName(path, copy, () => this.#check()));
  }

  async restore(): Promise<void> {
    attempt(`look for files of ${this.#lock.file}`, () => this.#names.copies.forEach(restoreNames));
  }

  async renewed(): Promise<void> {
    // What an owner before has moved aside since the lock was taken is not needed any more.
    if (this.unproved && this.#check()) await this.restore();
    attempt(`write ${this.#lock.file}`, () => {
      if (!this.unproved) return;
      this.#write({ ...this.#tail, unproved: false });
      fs.fdatasyncSync(this.#lock.fd);
    });
    await this.#makeSpare();
  }

  #makeSpare(): Promise<void> {
    this.#spare = (this.#spare ?? Promise.resolve()).then(() => makeSpare(this.#lock.file));
    return this.#spare;
  }

  async withRoom(step: () => void | Promise<void>): Promise<void> {
    try {
      await step();
    } catch (error) {
      if (!isCodError(error, 'COD_NO_SPACE')) throw error;
      await this.#spare;
      if (!removeSpare(this.#lock.file)) throw error;
      try {
        await step();
      } finally {
        // At once, before a write of the copy takes the room.
        if (this.#spare !== undefined) await this.#makeSpare();
      }
    }
  }

  async release(): Promise<void> {
    if (this.#isReleased) return;
    const { file, fd, sign } = this.#lock;
    await this.#spare;
    attempt(`unlock ${file}`, () => {
      // The lock stays and says that it is released, if its name cannot be removed: the copy itself is closed by now.
      if (!this.#removesName()) this.#write({ ...this.#tail, beat: RELEASED });
    });
    // Only now: after a failure the lock is still ours, and another call may release it.
    this.#isReleased = true;
    this.#stopBeating();
    this.#tell('released');
    sign?.close();
    fs.closeSync(fd);
    this.#onReleased();
  }

  /** Returns false if the name has to stay, or could not be removed. */
  #removesName(): boolean {
    try {
      // After a pause a taker may be about to replace the lock. The next owner must know that one before may be alive.
      if (!this.#check() || !this.#isRecent(this.#beaten) || this.unproved) return false;
      this.#removeName();
      return true;
    } catch {
      return false;
    }
  }

  /**
   * Removes the name while takers see this owner alive. A pause of 10 s between the check and the removal could let a
   * taker in.
   */
  #removeName(): void {
    const { file, fd } = this.#lock;
    if (!isFile(fd, file)) return;
    // A copy that was closed opens on a full disk, too. One that was finished or removed leaves nothing.
    if (!METADATA.some((suffix) => fs.existsSync(this.#names.path + suffix))) {
      removeSpare(file);
      // Another file, if the target was moved and a link left in its place.
      removeSpare(`${this.#names.path}.lock`);
    }
    removeLock(file, fd);
  }
}
