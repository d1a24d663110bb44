/**
 * The four metadata files beside a target, by kind and slot. Names are fixed: a file is made once and never renamed.
 * Handles stay open, since a handle may be exclusive (OPFS).
 */

import { isCodError } from '../errors.ts';
import type { File, FileSystem } from '../fs/file-system.ts';

/** The kind of a metadata file: a checkpoint of the maps (`.bak`), or a write-intent log (`.wil`). */
export type FileKind = 'checkpoint' | 'log';
export type SlotIndex = 0 | 1;

/** Returns the slot of an epoch. */
export function slotOf(epoch: number): SlotIndex {
  return (epoch % 2) as SlotIndex;
}

/** Returns the name of a metadata file. */
export function slotName(target: string, kind: FileKind, slot: SlotIndex): string {
  return `${target}${kind === 'checkpoint' ? '.bak' : '.wil'}${slot === 1 ? '.1' : ''}`;
}

/** Every metadata file of a target, in the order in which a listing shows them. */
export const ALL_SLOTS: readonly { readonly kind: FileKind; readonly slot: SlotIndex }[] = [
  { kind: 'checkpoint', slot: 0 },
  { kind: 'checkpoint', slot: 1 },
  { kind: 'log', slot: 0 },
  { kind: 'log', slot: 1 },
];

/** Opens the metadata files on demand and keeps them open. */
export class Slots {
  readonly fileSystem: FileSystem;
  readonly target: string;
  readonly #open = new Map<string, File>();

  constructor(fileSystem: FileSystem, target: string) {
    this.fileSystem = fileSystem;
    this.target = target;
  }

  name(kind: FileKind, slot: SlotIndex): string {
    return slotName(this.target, kind, slot);
  }

  /** Returns the file, or undefined if it does not exist. */
  async find(kind: FileKind, slot: SlotIndex): Promise<File | undefined> {
    try {
      return await this.#get(kind, slot, false);
    } catch (error) {
      if (isCodError(error, 'COD_NOT_FOUND')) return undefined;
      throw error;
    }
  }

  /** Returns the file. Makes it if it does not exist. */
  make(kind: FileKind, slot: SlotIndex): Promise<File> {
    return this.#get(kind, slot, true);
  }

  async #get(kind: FileKind, slot: SlotIndex, create: boolean): Promise<File> {
    const name = this.name(kind, slot);
    const known = this.#open.get(name);
    if (known !== undefined) return known;
    const file = await this.fileSystem.open(name, { create });
    this.#open.set(name, file);
    return file;
  }

  /** Closes and removes a file. What it said must be void, durably, before. */
  async remove(kind: FileKind, slot: SlotIndex): Promise<void> {
    const name = this.name(kind, slot);
    await this.#open.get(name)?.close();
    this.#open.delete(name);
    await this.fileSystem.remove(name);
  }

  /** Voids and removes each file but one: logs first, so that no log is without its checkpoint. */
  async removeAllBut(kind: FileKind, slot: SlotIndex, sync: (file: File) => Promise<void>): Promise<void> {
    for (const other of [...ALL_SLOTS].reverse()) {
      if (other.kind === kind && other.slot === slot) continue;
      const file = await this.find(other.kind, other.slot);
      if (file === undefined) continue;
      await file.truncate(0);
      await sync(file);
      await this.remove(other.kind, other.slot);
    }
  }

  /** Closes every file, even if closing one of them fails. */
  async close(): Promise<void> {
    const files = [...this.#open.values()];
    this.#open.clear();
    const closed = await Promise.allSettled(files.map((file) => file.close()));
    for (const outcome of closed) if (outcome.status === 'rejected') throw outcome.reason;
  }
}
