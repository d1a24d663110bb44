/** One owner of a log at a time. */

import { CodError } from '../errors.ts';
import type { FileSystem, Lease, LeaseOptions, NameWatch } from '../fs/file-system.ts';

/** The names in use of each file system object. They guard a backend without locks within this program. */
const inUse = new WeakMap<FileSystem, Set<string>>();

/** The lease of a log, and the names of its files. */
export class Ownership {
  /** Called when the names of the files were removed. {@link loss} then says so. */
  onLost: (() => void) | undefined;
  readonly #name: string;
  readonly #lease: Lease | undefined;
  readonly #watch: NameWatch | undefined;
  readonly #onReleased: () => void;
  #isReleased = false;

  constructor(name: string, lease?: Lease, fileSystem?: FileSystem, onReleased: () => void = () => undefined) {
    this.#name = name;
    this.#lease = lease;
    this.#watch = fileSystem?.watch?.(() => this.onLost?.());
    this.#onReleased = onReleased;
  }

  /** Whether no other owner can have taken over without that being known. */
  get isRecent(): boolean {
    return this.#lease?.isRecent ?? true;
  }

  /** Whether an owner before may still write to its files. */
  get unproved(): boolean {
    return this.#lease?.unproved ?? false;
  }

  /** Returns why the log is no longer owned, or undefined if it is. */
  async loss(): Promise<CodError | undefined> {
    const details = { name: this.#name };
    const removal = await this.#watch?.check();
    if (removal !== undefined) return new CodError('COD_NOT_FOUND', `${this.#name} ${removal}`, { details });
    if ((await this.#lease?.check()) ?? true) return undefined;
    const by = this.#lease?.successor ?? 'another owner';
    return new CodError('COD_LOCKED', `${this.#name} was taken over by ${by}`, { details });
  }

  /** Returns the cause of an error: files that another owner was changing explain any. */
  async causeOf(error: unknown): Promise<unknown> {
    return (await this.loss().catch(() => undefined)) ?? error;
  }

  /** @throws {@link CodError} COD_LOCKED if another owner has taken over. */
  async fence(): Promise<void> {
    const loss = await this.loss();
    if (loss !== undefined) throw loss;
  }

  /**
   * Removes a name, unless another owner has taken over.
   * @throws {@link CodError} as {@link fence}; COD_TARGET_IO
   */
  async remove(fileSystem: FileSystem, name: string): Promise<void> {
    await this.fence();
    // A lease that can be lost looks again at what it has moved: this owner may be paused, and replaced, right here.
    await (this.#lease?.remove?.(name) ?? fileSystem.remove(name));
    await this.fence();
  }

  /** Each file has its name again, unless an owner before moves it aside after this call. */
  async restore(): Promise<void> {
    await this.#lease?.restore?.();
  }

  /** The files that an owner before knows are not in use any more. */
  async renewed(): Promise<void> {
    await this.#lease?.renewed?.();
  }

  /** Runs a step, and once more if the disk is full and the owner keeps room back for that. */
  withRoom(step: () => void | Promise<void>): void | Promise<void> {
    return this.#lease?.withRoom?.(step) ?? step();
  }

  /** Idempotent. */
  async release(): Promise<void> {
    // The name may have another owner since the first release.
    if (this.#isReleased) return;
    this.#isReleased = true;
    this.#watch?.end();
    this.#onReleased();
    await this.#lease?.release();
  }
}

/**
 * Takes the ownership of `name`.
 * @throws {@link CodError} COD_LOCKED if it has an owner; the errors of the file system.
 */
export async function takeOwnership(fileSystem: FileSystem, name: string, options?: LeaseOptions): Promise<Ownership> {
  const names = inUse.get(fileSystem) ?? new Set();
  inUse.set(fileSystem, names);
  refuseOpen(names, name);
  names.add(name);
  try {
    const lease = await fileSystem.lock?.(name, options);
    return new Ownership(name, lease, fileSystem, () => names.delete(name));
  } catch (error) {
    names.delete(name);
    throw error;
  }
}

/**
 * Checks that `name` has no owner, and takes nothing.
 * @throws {@link CodError} COD_LOCKED if it has an owner; the errors of the file system.
 */
export async function assertNotOwned(fileSystem: FileSystem, name: string): Promise<void> {
  refuseOpen(inUse.get(fileSystem), name);
  await fileSystem.assertNotOwned?.(name);
}

function refuseOpen(names: ReadonlySet<string> | undefined, name: string): void {
  if (names?.has(name))
    throw new CodError('COD_LOCKED', `${name} is already open in this program; close it first`, { details: { name } });
}
