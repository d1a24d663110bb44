/**
 * Reads ISO 9660, as on CDs and in installation images, with the long names of Rock Ridge or Joliet. Sources: ECMA-119,
 * and Microsoft's Joliet specification.
 */

import { type Bytes, remembered, VolumeError, viewOf } from './bytes.ts';
import { type Continuation, type RockRidge, readRockRidge, recordTime, skippedBytes } from './iso-rock-ridge.ts';
import {
  type Entry,
  type EntryKind,
  type FileInfo,
  type Listing,
  MAX_ENTRIES,
  type Run,
  Runs,
  type Volume,
} from './volume.ts';

/** Descriptors begin at this sector, and no directory record crosses the end of a sector. */
const FIRST_DESCRIPTOR = 16;
const SECTOR = 2048;
const MAX_DESCRIPTORS = 64;
/** Far above the size of an ordinary directory. */
const MAX_DIRECTORY_BYTES = 2 ** 24;
/** Each extent but the last has nearly 4 GiB. */
const MAX_EXTENTS = 1024;
const RECORD_BYTES = 33;
const FLAG = { directory: 0x02, associated: 0x04, more: 0x80 } as const;
/** Types of a POSIX mode. */
const MODE = { mask: 0o170000, file: 0o100000, link: 0o120000 } as const;

interface Layout {
  readonly label: string;
  readonly blockBytes: number;
  /** Offset of the root's record. */
  readonly rootAt: number;
  readonly names: 'plain' | 'joliet' | 'rock ridge';
  /** Bytes of each record before the fields of Rock Ridge. */
  readonly skipped: number;
  readonly remark: string | undefined;
}

interface Descriptors {
  readonly primary: number;
  readonly joliet: number | undefined;
  readonly hasUdf: boolean;
}

/**
 * Opens the volume in `bytes`. Returns `undefined` if it is no ISO 9660.
 * @throws {@link VolumeError} when the descriptor of the volume is damaged.
 */
export async function openIso(bytes: Bytes, signal?: AbortSignal): Promise<Volume | undefined> {
  const tables = remembered(bytes);
  const found = await readDescriptors(tables, signal);
  return found && new IsoVolume(bytes, tables, await layoutOf(tables, found, signal));
}

async function readDescriptors(tables: Bytes, signal: AbortSignal | undefined): Promise<Descriptors | undefined> {
  let primary: number | undefined;
  let joliet: number | undefined;
  let hasUdf = false;
  for (let sector = FIRST_DESCRIPTOR; sector < FIRST_DESCRIPTOR + MAX_DESCRIPTORS; sector++) {
    const at = sector * SECTOR;
    if (at + SECTOR > tables.size) break;
    const raw = await tables.read(at, SECTOR, signal);
    const name = String.fromCharCode(...raw.subarray(1, 6));
    if (name === 'CD001') {
      if (raw[0] === 1) primary ??= at;
      else if (raw[0] === 2 && /^%\/[@CE]/.test(String.fromCharCode(...raw.subarray(88, 91)))) joliet ??= at;
    } else if (/^NSR0[23]$/.test(name)) hasUdf = true;
    else if (!/^(BEA01|TEA01|BOOT2)$/.test(name)) break;
  }
  return primary === undefined ? undefined : { primary, joliet, hasUdf };
}

async function layoutOf(tables: Bytes, found: Descriptors, signal: AbortSignal | undefined): Promise<Layout> {
  const raw = await tables.read(found.primary, SECTOR, signal);
  const view = viewOf(raw);
  const blockBytes = view.getUint16(128, true);
  if (![512, 1024, 2048].includes(blockBytes))
    throw new VolumeError('the descriptor of this ISO 9660 volume is damaged');
  const remarks: string[] = [];
  if (found.hasUdf) remarks.push('the disc also has a UDF volume, which may hold other files');
  if (view.getUint32(80, true) * blockBytes > tables.size) remarks.push('the image is shorter than its volume');
  const base = { blockBytes, remark: remarks.length === 0 ? undefined : remarks.join('; ') };
  const label = String.fromCharCode(...raw.subarray(40, 72)).replace(/[\0 ]+$/, '');
  const plain: Layout = { ...base, label, rootAt: found.primary + 156, names: 'plain', skipped: 0 };
  const root = recordIn(raw.subarray(156, 190));
  const first = (await tables.read(root.block * blockBytes, SECTOR, signal)).slice();
  const skipped = skippedBytes(recordIn(first).more);
  if (skipped !== undefined) return { ...plain, names: 'rock ridge', skipped };
  if (found.joliet === undefined) return plain;
  const other = await tables.read(found.joliet, SECTOR, signal);
  const longer = wide(other.subarray(40, 72)).replace(/[\0 ]+$/, '');
  return { ...plain, label: longer || label, rootAt: found.joliet + 156, names: 'joliet' };
}

const KINDS = { plain: 'ISO 9660', joliet: 'ISO 9660 with Joliet', 'rock ridge': 'ISO 9660 with Rock Ridge' } as const;

class IsoVolume implements Volume {
  readonly kind: string;
  readonly label: string;
  readonly remark: string | undefined;
  readonly bytes: Bytes;
  readonly root: Entry;
  readonly #tables: Bytes;
  readonly #layout: Layout;

  constructor(bytes: Bytes, tables: Bytes, layout: Layout) {
    this.bytes = bytes;
    this.#tables = tables;
    this.#layout = layout;
    this.kind = KINDS[layout.names];
    this.label = layout.label;
    this.remark = layout.remark;
    this.root = { name: '', kind: 'directory', size: undefined, modifiedMs: undefined, id: layout.rootAt };
  }

  async list(directory: Entry, signal?: AbortSignal): Promise<Listing> {
    const own = await this.#record(directory.id, signal);
    if (!(own.flags & FLAG.directory)) throw new VolumeError('the record of this directory is not that of a directory');
    const entries: Entry[] = [];
    /** The records of a file with several extents follow one another. */
    let first: { at: number; size: number } | undefined;
    const length = Math.min(own.size, MAX_DIRECTORY_BYTES);
    for await (const { at, record } of this.#records(this.#start(own), length, signal)) {
      const isSelfOrParent = record.name.length === 1 && record.name[0]! < 2;
      if (isSelfOrParent || record.flags & FLAG.associated) continue;
      first = { at: first?.at ?? at, size: (first?.size ?? 0) + record.size };
      if (record.flags & FLAG.more) continue;
      const entry = await this.#entry(record, first, signal);
      first = undefined;
      if (entry === undefined) continue;
      if (entries.length === MAX_ENTRIES) return { entries, cut: true };
      entries.push(entry);
    }
    return { entries, cut: own.size > MAX_DIRECTORY_BYTES };
  }

  async look(file: Entry, signal?: AbortSignal): Promise<FileInfo> {
    const record = await this.#record(file.id, signal);
    const { linkTarget, isCompressed } = await this.#rockRidge(record, signal);
    const { modifiedMs } = file;
    if (file.kind === 'link') return { size: 0, modifiedMs, linkTarget: linkTarget ?? '', runs: nothing };
    if (file.kind === 'other') return { size: 0, modifiedMs, runs: nothing };
    if (isCompressed) throw new VolumeError('this file is compressed on the disc (zisofs), which is not supported');
    const extents = await this.#extents(file.id, signal);
    const size = extents.reduce((sum, extent) => sum + extent.size, 0);
    return { size, modifiedMs, runs: (again) => this.#runs(extents, again) };
  }

  async #entry(
    record: DirectoryRecord,
    first: { at: number; size: number },
    signal: AbortSignal | undefined,
  ): Promise<Entry | undefined> {
    const { name, mode, modifiedMs, childBlock, isMoved } = await this.#rockRidge(record, signal);
    if (isMoved) return undefined;
    const isDirectory = childBlock !== undefined || (record.flags & FLAG.directory) !== 0;
    const kind = isDirectory ? 'directory' : kindOf(mode);
    return {
      name: name || this.#ownName(record),
      kind,
      size: kind === 'file' ? first.size : undefined,
      modifiedMs: modifiedMs ?? record.modifiedMs,
      // A directory begins with a record of itself.
      id: childBlock === undefined ? first.at : childBlock * this.#layout.blockBytes,
    };
  }

  #ownName({ name }: DirectoryRecord): string {
    const stored = this.#layout.names === 'joliet' ? wide(name) : String.fromCharCode(...name);
    return stored.replace(/;\d+$/, '').replace(/(?<=.)\.$/, '');
  }

  async #rockRidge(record: DirectoryRecord, signal: AbortSignal | undefined): Promise<Partial<RockRidge>> {
    const { names, skipped, blockBytes } = this.#layout;
    if (names !== 'rock ridge') return {};
    const more = ({ block, offset, length }: Continuation): Promise<Uint8Array> =>
      this.#tables.read(block * blockBytes + offset, length, signal);
    return readRockRidge(record.more.subarray(skipped), more);
  }

  #start(record: DirectoryRecord): number {
    return (record.block + record.attributeBlocks) * this.#layout.blockBytes;
  }

  /** Reads the record at an offset. */
  async #record(at: number, signal: AbortSignal | undefined): Promise<DirectoryRecord> {
    return recordIn(await this.#tables.read(at, Math.min(255, SECTOR - (at % SECTOR)), signal));
  }

  /** Yields the records in `length` bytes from an offset. Each record is after the last one, so this ends. */
  async *#records(
    start: number,
    length: number,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<{ at: number; record: DirectoryRecord }> {
    for (let from = start; from < start + length; from += SECTOR - (from % SECTOR)) {
      signal?.throwIfAborted();
      const raw = await this.#tables.read(from, Math.min(SECTOR - (from % SECTOR), start + length - from), signal);
      // The rest of a sector is zeros if the next record does not fit.
      for (let at = 0; at < raw.length && raw[at] !== 0; at += raw[at]!)
        yield { at: from + at, record: recordIn(raw.subarray(at)) };
    }
  }

  async #extents(at: number, signal: AbortSignal | undefined): Promise<DirectoryRecord[]> {
    const extents: DirectoryRecord[] = [];
    const length = Math.min(MAX_EXTENTS * 255, this.#tables.size - at);
    for await (const { record } of this.#records(at, length, signal)) {
      if (record.isInterleaved) throw new VolumeError('this file is interleaved with others, which is not supported');
      extents.push(record);
      if (!(record.flags & FLAG.more)) return extents;
    }
    throw new VolumeError('this file has no last extent');
  }

  async *#runs(extents: readonly DirectoryRecord[], signal: AbortSignal | undefined): AsyncGenerator<Run> {
    const runs = new Runs();
    for (const extent of extents) {
      signal?.throwIfAborted();
      const run = extent.size > 0 ? runs.add(this.#start(extent), extent.size) : undefined;
      if (run !== undefined) yield run;
    }
    const last = runs.end();
    if (last !== undefined) yield last;
  }
}

interface DirectoryRecord {
  readonly block: number;
  /** Blocks before the contents. */
  readonly attributeBlocks: number;
  readonly size: number;
  readonly modifiedMs: number | undefined;
  readonly flags: number;
  readonly isInterleaved: boolean;
  readonly name: Uint8Array;
  /** What follows the name: the fields of Rock Ridge, if there are some. */
  readonly more: Uint8Array;
}

/** @throws {@link VolumeError} when `raw` does not begin with a whole record. */
function recordIn(raw: Uint8Array): DirectoryRecord {
  const length = raw[0] ?? 0;
  const nameBytes = raw[32] ?? 0;
  if (length > raw.length || length < RECORD_BYTES + nameBytes || nameBytes === 0)
    throw new VolumeError('a record of a directory is damaged');
  const view = viewOf(raw);
  const nameEnd = RECORD_BYTES + nameBytes;
  return {
    block: view.getUint32(2, true),
    attributeBlocks: raw[1]!,
    size: view.getUint32(10, true),
    modifiedMs: recordTime(raw.subarray(18, 25)),
    flags: raw[25]!,
    isInterleaved: raw[26] !== 0 || raw[27] !== 0,
    name: raw.slice(RECORD_BYTES, nameEnd),
    // A pad byte makes the length of the name and its count even.
    more: raw.slice(nameEnd + (nameBytes % 2 === 0 ? 1 : 0), length),
  };
}

function kindOf(mode: number | undefined): EntryKind {
  const type = (mode ?? MODE.file) & MODE.mask;
  return type === MODE.file ? 'file' : type === MODE.link ? 'link' : 'other';
}

/** Decodes UTF-16 with the high byte first. */
function wide(bytes: Uint8Array): string {
  return new TextDecoder('utf-16be').decode(bytes);
}

async function* nothing(): AsyncGenerator<never> {
  // Links, devices and sockets have no contents.
}
