/**
 * Reads ext2, ext3 and ext4: superblock, groups and directories. Source: the kernel's documentation
 * (Documentation/filesystems/ext4).
 */

import { type Bytes, remembered, text, VolumeError, viewOf } from './bytes.ts';
import { FILE_TYPE, INODE_FLAG, Inode } from './ext-inode.ts';
import {
  type Entry,
  type EntryKind,
  type FileInfo,
  type Listing,
  MAX_ENTRIES,
  readFile,
  type Volume,
} from './volume.ts';

const SUPERBLOCK_AT = 1024;
const MAGIC = 0xef53;
const ROOT_INODE = 2;
/** Far above the size of an ordinary directory. */
const MAX_DIRECTORY_BYTES = 2 ** 26;
const MAX_LINK_BYTES = 4096;

const COMPATIBLE_JOURNAL = 0x4;
const INCOMPATIBLE = {
  fileType: 0x2,
  recover: 0x4,
  metaGroups: 0x10,
  extents: 0x40,
  bits64: 0x80,
  flexGroups: 0x200,
} as const;
/**
 * The features that this reader handles or may ignore. Beyond {@link INCOMPATIBLE} these are: mmp, attribute values in
 * inodes, checksum seeds, large directories, inline data, encryption, case folding.
 */
const UNDERSTOOD =
  0x2 | 0x4 | 0x10 | 0x40 | 0x80 | 0x100 | 0x200 | 0x400 | 0x2000 | 0x4000 | 0x8000 | 0x10000 | 0x20000;

interface Layout {
  readonly kind: string;
  readonly label: string;
  readonly blockBytes: number;
  readonly blockCount: number;
  readonly firstDataBlock: number;
  readonly blocksPerGroup: number;
  readonly inodesPerGroup: number;
  readonly inodeCount: number;
  readonly inodeBytes: number;
  readonly descriptorBytes: number;
  /** The first group whose descriptors are stored with the groups. Those of earlier groups are stored together. */
  readonly firstMetaGroup: number;
  readonly sparseSuper: boolean;
  readonly hasFileTypes: boolean;
  readonly needsRecovery: boolean;
}

/**
 * Opens the volume in `bytes`. Returns `undefined` if there is no ext superblock.
 * @throws {@link VolumeError} when the superblock is damaged or names unknown features.
 */
export async function openExt(bytes: Bytes, signal?: AbortSignal): Promise<Volume | undefined> {
  if (bytes.size < SUPERBLOCK_AT + 1024) return undefined;
  const superblock = await bytes.read(SUPERBLOCK_AT, 1024, signal);
  if (viewOf(superblock).getUint16(56, true) !== MAGIC) return undefined;
  return new ExtVolume(bytes, layoutOf(superblock));
}

function layoutOf(superblock: Uint8Array): Layout {
  const view = viewOf(superblock);
  const u16 = (at: number): number => view.getUint16(at, true);
  const u32 = (at: number): number => view.getUint32(at, true);
  const revision = u32(76);
  const [compatible, incompatible, readOnly] = revision === 0 ? [0, 0, 0] : [u32(92), u32(96), u32(100)];
  const unknown = incompatible & ~UNDERSTOOD;
  if (unknown !== 0) throw new VolumeError(`this ext volume has unknown features: 0x${(unknown >>> 0).toString(16)}`);
  const has = (feature: number): boolean => (incompatible & feature) !== 0;
  const descriptorBytes = has(INCOMPATIBLE.bits64) ? u16(254) : 32;
  const layout: Layout = {
    kind: has(INCOMPATIBLE.extents | INCOMPATIBLE.bits64 | INCOMPATIBLE.flexGroups)
      ? 'ext4'
      : compatible & COMPATIBLE_JOURNAL
        ? 'ext3'
        : 'ext2',
    label: text(superblock.subarray(120, 136)),
    blockBytes: u32(24) > 6 ? 0 : 1024 << u32(24),
    blockCount: u32(4) + (has(INCOMPATIBLE.bits64) ? u32(336) * 2 ** 32 : 0),
    firstDataBlock: u32(20),
    blocksPerGroup: u32(32),
    inodesPerGroup: u32(40),
    inodeCount: u32(0),
    inodeBytes: revision === 0 ? 128 : u16(88),
    descriptorBytes,
    firstMetaGroup: has(INCOMPATIBLE.metaGroups) ? u32(260) : Number.POSITIVE_INFINITY,
    sparseSuper: (readOnly & 1) !== 0,
    hasFileTypes: has(INCOMPATIBLE.fileType),
    needsRecovery: has(INCOMPATIBLE.recover),
  };
  const { blockBytes, inodeBytes } = layout;
  const sound =
    blockBytes > 0 &&
    inodeBytes >= 128 &&
    inodeBytes <= blockBytes &&
    (inodeBytes & (inodeBytes - 1)) === 0 &&
    descriptorBytes >= 32 &&
    descriptorBytes <= 1024 &&
    layout.inodesPerGroup > 0 &&
    layout.blocksPerGroup > 0 &&
    layout.firstDataBlock <= 1;
  if (!sound) throw new VolumeError('the superblock of this ext volume is damaged');
  return layout;
}

class ExtVolume implements Volume {
  readonly kind: string;
  readonly label: string;
  readonly remark: string | undefined;
  readonly bytes: Bytes;
  readonly root: Entry = { name: '', kind: 'directory', size: undefined, modifiedMs: undefined, id: ROOT_INODE };
  readonly #layout: Layout;
  readonly #tables: Bytes;

  constructor(bytes: Bytes, layout: Layout) {
    this.bytes = bytes;
    this.#layout = layout;
    this.#tables = remembered(bytes);
    this.kind = layout.kind;
    this.label = layout.label;
    this.remark = layout.needsRecovery
      ? 'not unmounted: the journal is not replayed here, so the last changes may be missing'
      : undefined;
  }

  async list(directory: Entry, signal?: AbortSignal): Promise<Listing> {
    const inode = await this.#inode(directory.id, signal);
    if (inode.type !== FILE_TYPE.directory) throw new VolumeError(`inode ${directory.id} is not a directory`);
    if (inode.flags & INODE_FLAG.encrypted) throw new VolumeError('this directory is encrypted');
    const { blockBytes } = this.#layout;
    const entries: Entry[] = [];
    const range = { from: 0, to: Math.min(inode.size, MAX_DIRECTORY_BYTES) };
    for await (const block of readFile(this, inode.file(), range, {
      pieceBytes: blockBytes,
      ...(signal === undefined ? {} : { signal }),
    })) {
      const view = viewOf(block);
      for (let at = 0; at + 8 <= block.length; ) {
        const id = view.getUint32(at, true);
        // With blocks of 64 KiB a length may exceed 16 bits. 65535 and 0 then mean the rest of the block.
        const stored = view.getUint16(at + 4, true);
        const length = blockBytes === 65_536 && (stored === 65_535 || stored === 0) ? block.length - at : stored;
        const nameBytes = this.#layout.hasFileTypes ? block[at + 6]! : view.getUint16(at + 6, true);
        if (length < 8 || length % 4 !== 0 || at + length > block.length || nameBytes > length - 8) {
          throw new VolumeError('this directory is damaged');
        }
        const raw = block.subarray(at + 8, at + 8 + nameBytes);
        const type = this.#layout.hasFileTypes ? block[at + 7]! : 0;
        at += length;
        // A checksum tail looks like an entry without inode. Inner nodes of an index look the same.
        if (
          id === 0 ||
          nameBytes === 0 ||
          (raw[0] === 0x2e && (nameBytes === 1 || (nameBytes === 2 && raw[1] === 0x2e)))
        )
          continue;
        if (entries.length === MAX_ENTRIES) return { entries, cut: true };
        entries.push({
          name: new TextDecoder().decode(raw),
          kind: await this.#kind(type, id, signal),
          size: undefined,
          modifiedMs: undefined,
          id,
        });
      }
    }
    return { entries, cut: inode.size > MAX_DIRECTORY_BYTES };
  }

  async look(entry: Entry, signal?: AbortSignal): Promise<FileInfo> {
    const inode = await this.#inode(entry.id, signal);
    const file = inode.file();
    if (inode.type === FILE_TYPE.file) {
      if (inode.flags & INODE_FLAG.encrypted) throw new VolumeError('this file is encrypted');
      return file;
    }
    if (inode.type !== FILE_TYPE.link) return { ...file, size: 0, runs: nothing };
    let target = '';
    const decoder = new TextDecoder();
    for await (const piece of readFile(
      this,
      file,
      { from: 0, to: MAX_LINK_BYTES },
      signal === undefined ? {} : { signal },
    )) {
      target += decoder.decode(piece, { stream: true });
    }
    return { ...file, linkTarget: target };
  }

  /** Returns the kind that the directory names. A directory without kinds needs the inode. */
  async #kind(type: number, id: number, signal: AbortSignal | undefined): Promise<EntryKind> {
    const inodeType =
      type === 0
        ? (await this.#inode(id, signal)).type
        : [0, FILE_TYPE.file, FILE_TYPE.directory, 0, 0, 0, 0, FILE_TYPE.link][type];
    if (inodeType === FILE_TYPE.directory) return 'directory';
    if (inodeType === FILE_TYPE.file) return 'file';
    return inodeType === FILE_TYPE.link ? 'link' : 'other';
  }

  async #inode(number: number, signal: AbortSignal | undefined): Promise<Inode> {
    const { inodeCount, inodesPerGroup, inodeBytes, blockBytes } = this.#layout;
    if (number < 1 || number > inodeCount) throw new VolumeError(`inode ${number} does not exist`);
    const group = Math.floor((number - 1) / inodesPerGroup);
    const table = await this.#inodeTable(group, signal);
    const raw = await this.#tables.read(
      table * blockBytes + ((number - 1) % inodesPerGroup) * inodeBytes,
      inodeBytes,
      signal,
    );
    return new Inode(raw, { bytes: this.#tables, blockBytes, blockCount: this.#layout.blockCount });
  }

  /** Returns the first block of a group's inode table. */
  async #inodeTable(group: number, signal: AbortSignal | undefined): Promise<number> {
    const { blockBytes, descriptorBytes, firstDataBlock, firstMetaGroup, blocksPerGroup } = this.#layout;
    const perBlock = Math.floor(blockBytes / descriptorBytes);
    const metaGroup = Math.floor(group / perBlock);
    // The descriptors follow the superblock. With blocks of 1 KiB it is in block 1, even if the first data block is 0.
    const superblock = Math.floor(SUPERBLOCK_AT / blockBytes);
    let block = superblock + 1 + metaGroup;
    if (metaGroup >= firstMetaGroup && metaGroup > 0) {
      const first = metaGroup * perBlock;
      block = first * blocksPerGroup + firstDataBlock + (this.#hasSuperblock(first) ? 1 : 0);
    }
    const view = viewOf(
      await this.#tables.read(block * blockBytes + (group % perBlock) * descriptorBytes, descriptorBytes, signal),
    );
    return view.getUint32(8, true) + (descriptorBytes >= 64 ? view.getUint32(40, true) * 2 ** 32 : 0);
  }

  #hasSuperblock(group: number): boolean {
    if (!this.#layout.sparseSuper || group <= 1) return true;
    return [3, 5, 7].some((base) => {
      let power = base;
      while (power < group) power *= base;
      return power === group;
    });
  }
}

async function* nothing(): AsyncGenerator<never> {
  // Devices and sockets have no contents.
}
