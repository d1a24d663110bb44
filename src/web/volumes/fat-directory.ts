/** A directory of FAT for writing: its entries, and the writes that add one. */

import { VolumeError, viewOf } from './bytes.ts';
import { ATTRIBUTE, ENTRY_BYTES, LongName, MAX_DIRECTORY_BYTES, shortName } from './fat.ts';
import type { WritableBytes } from './writable.ts';

const DELETED = 0xe5;

export interface DirectoryEntry {
  readonly name: string;
  readonly shortName: string;
  readonly attributes: number;
  readonly cluster: number;
  readonly size: number;
  /** Offset of the short entry in the volume. */
  readonly offset: number;
  /** The bytes of the short entry. */
  readonly raw: Uint8Array;
}

/** A write to the volume. */
export interface Write {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/** What adds an entry. */
export interface Addition {
  /** Writes in order. Without growth, the last of them makes the entry visible. */
  readonly writes: readonly Write[];
  /** The contents of new clusters. The entry becomes visible when they are linked to the directory. */
  readonly grownBytes?: Uint8Array;
}

/** A cluster of a directory, or the whole of a root directory that is no chain. */
interface Piece {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

export class Directory {
  readonly entries: readonly DirectoryEntry[];
  /** The last cluster. `undefined` for a root directory that is no chain. */
  readonly lastCluster: number | undefined;
  readonly #pieces: readonly Piece[];
  /** The slot of the mark that ends the directory, counted over all pieces. */
  readonly #endSlot: number;

  constructor(pieces: readonly Piece[], lastCluster: number | undefined, isFat32: boolean) {
    this.#pieces = pieces;
    this.lastCluster = lastCluster;
    const { entries, endSlot } = parse(pieces, isFat32);
    this.entries = entries;
    this.#endSlot = endSlot;
  }

  static async read(
    bytes: WritableBytes,
    places: readonly { readonly offset: number; readonly length: number }[],
    options: { lastCluster: number | undefined; isFat32: boolean; signal?: AbortSignal | undefined },
  ): Promise<Directory> {
    const pieces: Piece[] = [];
    for (const { offset, length } of places)
      pieces.push({ offset, bytes: await bytes.read(offset, length, options.signal) });
    return new Directory(pieces, options.lastCluster, options.isFat32);
  }

  /** Returns the entry with this long or short name, in any case. */
  find(name: string): DirectoryEntry | undefined {
    const wanted = name.toUpperCase();
    return (
      this.entries.find((entry) => entry.name.toUpperCase() === wanted) ??
      this.entries.find((entry) => entry.shortName.toUpperCase() === wanted)
    );
  }

  /**
   * Plans how to add the entries of one name. They stay within one cluster, or fill new clusters, so that one write
   * makes them visible.
   * @throws {@link VolumeError} when the directory cannot grow.
   */
  plan(added: Uint8Array): Addition {
    const needed = added.length / ENTRY_BYTES;
    for (const [index, { bytes }] of this.#pieces.entries()) {
      const slots = bytes.length / ENTRY_BYTES;
      let free = 0;
      for (let slot = 0; slot < slots; slot++) {
        free = this.#isFree(index, slot) ? free + 1 : 0;
        if (free === needed) return { writes: this.#placed(index, slot - needed + 1, added) };
      }
    }
    return this.#grown(added);
  }

  /** Returns the writes that place entries into free slots. */
  #placed(index: number, slot: number, added: Uint8Array): Write[] {
    const { offset, bytes } = this.#pieces[index]!;
    const slots = bytes.length / ENTRY_BYTES;
    const after = slot + added.length / ENTRY_BYTES;
    const writes: Write[] = [];
    let own = added;
    if (index * slots + after > this.#endSlot) {
      // The entries move the end of the directory. What follows may be garbage until it is marked as the end.
      const next = this.#pieces[index + 1];
      if (after < slots) own = joined(added, new Uint8Array(ENTRY_BYTES));
      else if (next !== undefined) writes.push({ offset: next.offset, bytes: new Uint8Array(ENTRY_BYTES) });
    }
    return [...writes, { offset: offset + slot * ENTRY_BYTES, bytes: own }, ...this.#filled(index * slots + slot)];
  }

  /** Returns the writes that grow the directory, and the contents of its new clusters. */
  #grown(added: Uint8Array): Addition {
    const pieceBytes = this.#pieces[0]!.bytes.length;
    const slots = pieceBytes / ENTRY_BYTES;
    if (this.lastCluster === undefined)
      throw new VolumeError(`the root directory is full: it has room for ${slots} entries, and cannot grow`);
    const grownBytes = joined(added, new Uint8Array(pieceBytes - 1 - ((added.length + pieceBytes - 1) % pieceBytes)));
    if (this.#pieces.length * pieceBytes + grownBytes.length > MAX_DIRECTORY_BYTES)
      throw new VolumeError(`the directory is full: it has ${this.#pieces.length * slots} entries`);
    return { writes: this.#filled(this.#pieces.length * slots), grownBytes };
  }

  /** Marks the slots from the end of the directory up to `slot` as deleted, the last first. */
  #filled(slot: number): Write[] {
    const writes: Write[] = [];
    for (let index = this.#pieces.length - 1; index >= 0; index--) {
      const { offset, bytes } = this.#pieces[index]!;
      const slots = bytes.length / ENTRY_BYTES;
      const from = Math.max(0, this.#endSlot - index * slots);
      const to = Math.min(slots, slot - index * slots);
      if (from >= to) continue;
      const marks = new Uint8Array((to - from) * ENTRY_BYTES);
      for (let at = 0; at < marks.length; at += ENTRY_BYTES) marks[at] = DELETED;
      writes.push({ offset: offset + from * ENTRY_BYTES, bytes: marks });
    }
    return writes;
  }

  #isFree(index: number, slot: number): boolean {
    const { bytes } = this.#pieces[index]!;
    const global = (index * bytes.length) / ENTRY_BYTES + slot;
    return global >= this.#endSlot || bytes[slot * ENTRY_BYTES] === DELETED;
  }
}

function parse(pieces: readonly Piece[], isFat32: boolean): { entries: DirectoryEntry[]; endSlot: number } {
  const entries: DirectoryEntry[] = [];
  const names = new LongName();
  let slot = 0;
  for (const { offset, bytes } of pieces) {
    for (let at = 0; at < bytes.length; at += ENTRY_BYTES, slot++) {
      const raw = bytes.slice(at, at + ENTRY_BYTES);
      const attributes = raw[11]!;
      if (raw[0] === 0) return { entries, endSlot: slot };
      if (raw[0] === DELETED) names.clear();
      else if ((attributes & 0x3f) === ATTRIBUTE.longName) names.add(raw);
      else {
        const view = viewOf(raw);
        const long = names.take(raw);
        const cluster = view.getUint16(26, true) + (isFat32 ? view.getUint16(20, true) * 2 ** 16 : 0);
        // The label of a volume is no name.
        if (attributes & ATTRIBUTE.volumeLabel) continue;
        const short = shortName(raw);
        const size = view.getUint32(28, true);
        entries.push({ name: long ?? short, shortName: short, attributes, cluster, size, offset: offset + at, raw });
      }
    }
  }
  return { entries, endSlot: slot };
}

function joined(a: Uint8Array, b: Uint8Array): Uint8Array {
  const all = new Uint8Array(a.length + b.length);
  all.set(a);
  all.set(b, a.length);
  return all;
}
