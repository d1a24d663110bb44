/** Names and the files that they stand for, each as the page cache has it: what is durable, and what was changed since. */

import type { Random } from './random.ts';
import { picker, UnsyncedFile } from './unsynced-file.ts';

/** What a name has stood for: a file, or none. */
interface NameHistory {
  durable: FileNumber | undefined;
  unsynced: (FileNumber | undefined)[];
}

/** Names a file for as long as it exists, as an inode's number does; the copies of a disk agree on it. */
export type FileNumber = number;

/** Files and names; does what it is told at once. */
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

  /** The file that `name` stands for. */
  find(name: string): FileNumber | undefined {
    const history = this.#names.get(name);
    return history?.unsynced.length ? history.unsynced.at(-1) : history?.durable;
  }

  /** The file of that number, which may have lost its name. */
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

  /** Makes it durable that `name` stands or stood for that file; not what came after. */
  syncName(name: string, number: FileNumber): void {
    const history = this.#names.get(name)!;
    const at = history.unsynced.indexOf(number);
    if (at === -1) return;
    history.durable = number;
    history.unsynced.splice(0, at + 1);
  }

  /** What the files that have a name take. */
  get allocatedBytes(): number {
    let sum = 0;
    for (const name of this.#names.keys()) {
      const number = this.find(name);
      if (number !== undefined) sum += this.file(number).live.allocatedBytes;
    }
    return sum;
  }

  /** What is found after a power cut: for each name any of what it stood for since it was durable, for each file see unsynced-file.ts. */
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
