/** Takes the lock of a file: the protocol that node-lock.ts describes. */

import { randomBytes, randomInt } from 'node:crypto';
import * as fs from 'node:fs';
import type { Socket } from 'node:net';
import { basename, dirname } from 'node:path';
import { CodError, isCodError } from '../errors.ts';
import { errnoOf, ioError } from '../platform/errno.ts';
import type { LeaseOptions } from './file-system.ts';
import { isOdd } from './fs-adapter.ts';
import {
  attempt,
  encodeHead,
  encodeTail,
  existsError,
  isCutShort,
  lockedError,
  nameOf,
  type Owner,
  openNew,
  parseOwner,
  RELEASED,
  readIfThere,
  type Tail,
  writeLine,
} from './lock-owner.ts';
import { listenAt, mayBeListening, removeLeftover, removeSocket, type SignOfLife } from './lock-socket.ts';
import { movedLocks, removeLock, restoreLock } from './moved-names.ts';
import { type Machine, mayBeAlive, type ProcessIdentity, thisProcess } from './node-process.ts';
import { removeSpare } from './node-spare.ts';

const ATTEMPTS = 50;
/** The longest random delay is this long, times the number of attempts. */
const WAIT_MS = 10;
/** A beat that stands still for so long is that of a dead owner. */
const STILL_MS = 30_000;
const STILL_TAKE_OVER_MS = 10_000;
const WATCH_MS = 1000;
const TAKER = '.taker';
const DRAFT = '.draft';
/** Suffix of a draft or a taker, after the lock's name and a dot. */
const OWN_NAME = /^[0-9a-f]{16}(\.taker|\.draft)$/;
/** That of a socket, or of the directory in which it is bound. */
const SOCKET_NAME = /^([0-9a-f]{16})(\.new)?$/;

/** File systems of one machine, as statfs(2) names them. */
const LOCAL: ReadonlySet<number> = new Set([
  0xef53, // ext2, ext3, ext4
  0x58465342, // xfs
  0x9123683e, // btrfs
  0xf2f52010, // f2fs
  0x2fc12fc1, // zfs
  0xca451a4e, // bcachefs
  0x01021994, // tmpfs
  0x794c7630, // overlayfs
]);

/** Options of {@link lockFile}, beside those of `lock`. */
export interface NodeLockOptions extends LeaseOptions {
  /** Default: this machine. */
  readonly machine?: Machine | undefined;
  /** Returns the path of a name that the lease removes. Default: as of a path. */
  readonly resolve?: ((name: string) => string) | undefined;
  /** Is given each connection to the owner's socket, and the token of the lease. */
  readonly serve?: ((socket: Socket, token: string) => void) | undefined;
}

/** What an owner has: its file, open and under its name, and its socket. */
export interface Lock {
  readonly file: string;
  readonly fd: number;
  readonly owner: Owner;
  readonly tail: Tail;
  /** Offset of the tail. */
  readonly tailOffset: number;
  readonly sign: SignOfLife | undefined;
}

/** What is known of an owner. `watch`: only its beat can tell. */
type Verdict = 'alive' | 'dead' | 'watch';

/** An owner that is not alive. */
interface Former {
  readonly line: string;
  readonly owner: Owner;
  /** Whether its death is proved. */
  readonly isProved: boolean;
  /** Locks that were moved aside, whose owners are dead too. */
  readonly asides: readonly string[];
}

/** The files of one attempt. */
interface Draft {
  readonly hex: string;
  readonly path: string;
  readonly fd: number;
  readonly lock: Lock;
}

/** One call of {@link lockFile}. */
export class Taking {
  readonly #file: string;
  readonly #machine: Machine;
  readonly #options: NodeLockOptions;
  readonly #self: ProcessIdentity;
  readonly #since: string;
  /** Since when files read as they do. */
  readonly #still = new Map<string, { readonly line: string; readonly since: number }>();
  #isLocal: boolean | undefined;

  constructor(file: string, machine: Machine, options: NodeLockOptions) {
    this.#file = file;
    this.#machine = machine;
    this.#options = options;
    this.#self = { ...thisProcess(), bootId: machine.bootId };
    this.#since = new Date(machine.wallNow()).toISOString();
  }

  async take(): Promise<Lock> {
    const { signal } = this.#options;
    for (let count = 1; count <= ATTEMPTS; count++) {
      signal?.throwIfAborted();
      const former = await this.#deadOwner(true);
      const lock = await this.#attemptWithRoom(former);
      if (lock === 'watch') {
        count--;
        await this.#machine.sleep(WATCH_MS, signal);
      } else if (lock !== undefined) {
        for (const path of former?.asides ?? []) this.#removeFiles(path, parseOwner(readIfThere(path) ?? ''));
        await this.#removeLeftovers();
        return lock;
      } else await new Promise((resolve) => setTimeout(resolve, randomInt(WAIT_MS * count)));
    }
    throw lockedError(this.#file, 'other processes are taking over this lock: try again');
  }

  /** @throws {@link CodError} COD_LOCKED if the lock has an owner that may be alive. */
  async assertNotOwned(): Promise<void> {
    await this.#deadOwner(false);
  }

  /** As {@link #formerOwner}, once it is known. */
  async #deadOwner(restores: boolean): Promise<Former | undefined> {
    for (;;) {
      const former = await this.#formerOwner(restores);
      if (former !== 'watch') return former;
      await this.#machine.sleep(WATCH_MS, this.#options.signal);
    }
  }

  /**
   * Returns the owner if it is dead; undefined if there is none.
   * @throws {@link CodError} COD_LOCKED if it may be alive; COD_EXISTS if the lock is not a regular file.
   */
  async #formerOwner(restores: boolean): Promise<Former | 'watch' | undefined> {
    const file = this.#file;
    const paths = attempt(`lock ${file}`, () => {
      if (isOdd(fs, file)) throw existsError(file, 'not a regular file; move it away');
      const asides = this.#asides();
      if (restores) for (const aside of asides) restoreLock(file, aside);
      return [file, ...asides];
    });
    let former: Former | undefined;
    for (const path of paths) {
      const line = attempt(`lock ${path}`, () => readIfThere(path));
      if (line === undefined) continue;
      const owner = parseOwner(line);
      if (owner === undefined) throw lockedError(file, FOREIGN);
      const verdict = await this.#judge(owner);
      if (verdict === 'alive') throw this.#inUse(owner);
      const isProved = verdict === 'dead';
      if (!isProved && !this.#isStill(path, line, owner)) return 'watch';
      if (former === undefined) former = { line, owner, isProved, asides: [] };
      else {
        const isKnown = former.isProved && isProved && !owner.unproved;
        former = { ...former, isProved: isKnown, asides: [...former.asides, path] };
      }
    }
    return former;
  }

  /** Returns the locks that owners hold aside, or were killed on the way. */
  #asides(): string[] {
    return movedLocks(this.#file).filter(
      (path) => !isOdd(fs, path) && parseOwner(readIfThere(path) ?? '') !== undefined,
    );
  }

  /**
   * Whether the beat has stood still for long enough.
   * @throws {@link CodError} COD_LOCKED if the beat moves.
   */
  #isStill(file: string, line: string, owner: Owner): boolean {
    const before = this.#still.get(file);
    const still = this.#stillFor(file, line);
    if (before !== undefined && before.line !== line) throw this.#inUse(owner);
    // An older version does not beat, so only the user can know.
    if (owner.beat === undefined && !this.#options.takeOver) throw this.#inUse(owner);
    const limit = this.#options.takeOver ? STILL_TAKE_OVER_MS : STILL_MS;
    return still >= limit;
  }

  /** Milliseconds for which a file was seen to read so, on this machine's clock. */
  #stillFor(path: string, line: string): number {
    const now = this.#machine.now();
    const seen = this.#still.get(path);
    if (seen?.line !== line) this.#still.set(path, { line, since: now });
    return seen?.line === line ? now - seen.since : 0;
  }

  async #judge(owner: Owner): Promise<Verdict> {
    const machine = this.#machine;
    if (owner.beat === RELEASED) return 'dead';
    const sameKernel =
      machine.bootId === undefined
        ? owner.bootId === undefined && (owner.host ?? machine.host) === machine.host
        : owner.bootId === machine.bootId;
    const sameMachine = machine.machineId !== undefined && owner.machineId === machine.machineId;
    if (owner.socket !== undefined) {
      if (!sameKernel && !sameMachine) return 'watch';
      if (await mayBeListening(`${this.#file}.${owner.socket}`)) {
        return 'alive';
      }
      return sameKernel || this.#isOnLocalDisk() ? 'dead' : 'watch';
    }
    if (!sameKernel) return 'watch';
    if (owner.pidNamespace === this.#self.pidNamespace) return mayBeAlive(owner, this.#self) ? 'alive' : 'dead';
    return owner.beat === undefined ? 'alive' : 'watch';
  }

  #isOnLocalDisk(): boolean {
    this.#isLocal ??= attempt(`lock ${this.#file}`, () => LOCAL.has(fs.statfsSync(dirname(this.#file)).type));
    return this.#isLocal;
  }

  /** As {@link #attempt}. On a full disk, gives up the spare file of an owner that is gone, and tries again once. */
  async #attemptWithRoom(former: Former | undefined, isAgain = false): Promise<Lock | 'watch' | undefined> {
    try {
      return await this.#attempt(former);
    } catch (error) {
      if (!isCodError(error, 'COD_NO_SPACE')) throw error;
      // Another taker may have removed it already.
      removeSpare(this.#file);
      if (!isAgain) return this.#attemptWithRoom(former, true);
      const { message, details, cause } = error;
      const remedy = 'and no spare file is left: make room, or open the copy with `readOnly`';
      throw new CodError('COD_NO_SPACE', `${message}; ${remedy}`, { details, cause });
    }
  }

  /** Returns undefined if another process interfered. */
  async #attempt(former: Former | undefined): Promise<Lock | 'watch' | undefined> {
    const draft = await this.#draft(former);
    if (draft === undefined) return undefined;
    let taken: Lock | 'watch' | undefined;
    let { fd } = draft;
    try {
      taken = await (former === undefined ? this.#publish(draft) : this.#replace(draft, former));
      if (typeof taken !== 'object' || this.#asides().every((path) => former?.asides.includes(path))) return taken;
      // An owner that was replaced has moved this lock aside, or the one of another taker, which had the name first.
      ({ fd } = taken);
      taken = undefined;
      removeLock(this.#file, fd);
      return undefined;
    } catch (error) {
      throw ioError(`lock ${this.#file}`, error);
    } finally {
      if (typeof taken !== 'object') {
        draft.lock.sign?.close();
        fs.closeSync(fd);
      }
      removeLeftover(draft.path);
      removeLeftover(`${this.#file}.${draft.hex}${TAKER}`);
    }
  }

  /**
   * Writes and syncs a draft, and listens. The sync comes before the final name: after a power cut an empty lock would
   * name no owner, and no process could take it over. Undefined: the lock's new owner removed the draft as a leftover.
   */
  async #draft(former: Former | undefined): Promise<Draft | undefined> {
    const file = this.#file;
    const hex = randomBytes(8).toString('hex');
    const path = `${file}.${hex}${DRAFT}`;
    const token = randomBytes(16).toString('hex');
    const tail: Tail = {
      beat: 0,
      unproved: former !== undefined && (!former.isProved || former.owner.unproved === true),
    };
    const { machineId, host } = this.#machine;
    let owner: Owner = { token, ...this.#self, machineId, host, since: this.#since, socket: hex };
    const fd = attempt(`lock ${file}`, () => openNew(path));
    let sign: SignOfLife | undefined;
    try {
      // The draft names the socket before there is one, so that a process that removes the draft removes both.
      attempt(`lock ${file}`, () => writeLine(fd, encodeHead(owner) + encodeTail(tail)));
      sign = await listenAt(`${file}.${hex}`, (socket) => this.#serve(socket, token));
      if (sign === undefined) owner = { ...owner, socket: undefined };
      const head = encodeHead(owner);
      attempt(`lock ${file}`, () => {
        if (sign === undefined) writeLine(fd, head + encodeTail(tail));
        fs.fsyncSync(fd);
      });
      return { hex, path, fd, lock: { file, fd, owner, tail, tailOffset: Buffer.byteLength(head), sign } };
    } catch (error) {
      sign?.close();
      fs.closeSync(fd);
      removeLeftover(path);
      throw ioError(`lock ${file}`, error);
    }
  }

  #serve(socket: Socket, token: string): void {
    if (this.#options.serve === undefined) socket.destroy();
    else this.#options.serve(socket, token);
  }

  /** Gives the draft the name of the lock, if that is free. */
  #publish({ path, lock }: Draft): Lock | undefined {
    try {
      fs.linkSync(path, this.#file);
      return lock;
    } catch (error) {
      if (errnoOf(error) === 'EEXIST' || errnoOf(error) === 'ENOENT') return undefined;
      if (!NO_LINKS.has(errnoOf(error) ?? '')) throw error;
    }
    // The file system has no links, such as FAT. A crash here may leave a torn lock, which only the user can remove.
    let fd: number;
    try {
      fd = openNew(this.#file);
    } catch (error) {
      if (errnoOf(error) === 'EEXIST') return undefined;
      throw error;
    }
    writeLine(fd, encodeHead(lock.owner) + encodeTail(lock.tail));
    fs.fsyncSync(fd);
    fs.closeSync(lock.fd);
    return { ...lock, fd };
  }

  /** Gives the draft the name of the lock, in the place of a dead owner's. */
  async #replace({ hex, path, lock }: Draft, { line }: Former): Promise<Lock | 'watch' | undefined> {
    const taker = `${this.#file}.${hex}${TAKER}`;
    if (!renameIfThere(path, taker)) return undefined;
    const rival = await this.#rival(taker);
    if (rival !== 'dead') return rival === 'watch' ? 'watch' : undefined;
    // A dead owner's line never changes. No other step may come between this and the rename.
    if (readIfThere(this.#file) !== line) return undefined;
    return renameIfThere(taker, this.#file) ? lock : undefined;
  }

  /** Returns what is known of the other takers: 'dead' if there are none. Removes dead ones. */
  async #rival(own: string): Promise<Verdict> {
    let verdict: Verdict = 'dead';
    for (const { path, isTaker } of this.#ownNames()) {
      if (!isTaker || path === own) continue;
      const line = readIfThere(path);
      if (line === undefined) continue;
      const rival = parseOwner(line);
      const found = rival === undefined ? 'alive' : await this.#judge(rival);
      if (found === 'dead' || (found === 'watch' && this.#stillFor(path, line) >= STILL_MS))
        this.#removeFiles(path, rival);
      else if (verdict !== 'alive') verdict = found;
    }
    return verdict;
  }

  /**
   * Removes the files of dead processes, and the sockets of owners that were replaced. Only the lock's owner calls
   * this. Leftovers do no harm, so they may stay where removing is not allowed.
   */
  async #removeLeftovers(): Promise<void> {
    try {
      for (const { path } of this.#ownNames()) {
        const line = isOdd(fs, path) ? undefined : readIfThere(path);
        if (line === undefined) continue;
        const owner = parseOwner(line);
        const isDead = owner === undefined ? isCutShort(line) : (await this.#judge(owner)) === 'dead';
        if (isDead) this.#removeFiles(path, owner);
      }
      for (const hex of this.#sockets()) if (!this.#isNamed(hex)) removeSocket(`${this.#file}.${hex}`);
    } catch (error) {
      if (errnoOf(error) === undefined) throw error;
    }
  }

  /**
   * Whether a socket that was seen belongs to a taker or to the owner. Its file was a draft before there was a socket,
   * and moves on in this order only. So the answer false is final, also if this process is paused and replaced.
   */
  #isNamed(hex: string): boolean {
    const names = [DRAFT, TAKER].map((suffix) => `${this.#file}.${hex}${suffix}`);
    if (names.some((path) => fs.existsSync(path))) return true;
    const owner = parseOwner(readIfThere(this.#file) ?? '');
    return owner === undefined || owner.socket === hex;
  }

  #removeFiles(path: string, owner: Owner | undefined): void {
    if (owner?.socket !== undefined) removeSocket(`${this.#file}.${owner.socket}`);
    fs.rmSync(path, { force: true });
  }

  /** Returns the drafts and takers beside the lock file. */
  #ownNames(): { readonly path: string; readonly isTaker: boolean }[] {
    return this.#endings()
      .filter((end) => OWN_NAME.test(end))
      .map((end) => ({ path: `${this.#file}.${end}`, isTaker: end.endsWith(TAKER) }));
  }

  /** Returns the names of the sockets beside the lock file, each behind the lock's name and a dot. */
  #sockets(): readonly string[] {
    return this.#endings().flatMap((end) => SOCKET_NAME.exec(end)?.[1] ?? []);
  }

  /** Returns what follows the lock's name and a dot, in the names beside it. */
  #endings(): readonly string[] {
    const prefix = `${basename(this.#file)}.`;
    return fs
      .readdirSync(dirname(this.#file))
      .filter((name) => name.startsWith(prefix))
      .map((name) => name.slice(prefix.length));
  }

  /** Says who the owner is, and what to do. */
  #inUse(owner: Owner): CodError {
    const isHere = owner.bootId === this.#machine.bootId;
    const isNear = isHere && owner.pidNamespace === this.#self.pidNamespace;
    if (isNear && owner.pid === this.#self.pid)
      return lockedError(this.#file, 'in use by this process: close it first', owner);
    const where = isNear ? '' : isHere ? ' in another container' : ' of another boot or machine';
    const advice = owner.beat === undefined ? '; if that process is gone, open with take-over' : '; stop it first';
    return lockedError(this.#file, `in use by ${nameOf(owner, where)}${advice}`, owner);
  }
}

const FOREIGN =
  'this file names no owner: another program or a newer version may have made it, or a power cut on a file system ' +
  'without links; make sure that no process uses the copy, and move the file to another name';

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
