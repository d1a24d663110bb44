/**
 * Owners of one storage that replace each other, as machines do that share a directory.
 *
 * An owner is paused right before a storage operation or a check of its lock, is replaced, and continues later.
 *
 * - What an owner has handed to the storage has taken effect before the next owner begins.
 * - The storage refuses a write to the target that was in flight when its owner was replaced. Only the storage can do
 *   that (promise 7). Such an owner must begin no other.
 * - All else of a replaced owner reaches the storage: the library has to hold it back.
 */

import type { File, FileSystem, Lease } from '../../src/fs/file-system.ts';
import { CodError } from '../../src/index.ts';
import { type Life, SharedStorage, type StorageOwner } from '../../src/testing/index.ts';

/** The storage of a device, and whether the device may still use it. */
export interface Seat {
  readonly fileSystem: FileSystem;
  /** Whether another owner has taken over. */
  readonly isReplaced: boolean;
}

/** The owners of one life. */
export class Owners {
  readonly #storage: SharedStorage;
  readonly #target: string;
  #last: Owner | undefined;

  /** The first owner may or may not have a proof that the owner before is dead. */
  constructor({ fileSystem, random }: Life, target: string) {
    this.#storage = new SharedStorage(fileSystem);
    this.#target = target;
    if (random.oneIn(2)) this.#storage.takeOver();
  }

  /** Returns the next owner, which replaces the one before. */
  next(): Owner {
    this.#last?.replace();
    this.#last = new Owner(this.#storage.takeOver(), this.#target);
    return this.#last;
  }
}

export class Owner implements Seat {
  readonly fileSystem: FileSystem;
  /** Rejects when the owner does what it must not do any more. */
  readonly wrong: Promise<never>;
  /** Resolves when the owner is paused, and all its earlier steps have ended. */
  readonly paused: Promise<void>;
  readonly #inner: StorageOwner;
  readonly #target: string;
  #isReplaced = false;
  #running = 0;
  #stepsLeft = Number.POSITIVE_INFINITY;
  #gate: Promise<void> | undefined;
  #fail!: (error: Error) => void;
  #onPaused!: () => void;
  #resume: () => void = () => undefined;

  constructor(inner: StorageOwner, target: string) {
    this.wrong = new Promise((_, reject) => (this.#fail = reject));
    this.wrong.catch(() => undefined);
    this.paused = new Promise((resolve) => (this.#onPaused = resolve));
    this.#inner = inner;
    this.#target = target;
    this.fileSystem = {
      ...(inner.bootId === undefined ? {} : { bootId: inner.bootId }),
      open: (name, options) => this.#step(async () => this.#file(name, await inner.open(name, options))),
      remove: (name) =>
        this.#step(async () => {
          if (this.#isReplaced) this.#fail(new Error(`an owner that was replaced has removed ${name}`));
          await inner.remove(name);
        }),
      lock: async (name, options) => this.#lease(await inner.lock!(name, options)),
    };
  }

  get isReplaced(): boolean {
    return this.#isReplaced;
  }

  /** From now on another one is the owner. It has waited for so long that no check of this one is recent. */
  replace(): void {
    this.#isReplaced = true;
    this.#inner.isRecent = false;
  }

  /** Pauses the owner before its step `number` from now on. */
  pauseAt(number: number): void {
    this.#stepsLeft = number;
  }

  resume(): void {
    this.#gate = undefined;
    this.#resume();
  }

  async #step<T>(operation: () => Promise<T>): Promise<T> {
    if (--this.#stepsLeft === 0) {
      this.#gate = new Promise((resolve) => (this.#resume = resolve));
      if (this.#running === 0) this.#onPaused();
    }
    await this.#gate;
    this.#running++;
    try {
      return await operation();
    } finally {
      if (--this.#running === 0 && this.#gate !== undefined) this.#onPaused();
    }
  }

  #file(name: string, file: File): File {
    const change = (operation: () => Promise<void>): Promise<void> => {
      if (this.#isReplaced && name === this.#target)
        this.#fail(new Error('an owner that was replaced has begun to change the target'));
      return this.#step(async () => {
        if (this.#isReplaced && name === this.#target)
          throw new CodError('COD_TARGET_IO', `${name}: the storage refuses an owner that was replaced`);
        await operation();
      });
    };
    return {
      size: () => this.#step(() => file.size()),
      read: (into, offset) => this.#step(() => file.read(into, offset)),
      write: (from, offset) => change(() => file.write(from, offset)),
      truncate: (size) => change(() => file.truncate(size)),
      sync: () => this.#step(() => file.sync()),
      close: () => file.close(),
    };
  }

  #lease(inner: Lease): Lease {
    return {
      check: () => this.#step(() => inner.check()),
      get isRecent() {
        return inner.isRecent ?? true;
      },
      get successor() {
        return inner.successor;
      },
      get unproved() {
        return inner.unproved ?? false;
      },
      renewed: () => this.#step(() => inner.renewed!()),
      restore: () => this.#step(() => inner.restore!()),
      remove: (name) => this.#step(() => inner.remove!(name)),
      release: () => inner.release(),
    };
  }
}
