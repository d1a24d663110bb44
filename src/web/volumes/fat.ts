/**
 * Reads FAT12, FAT16 and FAT32, with long names. Source: Microsoft's "FAT: General Overview of On-Disk Format"
 * (fatgen103), and Linux where it differs.
 */

import { type Bytes, remembered, VolumeError, viewOf } from './bytes.ts';
import { type Entry, type FileInfo, type Listing, MAX_ENTRIES, type Run, Runs, type Volume } from './volume.ts';

export const ENTRY_BYTES: number = 32;
/** The format's limit for a directory: 65,536 entries. */
export const MAX_DIRECTORY_BYTES: number = 2 ** 21;
/** The label is one of the first entries of the root, or there is none. */
const MAX_LABEL_BYTES = 2 ** 16;
export const ATTRIBUTE = { readOnly: 0x01, volumeLabel: 0x08, directory: 0x10, longName: 0x0f } as const;
/** `id` of a root directory that is not a chain of clusters. */
export const FIXED_ROOT: number = -1;

/** The upper half of code page 437, the most common encoding of short names. */
const CODE_PAGE_437 =
  'ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐' +
  '└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u00a0';

export interface Layout {
  readonly bits: 12 | 16 | 32;
  readonly fatOffset: number;
  readonly rootOffset: number;
  readonly rootBytes: number;
  readonly dataOffset: number;
  readonly clusterBytes: number;
  readonly clusterCount: number;
  readonly rootCluster: number;
}

/** Opens the volume in `bytes`. Returns `undefined` if its boot sector is not that of a FAT volume. */
export async function openFat(bytes: Bytes, signal?: AbortSignal): Promise<Volume | undefined> {
  if (bytes.size < 512) return undefined;
  const layout = layoutOf(await bytes.read(0, 512, signal), bytes.size);
  if (layout === undefined) return undefined;
  const volume = new FatVolume(bytes, layout);
  await volume.readLabel(signal);
  return volume;
}

export function layoutOf(sector: Uint8Array, size: number): Layout | undefined {
  const view = viewOf(sector);
  const u16 = (at: number): number => view.getUint16(at, true);
  const u32 = (at: number): number => view.getUint32(at, true);
  const sectorBytes = u16(11);
  const sectorsPerCluster = sector[13]!;
  const reserved = u16(14);
  const fats = sector[16]!;
  const rootEntries = u16(17);
  const media = sector[21]!;
  const isPower = (value: number): boolean => value > 0 && (value & (value - 1)) === 0;
  if (!isPower(sectorBytes) || sectorBytes < 512 || sectorBytes > 4096 || !isPower(sectorsPerCluster)) return undefined;
  if (reserved === 0 || fats === 0 || fats > 4 || (media < 0xf8 && media !== 0xf0)) return undefined;
  const isFat32 = u16(22) === 0;
  const fatSectors = isFat32 ? u32(36) : u16(22);
  const sectors = u16(19) || u32(32);
  const rootSectors = Math.ceil((rootEntries * ENTRY_BYTES) / sectorBytes);
  const dataSector = reserved + fats * fatSectors + rootSectors;
  if (fatSectors === 0 || sectors <= dataSector || dataSector * sectorBytes >= size) return undefined;
  if (isFat32 ? rootEntries !== 0 : rootEntries === 0) return undefined;
  const counted = Math.floor((sectors - dataSector) / sectorsPerCluster);
  const bits = isFat32 ? 32 : counted > 4084 ? 16 : 12;
  return {
    bits,
    fatOffset: reserved * sectorBytes,
    rootOffset: (reserved + fats * fatSectors) * sectorBytes,
    rootBytes: rootEntries * ENTRY_BYTES,
    dataOffset: dataSector * sectorBytes,
    clusterBytes: sectorsPerCluster * sectorBytes,
    // At most the clusters that the table has entries for, and that the image has room for.
    clusterCount: Math.min(
      counted,
      Math.floor((fatSectors * sectorBytes * 8) / bits) - 2,
      Math.ceil((size - dataSector * sectorBytes) / (sectorsPerCluster * sectorBytes)),
    ),
    rootCluster: isFat32 ? u32(44) : FIXED_ROOT,
  };
}

class FatVolume implements Volume {
  readonly kind: string;
  label = '';
  readonly remark: undefined;
  readonly bytes: Bytes;
  readonly root: Entry;
  readonly #tables: Bytes;
  readonly #layout: Layout;

  constructor(bytes: Bytes, layout: Layout) {
    this.bytes = bytes;
    this.#tables = remembered(bytes);
    this.#layout = layout;
    this.kind = `FAT${layout.bits}`;
    this.root = { name: '', kind: 'directory', size: undefined, modifiedMs: undefined, id: layout.rootCluster };
  }

  /**
   * Reads the label, which is an entry of the root. The boot sector has a copy that most programs leave as it is, so
   * Windows and Linux ignore it.
   */
  async readLabel(signal?: AbortSignal): Promise<void> {
    let bytes = 0;
    try {
      for await (const piece of this.#directory(this.root.id, signal)) {
        for (let at = 0; at + ENTRY_BYTES <= piece.length; at += ENTRY_BYTES) {
          const raw = piece.subarray(at, at + ENTRY_BYTES);
          if (raw[0] === 0) return;
          const kind = raw[11]! & (ATTRIBUTE.volumeLabel | ATTRIBUTE.directory);
          if (raw[0] === 0xe5 || (raw[11]! & 0x3f) === ATTRIBUTE.longName || kind !== ATTRIBUTE.volumeLabel) continue;
          this.label = shortText(
            raw[0] === 0x05 ? Uint8Array.of(0xe5, ...raw.subarray(1, 11)) : raw.subarray(0, 11),
          ).trim();
          return;
        }
        if ((bytes += piece.length) >= MAX_LABEL_BYTES) return;
      }
    } catch (error) {
      // The listing of the root says what is damaged.
      if (!(error instanceof VolumeError)) throw error;
    }
  }

  async list(directory: Entry, signal?: AbortSignal): Promise<Listing> {
    const entries: Entry[] = [];
    const names = new LongName();
    for await (const piece of this.#directory(directory.id, signal)) {
      for (let at = 0; at + ENTRY_BYTES <= piece.length; at += ENTRY_BYTES) {
        const raw = piece.subarray(at, at + ENTRY_BYTES);
        if (raw[0] === 0) return { entries, cut: false };
        if (raw[0] === 0xe5) names.clear();
        else if ((raw[11]! & 0x3f) === ATTRIBUTE.longName) names.add(raw);
        else {
          const entry = this.#entry(raw, names.take(raw));
          if (entry === undefined) continue;
          if (entries.length === MAX_ENTRIES) return { entries, cut: true };
          entries.push(entry);
        }
      }
    }
    return { entries, cut: false };
  }

  async look(file: Entry): Promise<FileInfo> {
    const size = file.size ?? 0;
    return { size, modifiedMs: file.modifiedMs, runs: (signal) => this.#runs(file.id, size, signal) };
  }

  #entry(raw: Uint8Array, longName: string | undefined): Entry | undefined {
    if (raw[11]! & ATTRIBUTE.volumeLabel) return undefined;
    const name = longName ?? shortName(raw);
    if (name === '.' || name === '..' || name === '') return undefined;
    const view = viewOf(raw);
    const isDirectory = (raw[11]! & ATTRIBUTE.directory) !== 0;
    const high = this.#layout.bits === 32 ? view.getUint16(20, true) : 0;
    return {
      name,
      kind: isDirectory ? 'directory' : 'file',
      size: isDirectory ? undefined : view.getUint32(28, true),
      modifiedMs: dosTime(view.getUint16(24, true), view.getUint16(22, true)),
      id: high * 2 ** 16 + view.getUint16(26, true),
    };
  }

  async *#directory(cluster: number, signal: AbortSignal | undefined): AsyncGenerator<Uint8Array> {
    const { rootOffset, rootBytes, clusterBytes } = this.#layout;
    if (cluster === FIXED_ROOT) {
      yield await this.bytes.read(rootOffset, rootBytes, signal);
      return;
    }
    let bytes = 0;
    for await (const at of this.#chain(cluster, signal)) {
      yield await this.bytes.read(this.#offset(at), clusterBytes, signal);
      if ((bytes += clusterBytes) >= MAX_DIRECTORY_BYTES) return;
    }
  }

  async *#runs(cluster: number, size: number, signal: AbortSignal | undefined): AsyncGenerator<Run> {
    const runs = new Runs();
    let left = size;
    if (left > 0) {
      for await (const at of this.#chain(cluster, signal)) {
        const length = Math.min(left, this.#layout.clusterBytes);
        const run = runs.add(this.#offset(at), length);
        if (run !== undefined) yield run;
        if ((left -= length) === 0) break;
      }
    }
    const last = runs.end();
    if (last !== undefined) yield last;
  }

  /**
   * Yields the clusters of a chain. A chain that is longer than the volume contains a cycle.
   * @throws {@link VolumeError} when the chain leaves the volume or contains a cycle.
   */
  async *#chain(first: number, signal: AbortSignal | undefined): AsyncGenerator<number> {
    const { bits, clusterCount } = this.#layout;
    const end = bits === 32 ? 0x0ffffff8 : bits === 16 ? 0xfff8 : 0xff8;
    let cluster = first;
    for (let count = 0; cluster < end; count++) {
      signal?.throwIfAborted();
      if (cluster < 2 || cluster >= clusterCount + 2)
        throw new VolumeError(
          `the file allocation table has cluster ${cluster}, beyond the volume (${clusterCount} clusters)`,
        );
      if (count === clusterCount) throw new VolumeError('the file allocation table contains a cycle');
      yield cluster;
      cluster = await this.#next(cluster, signal);
    }
  }

  async #next(cluster: number, signal: AbortSignal | undefined): Promise<number> {
    const { bits, fatOffset } = this.#layout;
    const at = fatOffset + Math.floor((cluster * bits) / 8);
    const view = viewOf(await this.#tables.read(at, bits === 32 ? 4 : 2, signal));
    if (bits === 32) return view.getUint32(0, true) & 0x0fffffff;
    const word = view.getUint16(0, true);
    return bits === 16 ? word : cluster % 2 === 1 ? word >> 4 : word & 0xfff;
  }

  #offset(cluster: number): number {
    return this.#layout.dataOffset + (cluster - 2) * this.#layout.clusterBytes;
  }
}

/**
 * Collects a long name. Its parts precede the short entry, the last part first, and carry a checksum of the short name.
 */
export class LongName {
  #parts: string[] = [];
  #sum = 0;
  #expected = 0;

  clear(): void {
    this.#parts = [];
    this.#expected = 0;
  }

  add(raw: Uint8Array): void {
    const order = raw[0]! & 0x1f;
    if (raw[0]! & 0x40) {
      this.#parts = [];
      this.#sum = raw[13]!;
      this.#expected = order;
    }
    if (order === 0 || order !== this.#expected || raw[13] !== this.#sum) {
      this.clear();
      return;
    }
    this.#expected--;
    const view = viewOf(raw);
    let part = '';
    for (const at of [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30]) {
      const unit = view.getUint16(at, true);
      if (unit === 0) break;
      part += String.fromCharCode(unit);
    }
    this.#parts.unshift(part);
  }

  /** Returns the long name of a short entry, or `undefined` if it has none. */
  take(raw: Uint8Array): string | undefined {
    const complete = this.#parts.length > 0 && this.#expected === 0;
    const sum = raw.subarray(0, 11).reduce((total, byte) => (((total & 1) << 7) + (total >> 1) + byte) & 0xff, 0);
    const name = complete && sum === this.#sum ? this.#parts.join('') : undefined;
    this.clear();
    return name;
  }
}

export function shortName(raw: Uint8Array): string {
  const bytes = raw.slice(0, 11);
  if (bytes[0] === 0x05) bytes[0] = 0xe5;
  // Windows marks a lower-case base name or extension with one bit each.
  const part = (from: number, to: number, small: number): string => {
    const text = shortText(bytes.subarray(from, to)).trimEnd();
    return raw[12]! & small ? text.toLowerCase() : text;
  };
  const extension = part(8, 11, 0x10);
  return part(0, 8, 0x08) + (extension === '' ? '' : `.${extension}`);
}

function shortText(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) =>
    byte >= 0x80 ? CODE_PAGE_437[byte - 0x80]! : byte < 0x20 ? '' : String.fromCharCode(byte),
  ).join('');
}

/** Converts a date and time of the format, which are local, in the time zone of the browser. */
function dosTime(date: number, time: number): number | undefined {
  if (date === 0) return undefined;
  return new Date(
    1980 + (date >> 9),
    ((date >> 5) & 15) - 1,
    date & 31,
    time >> 11,
    (time >> 5) & 63,
    (time & 31) * 2,
  ).getTime();
}
