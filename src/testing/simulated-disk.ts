/** The names and files of a simulated disk: what is durable, and what has changed since. */

import type { Random } from './random.ts';
import { picker, UnsyncedFile } from './unsynced-file.ts';

/** What a name has referred to: files, or undefined where it was removed. */
interface NameHistory {
  durable: FileNumber | undefined;
  unsynced: (FileNumber | undefined)[];
}

/** Identifies a file for as long as it exists, like an inode number. The clones of a disk use the same numbers. */
export type FileNumber = number;

/** Files and names. Every method is synchronous. */
export class SimulatedDisk {
  readonly #files = new Map<FileNumber, UnsyncedFile>();
  readonly #names = new Map<string, NameHistory>();
  #fileCount = 0;

  clone(): SimulatedDisk {
    const copy = new SimulatedDisk();
    for (const [number, file] of this.#files) copy.#files.set(number, file.clone());
    for (const [name, { durable, unsynced }] of this.#names)
      copy.#names.set(name, { durable, unsynced: [...unsynced] });
    copy.#fileCount = this.#fileCount;
    return copy;
  }

  /** Returns the file that `name` refers to, if any. */
  find(name: string): FileNumber | undefined {
    const history = this.#names.get(name);
    return history?.unsynced.length ? history.unsynced.at(-1) : history?.durable;
  }

  /** Returns the file with this number, which may have lost its name. */
  file(number: FileNumber): UnsyncedFile {
    return this.#files.get(number)!;
  }

  create(name: string): FileNumber {
    const number = this.#fileCount++;
    this.#files.set(number, new UnsyncedFile());
    this.#setName(name, number);
    return number;
  }

  remove(name: string): void {
    if (this.find(name) !== undefined) this.#setName(name, undefined);
  }

  /** Makes durable that `name` refers, or once referred, to this file. Later changes of the name stay unsynced. */
  syncName(name: string, number: FileNumber): void {
    const history = this.#names.get(name)!;
    const at = history.unsynced.indexOf(number);
    if (at === -1) return;
    history.durable = number;
    history.unsynced.splice(0, at + 1);
  }

  /** Makes `name` refer, durably, to a copy of the file that it refers to in `earlier`, or to none. */
  putBack(name: string, earlier: SimulatedDisk): void {
    const number = earlier.find(name);
    this.#names.delete(name);
    if (number === undefined) return;
    const copy = this.#fileCount++;
    this.#files.set(copy, UnsyncedFile.durable(earlier.file(number).live.clone()));
    this.#names.set(name, { durable: copy, unsynced: [] });
  }

  /** Bytes that all files with a name allocate. */
  get allocatedBytes(): number {
    let sum = 0;
    for (const name of this.#names.keys()) {
      const number = this.find(name);
      if (number !== undefined) sum += this.file(number).live.allocatedBytes;
    }
    return sum;
  }

  /**
   * Returns the disk after a power cut. Each name refers to any of its files since it was durable; unsynced-file.ts
   * says what a file holds.
   */
  afterPowerCut(random: Random): SimulatedDisk {
    const after = new SimulatedDisk();
    const pick = picker(random);
    for (const [name, { durable, unsynced }] of this.#names) {
      const number = [durable, ...unsynced][pick(unsynced.length)];
      if (number === undefined) continue;
      after.#files.set(after.#fileCount, UnsyncedFile.durable(this.file(number).afterPowerCut(random)));
      after.#names.set(name, { durable: after.#fileCount++, unsynced: [] });
    }
    return after;
  }

  #setName(name: string, number: FileNumber | undefined): void {
    const history = this.#names.get(name);
    if (history === undefined) this.#names.set(name, { durable: undefined, unsynced: [number] });
    else history.unsynced.push(number);
  }
}
