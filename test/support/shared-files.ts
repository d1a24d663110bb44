/** One storage that several owners use, as machines do over a network. The test decides when an owner is replaced. */

import { CodError } from '../../src/errors.ts';
import type { FileSystem, Lease } from '../../src/fs/file-system.ts';

/** An owner, as its device sees the storage. */
export interface SharedOwner extends FileSystem {
  /** Whether the owner has checked its lock within 10 s. A successful check makes it true. */
  isRecent: boolean;
  /** Called before each check. */
  onCheck: () => void;
  /** Called before a name is made or removed, as if the owner were paused right before that. */
  onName: (change: 'make' | 'remove', name: string) => void | Promise<void>;
  /** A name that an owner before holds aside, until this one puts it back. */
  hidden: string | undefined;
  /** Whether the owner has released its lock. */
  isReleased: boolean;
}

export class SharedFiles {
  readonly files: FileSystem;
  #owners = 0;

  constructor(files: FileSystem) {
    this.files = files;
  }

  /** Returns the owner that replaces the one before, without proof that it is dead. */
  takeOver(): SharedOwner {
    const number = ++this.#owners;
    let unproved = number > 1;
    const lease = (owner: SharedOwner): Lease => ({
      check: async () => {
        owner.onCheck();
        owner.isRecent ||= number === this.#owners;
        return number === this.#owners;
      },
      get isRecent() {
        return owner.isRecent;
      },
      get successor() {
        return `owner ${number + 1}`;
      },
      get unproved() {
        return unproved;
      },
      renewed: async () => void (unproved = false),
      restore: async () => void (owner.hidden = undefined),
      remove: async (name) => {
        await owner.onName('remove', name);
        if (number === this.#owners) await this.files.remove(name);
      },
      release: async () => void (owner.isReleased = true),
    });
    const owner: SharedOwner = {
      isRecent: true,
      onCheck: () => undefined,
      onName: () => undefined,
      hidden: undefined,
      isReleased: false,
      open: async (name, options) => {
        if (options?.create) await owner.onName('make', name);
        if (name === owner.hidden) throw new CodError('COD_NOT_FOUND', `${name} is moved aside`);
        return this.files.open(name, options);
      },
      remove: async (name) => {
        await owner.onName('remove', name);
        await this.files.remove(name);
      },
      lock: async () => lease(owner),
    };
    return owner;
  }
}
