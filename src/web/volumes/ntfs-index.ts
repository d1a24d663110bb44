/**
 * The index of a directory of NTFS: a B+ tree of file names, whose root is in the file record. Each block is read once
 * at most, so a tree with a cycle ends.
 */

import { u64, utf16, VolumeError, viewOf } from './bytes.ts';
import { ClusterMap, type Mft, type NtfsFile } from './ntfs-mft.ts';
import { ATTRIBUTE, referenceOf, STRIDE_BYTES, unprotect } from './ntfs-record.ts';

const NAME = '$I30';
const MAX_ROOT_BYTES = 2 ** 16;
/** Far above the blocks of an ordinary directory. */
const MAX_BLOCKS = 20_000;
const BLOCK_HEADER_BYTES = 24;
const ENTRY_HEADER_BYTES = 16;
const NAME_HEADER_BYTES = 66;
const FLAG = { hasChild: 1, isLast: 2 } as const;
/** Names of eight and three characters, for programs of DOS. Each of these files has a long name too. */
const DOS_NAMES = 2;
/** 1970 in ms since 1601. */
const EPOCH_MS = 11_644_473_600_000;

/** What a directory says of a file. The sizes of a file with several names may be old. */
export interface IndexedName {
  readonly record: number;
  readonly name: string;
  readonly size: number | undefined;
  readonly modifiedMs: number | undefined;
  readonly flags: number;
  readonly reparseTag: number;
}

interface IndexEntry {
  readonly child: number | undefined;
  readonly name: IndexedName | undefined;
}

/** Walks through the names of a directory in their order. */
export class DirectoryIndex {
  /** Blocks that were left out because they are damaged. */
  damagedBlocks = 0;
  readonly #mft: Mft;
  readonly #file: NtfsFile;

  constructor(mft: Mft, file: NtfsFile) {
    this.#mft = mft;
    this.#file = file;
  }

  /** @throws {@link VolumeError} when the root of the index is damaged; the signal's reason. */
  async *names(signal?: AbortSignal): AsyncGenerator<IndexedName> {
    const attribute = await this.#file.attribute(ATTRIBUTE.indexRoot, NAME, signal);
    if (attribute === undefined) throw new VolumeError('this directory has no index');
    const root = await this.#file.value(attribute, MAX_ROOT_BYTES, signal);
    const blockBytes = root.length < 32 ? 0 : viewOf(root).getUint32(8, true);
    if (blockBytes < STRIDE_BYTES || blockBytes > 2 ** 16 || (blockBytes & (blockBytes - 1)) !== 0)
      throw new VolumeError('the index of this directory is damaged');
    const read = this.#blocks(blockBytes);
    const waiting = entriesOf(root.subarray(16)).reverse();
    for (let entry = waiting.pop(); entry !== undefined; entry = waiting.pop()) {
      if (entry.child !== undefined) {
        waiting.push({ child: undefined, name: entry.name });
        waiting.push(...(await read(entry.child, signal)).reverse());
      } else if (entry.name !== undefined) yield entry.name;
    }
  }

  /** Returns a function that reads the entries of a block: none if the block is damaged or was read before. */
  #blocks(blockBytes: number): (block: number, signal?: AbortSignal) => Promise<IndexEntry[]> {
    const { clusterBytes } = this.#mft.layout;
    const unitBytes = blockBytes >= clusterBytes ? clusterBytes : STRIDE_BYTES;
    const seen = new Set<number>();
    let map: ClusterMap | undefined;
    return async (block, signal) => {
      try {
        if (seen.has(block) || seen.size === MAX_BLOCKS)
          throw new VolumeError('the index of this directory is damaged');
        seen.add(block);
        map ??= await this.#map(signal);
        const raw = await map.read(block * unitBytes, blockBytes, signal);
        unprotect(raw, 'INDX', `block ${block} of this directory`);
        return entriesOf(raw.subarray(BLOCK_HEADER_BYTES));
      } catch (error) {
        if (!(error instanceof VolumeError)) throw error;
        this.damagedBlocks++;
        return [];
      }
    };
  }

  async #map(signal: AbortSignal | undefined): Promise<ClusterMap> {
    const map = new ClusterMap(this.#mft.bytes, this.#mft.layout.clusterBytes);
    for await (const extent of this.#file.extents(ATTRIBUTE.indexAllocation, NAME, signal)) map.add(extent);
    return map;
  }
}

/** Reads the entries of a node, which begins with the place of its first entry and its length. */
function entriesOf(node: Uint8Array): IndexEntry[] {
  const view = viewOf(node);
  const end = view.getUint32(4, true);
  const entries: IndexEntry[] = [];
  for (let at = view.getUint32(0, true); ; ) {
    const length = at + ENTRY_HEADER_BYTES <= end && end <= node.length ? view.getUint16(at + 8, true) : 0;
    const flags = length === 0 ? 0 : view.getUint16(at + 12, true);
    const childBytes = flags & FLAG.hasChild ? 8 : 0;
    if (length < ENTRY_HEADER_BYTES + childBytes || length % 8 !== 0 || length > end - at)
      throw new VolumeError('the index of this directory is damaged');
    const isLast = (flags & FLAG.isLast) !== 0;
    entries.push({
      child: childBytes === 0 ? undefined : u64(view, at + length - 8),
      name: isLast ? undefined : nameOf(node.subarray(at, at + length - childBytes)),
    });
    if (isLast) return entries;
    at += length;
  }
}

/** Reads the name of an entry. Returns `undefined` for a name of DOS. */
function nameOf(raw: Uint8Array): IndexedName | undefined {
  const view = viewOf(raw);
  const key = ENTRY_HEADER_BYTES;
  const nameAt = key + NAME_HEADER_BYTES;
  const nameBytes = raw.length < nameAt ? 0 : raw[key + 64]! * 2;
  if (nameBytes === 0 || nameAt + nameBytes > raw.length)
    throw new VolumeError('the index of this directory is damaged');
  if (raw[key + 65] === DOS_NAMES) return undefined;
  return {
    record: referenceOf(view, 0),
    name: utf16(raw.subarray(nameAt, nameAt + nameBytes)),
    size: view.getUint32(key + 52, true) < 2 ** 21 ? u64(view, key + 48) : undefined,
    modifiedMs: timeOf(view, key + 16),
    flags: view.getUint32(key + 56, true),
    reparseTag: view.getUint32(key + 60, true),
  };
}

/** Converts a time in 100 ns since 1601. */
export function timeOf(view: DataView, at: number): number | undefined {
  const ticks = view.getBigUint64(at, true);
  return ticks === 0n ? undefined : Number(ticks / 10_000n) - EPOCH_MS;
}
