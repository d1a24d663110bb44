/**
 * A file system in memory that crashes, fails and fills up on request, and then shows what a restart would find.
 *
 * Invariants:
 * - An operation takes effect when its promise settles. Until then it is in flight, and a crash may perform any part of
 *   it.
 * - What happens depends only on the calls and on the seed.
 * - A sync covers only what had returned before it was called.
 * - After a crash nothing takes effect, and only calls that had taken effect settle: the process is gone. Synchronous
 *   calls throw, since they must not return.
 */

import type { Done } from '../async/done.ts';
import { CodError } from '../errors.ts';
import type { File, FileSystem, OpenOptions } from '../fs/file-system.ts';
import type { InlineFile } from '../fs/inline-file.ts';
import type { Crash, CrashingFileSystemOptions, FaultOptions, StorageOperation } from './crashes-and-faults.ts';
import { forReading } from './for-reading.ts';
import { type Random, seededRandom } from './random.ts';
import { type FileNumber, SimulatedDisk } from './simulated-disk.ts';

/**
 * A file system in memory that crashes, fails and fills up on request. It has no `lock`.
 *
 * @example
 * ```ts
 * import { CrashingFileSystem, seededRandom } from 'copyondemand/testing';
 *
 * const before = new CrashingFileSystem();
 * const file = await before.open('notes', { create: true });
 * await file.write(new Uint8Array(512).fill(1), 0);
 * await file.sync();
 * await file.write(new Uint8Array(512).fill(2), 0); // not synced
 *
 * const after = before.crash({ kind: 'power', random: seededRandom(1) });
 * const found = new Uint8Array(512);
 * await (await after.open('notes')).read(found, 0);
 * if (found[0] !== 1 && found[0] !== 2) throw new Error('a synced write is lost');
 * ```
 */
export class CrashingFileSystem implements FileSystem {
  /** As {@link FileSystem.bootId}; absent unless the options name it. */
  readonly bootId?: string;
  /** Resolves at the operation that {@link crashAt} names, or at {@link crash}. */
  readonly crashed: Promise<void>;
  readonly #options: CrashingFileSystemOptions;
  readonly #random: Random;
  readonly #inFlight = new Set<Effect<unknown>>();
  readonly #openCounts = new Map<FileNumber, number>();
  #disk = new SimulatedDisk();
  #operationCount = 0;
  #crashAt = Number.POSITIVE_INFINITY;
  #faults: Fault[] = [];
  #allocatedLimit = Number.POSITIVE_INFINITY;
  #frozen = false;
  #onCrash!: () => void;

  /** Makes a file system without files. */
  constructor(options: CrashingFileSystemOptions = {}) {
    this.#options = options;
    this.#random = options.random ?? seededRandom(0);
    if (options.bootId !== undefined) this.bootId = options.bootId;
    this.crashed = new Promise((resolve) => {
      this.#onCrash = resolve;
    });
  }

  /** Whether the process is gone. */
  get isCrashed(): boolean {
    return this.#frozen;
  }

  /** Number of operations called so far; see {@link StorageOperation.number}. */
  get operationCount(): number {
    return this.#operationCount;
  }

  /**
   * Stops the process when operation `number` is called. That operation is in flight, and from then on no call settles.
   * {@link crash} then returns the remaining files. A workload that runs with `number` 1, 2, 3 … until it ends by
   * itself has been crashed at each of its operations.
   *
   * @param number as {@link StorageOperation.number}
   */
  crashAt(number: number): void {
    this.#crashAt = number;
  }

  /**
   * Makes operation `number` fail, or with `stays` all operations from there on.
   *
   * - A failed write may have written its beginning.
   * - A failed read has filled its buffer with arbitrary bytes.
   * - A failed sync has lost some of the unsynced bytes. The next sync, as on Linux, does not report that.
   *
   * @param number as {@link StorageOperation.number}
   */
  failAt(number: number, options: FaultOptions = {}): void {
    this.failWhen((operation) => (options.stays ? operation.number >= number : operation.number === number), options);
  }

  /** Makes the first operation that matches fail, or with `stays` all of them. What fails is as for {@link failAt}. */
  failWhen(matches: (operation: StorageOperation) => boolean, options: FaultOptions = {}): void {
    this.#faults.push({ matches, code: options.code ?? 'COD_TARGET_IO', stays: options.stays ?? false });
  }

  /**
   * Makes writes reject with COD_NO_SPACE once `bytes` more are allocated, in pages of 4096 bytes. Such a write has
   * written the bytes that fit.
   */
  limitSpace(bytes: number): void {
    this.#allocatedLimit = this.#disk.allocatedBytes + bytes;
  }

  /** Ends all faults and the limit of space. */
  clearFaults(): void {
    this.#faults = [];
    this.#allocatedLimit = Number.POSITIVE_INFINITY;
  }

  /**
   * Stops the process, and returns the file system that its next start finds. Each call decides anew.
   *
   * - `process`: every write that had resolved survives. Writes in flight may be cut short anywhere. Unsynced bytes
   *   stay unsynced, and a power cut may follow.
   * - `loss`: as `power`, and the name of the boot stays.
   * - `power`: synced bytes survive. Each 512-byte sector keeps some of its unsynced writes, in order. A name that was
   *   created or removed since it was last durable may exist or not.
   *
   * @param options replaces options from then on, such as the clock
   */
  crash({ kind, random }: Crash, options: CrashingFileSystemOptions = {}): CrashingFileSystem {
    this.#freeze();
    const disk = this.#disk.clone();
    for (const effect of random.shuffle([...this.#inFlight])) effect.crash?.(disk, { kind, random });
    const newBoot = this.bootId !== undefined && kind === 'power';
    const after = new CrashingFileSystem({
      ...this.#options,
      random: random.fork(),
      bootId: newBoot ? `boot-${random.below(2 ** 32).toString(16)}` : this.bootId,
      ...options,
    });
    after.#disk = kind !== 'process' ? disk.afterPowerCut(random) : disk;
    return after;
  }

  /**
   * Returns another file system with the same files as now, synced or not, none of them open. Operations in flight do
   * not count.
   *
   * @param options replaces options of this file system
   */
  duplicate(options: CrashingFileSystemOptions = {}): CrashingFileSystem {
    const copy = new CrashingFileSystem({ ...this.#options, ...options });
    copy.#disk = this.#disk.clone();
    return copy;
  }

  /**
   * Puts single files back to what they hold in `earlier`, durably, as a restore from a backup does. A file that
   * `earlier` does not have is removed. An open file stays the one that was opened.
   *
   * @param earlier a {@link duplicate} from an earlier moment
   * @param names the files; the others stay as they are
   */
  putBack(earlier: CrashingFileSystem, names: Iterable<string>): void {
    for (const name of names) this.#disk.putBack(name, earlier.#disk);
  }

  /** As {@link FileSystem.open}. Rejects with COD_LOCKED for an open file only if the options say `exclusive`. */
  async open(name: string, how: OpenOptions = {}): Promise<File> {
    const { readOnly = false } = how;
    const exclusive = !readOnly && (how.exclusive ?? false);
    const create = exclusive || (!readOnly && (how.create ?? false));
    const number = await this.#perform(
      { kind: 'open', name },
      {
        complete: (disk) => {
          let number = disk.find(name);
          if (number === undefined && !create)
            throw new CodError('COD_NOT_FOUND', `open ${name}: the file does not exist`, { details: { name } });
          if (number !== undefined && exclusive)
            throw new CodError('COD_EXISTS', `open ${name}: the file exists`, { details: { name } });
          number ??= disk.create(name);
          this.#assertFree(name, number);
          this.#openCounts.set(number, (this.#openCounts.get(number) ?? 0) + 1);
          return number;
        },
        crash: (disk, { random }) => {
          if (create && disk.find(name) === undefined && random.oneIn(2)) disk.create(name);
        },
      },
    );
    const file = this.#handle(name, number);
    return readOnly ? forReading(file, name) : file;
  }

  /** As {@link FileSystem.remove}. Rejects with COD_LOCKED for an open file only if the options say `exclusive`. */
  async remove(name: string): Promise<void> {
    await this.#perform(
      { kind: 'remove', name },
      {
        complete: (disk) => {
          this.#assertFree(name, disk.find(name));
          disk.remove(name);
        },
        crash: (disk, { random }) => {
          if (random.oneIn(2)) disk.remove(name);
        },
      },
    );
  }

  #handle(name: string, number: FileNumber): InlineFile {
    /** Operations in flight. `close` waits for them. */
    let running = 0;
    let onIdle: () => void = () => undefined;
    let closed: Promise<void> | undefined;

    const perform = async <T>({ kind, offset = 0, length = 0 }: Call, effect: Effect<T>): Promise<T> => {
      if (closed !== undefined) throw new CodError('COD_CLOSED', `${name} is closed`, { details: { name } });
      assertRange(offset, length);
      running++;
      try {
        return await this.#perform({ kind, name, offset, length }, effect);
      } finally {
        if (--running === 0) onIdle();
      }
    };

    /** Completes synchronously or later at random, like a backend that passes some calls to a pool. */
    const submit = (call: Call, effect: Effect<void>): Done => {
      if (this.#random.oneIn(2)) return perform(call, effect);
      if (closed !== undefined) throw new CodError('COD_CLOSED', `${name} is closed`, { details: { name } });
      assertRange(call.offset ?? 0, call.length ?? 0);
      this.#performSynchronously({ ...call, name }, effect);
      return undefined;
    };

    const close = async (): Promise<void> => {
      if (running > 0) {
        await new Promise<void>((resolve) => {
          onIdle = resolve;
        });
      }
      await this.#latency();
      if (this.#frozen) await never();
      this.#openCounts.set(number, this.#openCounts.get(number)! - 1);
    };

    const read = (into: Uint8Array, offset: number): Effect<void> => ({
      complete: (disk) => {
        const { live } = disk.file(number);
        if (into.length > 0 && offset + into.length > live.size) {
          throw new CodError(
            'COD_SHORT_READ',
            `read ${name} at offset ${offset}, ${into.length} bytes: the file ends at ${live.size}`,
            {
              details: { name, offset, length: into.length, size: live.size },
            },
          );
        }
        live.read(into, offset);
      },
      fail: () => into.fill(0xdb),
    });
    const write = (from: Uint8Array, offset: number): Effect<void> => this.#write(name, number, from, offset);

    return {
      size: () => perform({ kind: 'size' }, { complete: (disk) => disk.file(number).live.size }),
      read: (into, offset) => perform({ kind: 'read', offset, length: into.length }, read(into, offset)),
      write: (from, offset) => perform({ kind: 'write', offset, length: from.length }, write(from, offset)),
      ...(this.#options.inline && {
        submitRead: (into: Uint8Array, offset: number) =>
          submit({ kind: 'read', offset, length: into.length }, read(into, offset)),
        submitWrite: (from: Uint8Array, offset: number) =>
          submit({ kind: 'write', offset, length: from.length }, write(from, offset)),
      }),
      truncate: (size) =>
        perform(
          { kind: 'truncate', offset: size },
          {
            complete: (disk) => disk.file(number).change({ kind: 'truncate', size }),
            crash: (disk, { kind, random }) => {
              // For a power cut, `afterPowerCut` decides on all unsynced changes.
              if (kind !== 'process' || random.oneIn(2)) disk.file(number).change({ kind: 'truncate', size });
            },
          },
        ),
      sync: () => perform({ kind: 'sync' }, this.#sync(name, number)),
      close: () => {
        closed ??= close();
        return closed;
      },
    };
  }

  #write(name: string, number: FileNumber, from: Uint8Array, offset: number): Effect<void> {
    const bytes = from.slice();
    const { tearBytes: given = 1 } = this.#options;
    const tearBytes = typeof given === 'number' ? given : given(name);
    const writeBeginning = (disk: SimulatedDisk, length: number): void => {
      if (length > 0) disk.file(number).change({ kind: 'write', offset, bytes: bytes.subarray(0, length) });
    };
    /** Length of a torn write: nothing, everything, or anything in between, each equally often. */
    const torn = (random: Random): number => {
      const end = offset + [0, bytes.length, random.below(bytes.length + 1)][random.below(3)]!;
      return end === offset + bytes.length ? bytes.length : Math.max(0, end - (end % tearBytes) - offset);
    };
    return {
      complete: (disk) => {
        if (!isSame(from, bytes)) {
          throw new Error(
            `write ${name} at offset ${offset}, ${bytes.length} bytes: the buffer was changed before the write ended`,
          );
        }
        const limited = this.#allocatedLimit < Number.POSITIVE_INFINITY;
        const length = limited
          ? disk.file(number).live.fitting(offset, bytes.length, this.#allocatedLimit - disk.allocatedBytes)
          : bytes.length;
        writeBeginning(disk, length);
        if (length < bytes.length) {
          throw new CodError(
            'COD_NO_SPACE',
            `write ${name} at offset ${offset}, ${bytes.length} bytes: no space after ${length}`,
            {
              details: { name, offset, length: bytes.length, written: length },
            },
          );
        }
      },
      fail: (disk) => writeBeginning(disk, torn(this.#random)),
      crash: (disk, { kind, random }) => writeBeginning(disk, kind !== 'process' ? bytes.length : torn(random)),
    };
  }

  #sync(name: string, number: FileNumber): Effect<void> {
    const { syncsNames = true } = this.#options;
    const { changeCount } = this.#disk.file(number);
    const complete = (disk: SimulatedDisk): void => {
      disk.file(number).sync(changeCount);
      if (syncsNames) disk.syncName(name, number);
    };
    return {
      complete,
      fail: (disk) => disk.file(number).failSync(this.#random),
      crash: (disk, { random }) => {
        if (random.oneIn(2)) complete(disk);
      },
    };
  }

  async #perform<T>(call: Call & { name: string }, effect: Effect<T>): Promise<T> {
    if (this.#frozen) return never();
    const operation = this.#begin(call, effect);
    await this.#latency();
    if (this.#frozen) return never();
    return this.#end(operation, effect);
  }

  #performSynchronously<T>(call: Call & { name: string }, effect: Effect<T>): T {
    const operation = this.#frozen ? undefined : this.#begin(call, effect);
    if (operation === undefined || this.#frozen) throw new CodError('COD_CLOSED', 'the simulated process has crashed');
    return this.#end(operation, effect);
  }

  #begin({ kind, name, offset = 0, length = 0 }: Call & { name: string }, effect: Effect<unknown>): StorageOperation {
    const operation: StorageOperation = { number: ++this.#operationCount, kind, name, offset, length };
    this.#inFlight.add(effect);
    if (operation.number === this.#crashAt) this.#freeze();
    return operation;
  }

  #end<T>(operation: StorageOperation, effect: Effect<T>): T {
    const { kind, name, offset, length } = operation;
    this.#inFlight.delete(effect);
    const fault = this.#takeFault(operation);
    if (fault === undefined) return effect.complete(this.#disk);
    effect.fail?.(this.#disk);
    throw new CodError(
      fault.code,
      `${kind} ${name} at offset ${offset}, ${length} bytes: injected fault in operation ${operation.number}`,
      {
        details: { ...operation },
      },
    );
  }

  /** Waits for the time that an operation takes. */
  #latency(): Promise<void> {
    const { clock, latencyMs = 1 } = this.#options;
    return clock === undefined
      ? rounds(this.#random.below(4))
      : clock.sleep((latencyMs * this.#random.below(1000)) / 1000);
  }

  #takeFault(operation: StorageOperation): Fault | undefined {
    if (this.#faults.length === 0) return undefined;
    const fault = this.#faults.find(({ matches }) => matches(operation));
    if (fault !== undefined && !fault.stays) this.#faults.splice(this.#faults.indexOf(fault), 1);
    return fault;
  }

  #assertFree(name: string, number: FileNumber | undefined): void {
    if (this.#options.exclusive && number !== undefined && (this.#openCounts.get(number) ?? 0) > 0) {
      throw new CodError('COD_LOCKED', `${name} is open`, { details: { name } });
    }
  }

  #freeze(): void {
    this.#frozen = true;
    this.#onCrash();
  }
}

type Call = Pick<StorageOperation, 'kind'> & Partial<Pick<StorageOperation, 'offset' | 'length'>>;

interface Fault extends Required<FaultOptions> {
  matches(operation: StorageOperation): boolean;
}

/** The effect of an operation on the disk. */
interface Effect<T> {
  /** Called when the operation ends. Returns or throws what the operation does. */
  complete(disk: SimulatedDisk): T;
  /** Called when the operation is made to fail. */
  fail?(disk: SimulatedDisk): void;
  /** Called when a crash interrupts the operation. */
  crash?(disk: SimulatedDisk, crash: Crash): void;
}

/** Waits for a number of rounds of the microtask queue. */
async function rounds(count: number): Promise<void> {
  for (let round = 0; round < count; round++) await undefined;
}

/** A new promise for each call, so that callers that wait for it can be garbage-collected. */
function never(): Promise<never> {
  return new Promise(() => {});
}

function isSame(one: Uint8Array, other: Uint8Array): boolean {
  if (one.length !== other.length) return false;
  for (let index = 0; index < one.length; index++) if (one[index] !== other[index]) return false;
  return true;
}

function assertRange(offset: number, length: number): void {
  if (!(Number.isSafeInteger(offset) && offset >= 0 && Number.isSafeInteger(offset + length))) {
    throw new RangeError(`${length} bytes at offset ${offset} are not a range of safe integers`);
  }
}
