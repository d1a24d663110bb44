/**
 * The four metadata files beside a target, by kind and slot. Names are fixed: a file is made once and never renamed.
 * Handles stay open, since a handle may be exclusive (OPFS).
 *
 * Invariant: a file of ours begins with the magic of its kind, durably, before anything is written behind its first
 * sector. So no other content is taken for ours ({@link claim}).
 */

import { claim } from '../core/headers.ts';
import { HEADER_BYTES } from '../core/layout.ts';
import { isCodError } from '../errors.ts';
import type { File, FileSystem } from '../fs/file-system.ts';
import type { Ownership } from './ownership.ts';

/** The kind of a metadata file: a checkpoint of the maps (`.bak`), or a write-intent log (`.wil`). */
export type FileKind = 'checkpoint' | 'log';
export type SlotIndex = 0 | 1;

const ZERO_BYTE = new Uint8Array(1);

/**
 * Voids the header of a file of either format, or of a new file. The last byte first: while other bytes change, no
 * header is committed.
 */
export async function voidHeader(file: File): Promise<void> {
  await file.write(ZERO_BYTE, HEADER_BYTES - 1);
}

/** Returns the bytes of a header, or all of a shorter file. */
export async function beginningOf(file: File): Promise<Uint8Array> {
  const bytes = new Uint8Array(Math.min(await file.size(), HEADER_BYTES));
  await file.read(bytes, 0);
  return bytes;
}

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
  readonly #readOnly: boolean;
  readonly #owner: Ownership | undefined;
  readonly #open = new Map<string, File>();
  /** The names that were missing. */
  readonly #missed = new Set<string>();
  /** The files that say durably that they are ours. */
  readonly #claimed = new WeakSet<File>();

  /**
   * @param options.readOnly nothing is changed. Default: false.
   * @param options.owner whose files these are
   */
  constructor(
    fileSystem: FileSystem,
    target: string,
    options: { readOnly: true; owner?: Ownership } | { readOnly?: boolean; owner: Ownership },
  ) {
    this.fileSystem = fileSystem;
    this.target = target;
    this.#readOnly = options.readOnly ?? false;
    this.#owner = options.owner;
  }

  name(kind: FileKind, slot: SlotIndex): string {
    return slotName(this.target, kind, slot);
  }

  /** Returns the file, or undefined if it does not exist. */
  async find(kind: FileKind, slot: SlotIndex): Promise<File | undefined> {
    const name = this.name(kind, slot);
    const known = this.#open.get(name);
    if (known !== undefined) return known;
    try {
      const file = await this.fileSystem.open(name, { noFollow: true, readOnly: this.#readOnly });
      this.#open.set(name, file);
      return file;
    } catch (error) {
      if (!isCodError(error, 'COD_NOT_FOUND')) throw error;
      this.#missed.add(name);
      return undefined;
    }
  }

  /** Returns whether any file that {@link find} has missed is there now. */
  async findMore(): Promise<boolean> {
    for (const { kind, slot } of ALL_SLOTS)
      if (this.#missed.has(this.name(kind, slot)) && (await this.find(kind, slot)) !== undefined) return true;
    return false;
  }

  /**
   * Returns the file of a slot that does not count: the one that recovery found, or a new one. The first call in each
   * life voids its header and claims the file, durably if it has nothing else.
   * @throws {@link CodError} COD_EXISTS if another program has made the file since recovery looked; COD_LOCKED if
   * another owner has taken over.
   */
  async make(kind: FileKind, slot: SlotIndex, sync: (file: File) => Promise<void>): Promise<File> {
    const name = this.name(kind, slot);
    let file = this.#open.get(name);
    if (file === undefined) {
      file = await this.fileSystem.open(name, { create: true, exclusive: true, mode: 0o600 });
      this.#open.set(name, file);
      // An owner that was replaced meanwhile leaves an empty file, which says nothing.
      await this.#owner?.fence();
    }
    if (this.#claimed.has(file)) return file;
    const isShort = (await file.size()) <= HEADER_BYTES;
    await voidHeader(file);
    await file.write(claim(kind), 0);
    // Whatever stands behind a first sector was written after the claim was durable.
    if (isShort) await sync(file);
    this.#claimed.add(file);
    return file;
  }

  /**
   * Closes and removes a file. What it said must be void, durably, before.
   * @throws {@link CodError} COD_LOCKED if another owner has taken over: its file stays.
   */
  async remove(kind: FileKind, slot: SlotIndex): Promise<void> {
    const name = this.name(kind, slot);
    await this.#open.get(name)?.close();
    this.#open.delete(name);
    await this.#owner!.remove(this.fileSystem, name);
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

  /** Syncs what was found. */
  async syncFound(sync: (file: File) => Promise<void>): Promise<void> {
    for (const file of this.#open.values()) await sync(file);
  }

  /** Closes and removes every file that is open, the last one first. */
  async removeOpen(): Promise<void> {
    for (const [name, file] of [...this.#open].reverse()) {
      await file.close();
      this.#open.delete(name);
      await this.fileSystem.remove(name);
    }
  }

  /** Closes every file, even if closing one of them fails. */
  async close(): Promise<void> {
    const files = [...this.#open.values()];
    this.#open.clear();
    this.#missed.clear();
    const closed = await Promise.allSettled(files.map((file) => file.close()));
    for (const outcome of closed) if (outcome.status === 'rejected') throw outcome.reason;
  }
}
