/** One storage that several owners use, as machines do over a network. The test decides when an owner is replaced. */

import { CodError } from '../errors.ts';
import type { FileSystem, Lease } from '../fs/file-system.ts';

/** The storage as one owner sees it. The owner is paused where a hook below has not returned. */
export interface StorageOwner extends FileSystem {
  /**
   * Whether the owner's last check of the lock is less than 10 s old. A check that finds it still the owner makes it
   * true. The test may set it, instead of waiting. Default: true.
   */
  isRecent: boolean;
  /** Called before each check of the lock. The test may set it. Default: does nothing. */
  onCheck: () => void | Promise<void>;
  /** Called before a name is made or removed. The test may set it. Default: does nothing. */
  onName: (change: 'make' | 'remove', name: string) => void | Promise<void>;
  /** A name that an owner before holds aside, until this one puts it back. The test may set it. */
  hidden: string | undefined;
  /** Whether the owner has released its lock. */
  readonly isReleased: boolean;
}

/**
 * One storage that several owners use, one after the other. A later owner replaces the one before without proof that it
 * is dead, so both run on: the fault of two machines with one directory. The earlier owner must acknowledge nothing as
 * durable from then on, and must harm no file of the later one.
 *
 * @example
 * ```ts
 * import { bytesSource, openDevice } from 'copyondemand';
 * import { CrashingFileSystem, SharedStorage } from 'copyondemand/testing';
 *
 * const storage = new SharedStorage(new CrashingFileSystem());
 * const source = bytesSource(new Uint8Array(65536));
 * const device = await openDevice({ source, fileSystem: storage.takeOver(), target: 'disk' });
 * await device.write(new Uint8Array(512).fill(1), 0);
 * storage.takeOver();
 * const error = await device.flush().catch((reason) => reason);
 * console.log(error.code); // COD_POISONED
 * await device.close().catch(() => undefined);
 * ```
 */
export class SharedStorage {
  /** The storage itself, as no owner. */
  readonly files: FileSystem;
  #owners = 0;

  /** @param files what is shared, such as a `CrashingFileSystem`. Its own `lock` is not used. */
  constructor(files: FileSystem) {
    this.files = files;
  }

  /** Returns the next owner. From now on `check` of the earlier owners' leases resolves to false. */
  takeOver(): StorageOwner {
    const { files } = this;
    const number = ++this.#owners;
    const isLast = (): boolean => number === this.#owners;
    let unproved = number > 1;
    let isReleased = false;
    const lease = (): Lease => ({
      check: async () => {
        await owner.onCheck();
        owner.isRecent ||= isLast();
        return isLast();
      },
      get isRecent() {
        return owner.isRecent;
      },
      successor: `owner ${number + 1}`,
      get unproved() {
        return unproved;
      },
      renewed: async () => void (unproved = false),
      restore: async () => void (owner.hidden = undefined),
      remove: async (name) => {
        await owner.onName('remove', name);
        if (isLast()) await files.remove(name);
      },
      release: async () => void (isReleased = true),
    });
    const owner: StorageOwner = {
      ...(files.bootId === undefined ? {} : { bootId: files.bootId }),
      isRecent: true,
      onCheck: () => undefined,
      onName: () => undefined,
      hidden: undefined,
      get isReleased() {
        return isReleased;
      },
      open: async (name, options) => {
        if (options?.create) await owner.onName('make', name);
        if (name === owner.hidden) throw new CodError('COD_NOT_FOUND', `${name} is moved aside`);
        return files.open(name, options);
      },
      remove: async (name) => {
        await owner.onName('remove', name);
        await files.remove(name);
      },
      lock: async () => lease(),
    };
    return owner;
  }
}
