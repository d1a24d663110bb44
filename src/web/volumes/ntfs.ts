/** Reads NTFS: its boot sector, directories and files. Source: as in ntfs-record.ts. */

import { type Bytes, remembered, text, u64, utf16, VolumeError, viewOf } from './bytes.ts';
import { readCompressed } from './ntfs-compressed.ts';
import { DirectoryIndex, type IndexedName, timeOf } from './ntfs-index.ts';
import { Mft, type NtfsFile, type NtfsLayout } from './ntfs-mft.ts';
import { ATTRIBUTE, type Attribute, type Extent } from './ntfs-record.ts';
import { isLinkTag, linkTarget, refusalOf } from './ntfs-reparse.ts';
import { labelOf, remarkOf } from './ntfs-state.ts';
import {
  type Entry,
  type FileInfo,
  type Listing,
  MAX_ENTRIES,
  type Run,
  Runs,
  readPart,
  type Volume,
} from './volume.ts';

const ROOT_RECORD = 5;
/** The records before this one are the volume's own tables, which the root directory lists as files. */
const FIRST_USER_RECORD = 16;
const MAX_REPARSE_BYTES = 2 ** 14;
/** Attributes of a file, in directories and in its record. */
const FLAG = { system: 0x4, reparsePoint: 0x400, directory: 0x1000_0000 } as const;
/** Contents that only a service of Windows can bring: offline, or recalled at the opening or at the access. */
const ELSEWHERE = 0x1000 | 0x4_0000 | 0x40_0000;
/** Interix and ntfs-3g write a symbolic link as a system file that begins with this mark. */
const INTERIX_MARK = 'IntxLNK\u0001';
const MAX_INTERIX_BYTES = 2 ** 13;

/**
 * Opens the volume in `bytes`. Returns `undefined` if its boot sector is not that of an NTFS volume.
 * @throws {@link VolumeError} when the boot sector or the master file table is damaged.
 */
export async function openNtfs(bytes: Bytes, signal?: AbortSignal): Promise<Volume | undefined> {
  if (bytes.size < 512) return undefined;
  const sector = await bytes.read(0, 512, signal);
  if (text(sector.subarray(3, 11)) !== 'NTFS    ') return undefined;
  const mft = new Mft(remembered(bytes), layoutOf(sector, bytes.size));
  await mft.open(signal);
  const volume = new NtfsVolume(bytes, mft, await labelOf(mft, signal));
  volume.remark = await remarkOf(mft, volume, signal);
  return volume;
}

function layoutOf(sector: Uint8Array, size: number): NtfsLayout {
  const view = viewOf(sector);
  const sectorBytes = view.getUint16(11, true);
  // Above 128, the byte is the negative of a power of two.
  const sectorsPerCluster = sector[13]! > 0x80 ? 2 ** (256 - sector[13]!) : sector[13]!;
  const clusterBytes = sectorBytes * sectorsPerCluster;
  const perRecord = view.getInt8(64);
  const recordBytes = perRecord < 0 ? 2 ** -perRecord : perRecord * clusterBytes;
  const isPower = (value: number, from: number, to: number): boolean =>
    value >= from && value <= to && (value & (value - 1)) === 0;
  if (!isPower(sectorBytes, 256, 4096) || !isPower(clusterBytes, 256, 2 ** 21) || !isPower(recordBytes, 512, 2 ** 16))
    throw new VolumeError('the boot sector of this NTFS volume is damaged');
  return {
    clusterBytes,
    clusterCount: Math.min(Math.floor(u64(view, 40) / sectorsPerCluster), Math.ceil(size / clusterBytes)),
    recordBytes,
    mftCluster: u64(view, 48),
  };
}

class NtfsVolume implements Volume {
  readonly kind = 'NTFS';
  readonly label: string;
  remark: string | undefined;
  readonly bytes: Bytes;
  readonly root: Entry = { name: '', kind: 'directory', size: undefined, modifiedMs: undefined, id: ROOT_RECORD };
  readonly #mft: Mft;

  constructor(bytes: Bytes, mft: Mft, label: string) {
    this.bytes = bytes;
    this.#mft = mft;
    this.label = label;
  }

  async list(directory: Entry, signal?: AbortSignal): Promise<Listing> {
    const file = await this.#mft.file(directory.id, signal);
    if (!file.isDirectory) throw new VolumeError(`file record ${directory.id} is not a directory`);
    const index = new DirectoryIndex(this.#mft, file);
    const entries: Entry[] = [];
    let cut = false;
    for await (const found of index.names(signal)) {
      if (found.record < FIRST_USER_RECORD) continue;
      cut = entries.length === MAX_ENTRIES;
      if (cut) break;
      entries.push(entryOf(found));
    }
    const { damagedBlocks: count } = index;
    return {
      entries,
      cut,
      ...(count > 0 ? { remark: `left out: ${count} damaged ${count === 1 ? 'block' : 'blocks'} of the index` } : {}),
    };
  }

  async look(entry: Entry, signal?: AbortSignal): Promise<FileInfo> {
    const file = await this.#mft.file(entry.id, signal);
    const { flags, modifiedMs } = await factsOf(file, signal);
    const reparse = await file.attribute(ATTRIBUTE.reparsePoint, '', signal);
    if (reparse !== undefined) {
      const raw = await file.value(reparse, MAX_REPARSE_BYTES, signal);
      const target = linkTarget(raw);
      if (target !== undefined) return { size: 0, modifiedMs, linkTarget: target, runs: nothing };
      const refusal = refusalOf(raw);
      if (refusal !== undefined) throw new VolumeError(refusal);
    }
    if (flags & ELSEWHERE)
      throw new VolumeError('the contents of this file are not on the disk but in another storage');
    const data = await file.attribute(ATTRIBUTE.data, '', signal);
    if (data === undefined) return { size: 0, modifiedMs, runs: nothing };
    const info = { ...this.#contents(file, data), modifiedMs };
    const mayBeLink = (flags & FLAG.system) !== 0 && info.size > INTERIX_MARK.length && info.size <= MAX_INTERIX_BYTES;
    if (!mayBeLink) return info;
    const raw = await readPart(this, info, { from: 0, to: info.size }, signal);
    if (new TextDecoder('latin1').decode(raw.subarray(0, INTERIX_MARK.length)) !== INTERIX_MARK) return info;
    return { ...info, linkTarget: utf16(raw.subarray(INTERIX_MARK.length)) };
  }

  #contents(file: NtfsFile, { value, isCompressed, isEncrypted }: Attribute): Omit<FileInfo, 'modifiedMs'> {
    if (isEncrypted) throw new VolumeError('this file is encrypted');
    if (value instanceof Uint8Array) return { size: value.length, inline: value, runs: nothing };
    const { size, writtenBytes, unitClusters } = value;
    const { bytes } = this;
    const { clusterBytes } = this.#mft.layout;
    const extents = (signal?: AbortSignal): AsyncIterable<Extent> => file.extents(ATTRIBUTE.data, '', signal);
    return {
      size,
      runs: (signal) => runsOf(extents(signal), { clusterBytes, size, writtenBytes }),
      ...(isCompressed && {
        unpack: (range, signal) =>
          readCompressed({ bytes, clusterBytes, unitClusters, writtenBytes, extents }, range, signal),
      }),
    };
  }
}

/** Converts extents into runs of bytes, which cover the file's size. */
async function* runsOf(
  extents: AsyncIterable<Extent>,
  { clusterBytes, size, writtenBytes }: { clusterBytes: number; size: number; writtenBytes: number },
): AsyncGenerator<Run> {
  const runs = new Runs();
  let at = 0;
  for await (const { lcn, count } of extents) {
    const length = Math.min(count * clusterBytes, writtenBytes - at);
    if (length === 0) break;
    const run = runs.add(lcn === undefined ? undefined : lcn * clusterBytes, length);
    if (run !== undefined) yield run;
    at += length;
  }
  if (at < writtenBytes) throw new VolumeError(`the file ends after ${at} of its ${size} bytes`);
  const run = at < size ? runs.add(undefined, size - at) : undefined;
  if (run !== undefined) yield run;
  const last = runs.end();
  if (last !== undefined) yield last;
}

function entryOf({ record, name, size, modifiedMs, flags, reparseTag }: IndexedName): Entry {
  const isLink = flags & FLAG.reparsePoint && isLinkTag(reparseTag);
  const kind = isLink ? 'link' : flags & FLAG.directory ? 'directory' : 'file';
  return { name, kind, size: kind === 'file' ? size : undefined, modifiedMs, id: record };
}

/** Reads the time of the last change and the flags, which are newer here than in directories. */
async function factsOf(
  file: NtfsFile,
  signal: AbortSignal | undefined,
): Promise<{ modifiedMs: number | undefined; flags: number }> {
  const found = await file.attribute(ATTRIBUTE.standardInformation, '', signal);
  if (!(found?.value instanceof Uint8Array) || found.value.length < 36) return { modifiedMs: undefined, flags: 0 };
  const view = viewOf(found.value);
  return { modifiedMs: timeOf(view, 8), flags: view.getUint32(32, true) };
}

async function* nothing(): AsyncGenerator<never> {
  // Contents in the file's record have no runs.
}
