/** One storage that several owners use, as machines do over a network. The test decides when an owner is replaced. */

import type { FileSystem, Lease } from '../../src/fs/file-system.ts';

/** An owner, as its device sees the storage. */
export interface SharedOwner extends FileSystem {
  /** Whether the owner has checked its lock within 10 s. A successful check makes it true. */
  isRecent: boolean;
  /** Called before each check. */
  onCheck: () => void;
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
      release: async () => void (owner.isReleased = true),
    });
    const owner: SharedOwner = {
      isRecent: true,
      onCheck: () => undefined,
      isReleased: false,
      open: (name, options) => this.files.open(name, options),
      remove: (name) => this.files.remove(name),
      lock: async () => lease(owner),
    };
    return owner;
  }
}
