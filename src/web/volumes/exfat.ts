/** Reads exFAT. Source: Microsoft's "exFAT file system specification". */

import { type Bytes, remembered, text, utf16, VolumeError, viewOf } from './bytes.ts';
import { ENTRY_BYTES, EntrySet, type Stream } from './exfat-entry.ts';
import { type Entry, type FileInfo, type Listing, MAX_ENTRIES, type Run, Runs, type Volume } from './volume.ts';

const PIECE_BYTES = 2 ** 16;
/** Far above {@link MAX_ENTRIES} entries of the longest names. The format's limit is 2^28. */
const MAX_DIRECTORY_BYTES = 2 ** 26;
const LABEL_TYPE = 0x83;
const FIRST_CLUSTER = 2;
const END_OF_CHAIN = 0xffffffff;
const FLAG = { secondFat: 1, dirty: 2 } as const;
/** Bytes of the boot sector that change while the volume is mounted, so that the checksum leaves them out. */
const VOLATILE: readonly number[] = [106, 107, 112];

interface ExfatEntry extends Entry {
  readonly stream: Stream;
}

interface Layout {
  readonly fatOffset: number;
  readonly heapOffset: number;
  readonly clusterBytes: number;
  readonly clusterCount: number;
  readonly rootCluster: number;
  readonly isDirty: boolean;
}

/**
 * Opens the volume in `bytes`. Returns `undefined` if its boot sector is not that of an exFAT volume.
 * @throws {@link VolumeError} when the boot sector is damaged.
 */
export async function openExfat(bytes: Bytes, signal?: AbortSignal): Promise<Volume | undefined> {
  if (bytes.size < 12 * 512) return undefined;
  const sector = await bytes.read(0, 512, signal);
  if (text(sector.subarray(3, 11)) !== 'EXFAT   ') return undefined;
  const layout = layoutOf(sector, bytes.size);
  const isSound = await hasChecksum(bytes, 2 ** sector[108]!, signal);
  const remarks = [
    ...(isSound ? [] : ['the checksum of the boot sectors is wrong']),
    ...(layout.isDirty ? ['not unmounted: the last changes may be missing'] : []),
  ];
  const volume = new ExfatVolume(bytes, layout, remarks.length === 0 ? undefined : remarks.join('; '));
  await volume.readLabel(signal);
  return volume;
}

function layoutOf(sector: Uint8Array, size: number): Layout {
  const view = viewOf(sector);
  const u32 = (at: number): number => view.getUint32(at, true);
  const sectorShift = sector[108]!;
  const clusterShift = sectorShift + sector[109]!;
  const sectorBytes = 2 ** sectorShift;
  const clusterBytes = 2 ** clusterShift;
  const flags = view.getUint16(106, true);
  const [fatOffset, fatBytes, heapOffset] = [u32(80) * sectorBytes, u32(84) * sectorBytes, u32(88) * sectorBytes];
  const sound =
    sectorShift >= 9 &&
    sectorShift <= 12 &&
    clusterShift <= 25 &&
    (sector[110] === 1 || sector[110] === 2) &&
    fatOffset >= 24 * sectorBytes &&
    heapOffset >= fatOffset + fatBytes * sector[110] &&
    heapOffset < size;
  if (!sound) throw new VolumeError('the boot sector of this exFAT volume is damaged');
  return {
    fatOffset: fatOffset + (sector[110] === 2 && flags & FLAG.secondFat ? fatBytes : 0),
    heapOffset,
    clusterBytes,
    // At most the clusters that the table has entries for, and that the image has room for.
    clusterCount: Math.min(u32(92), fatBytes / 4 - FIRST_CLUSTER, Math.ceil((size - heapOffset) / clusterBytes)),
    rootCluster: u32(96),
    isDirty: (flags & FLAG.dirty) !== 0,
  };
}

/** Compares the checksum of the first 11 sectors with the one that fills the 12th. */
async function hasChecksum(bytes: Bytes, sectorBytes: number, signal?: AbortSignal): Promise<boolean> {
  const region = await bytes.read(0, Math.min(12 * sectorBytes, bytes.size), signal);
  let sum = 0;
  for (let at = 0; at < 11 * sectorBytes; at++)
    if (!VOLATILE.includes(at)) sum = ((((sum & 1) << 31) | (sum >>> 1)) + region[at]!) >>> 0;
  return viewOf(region).getUint32(11 * sectorBytes, true) === sum;
}

class ExfatVolume implements Volume {
  readonly kind = 'exFAT';
  label = '';
  readonly remark: string | undefined;
  readonly bytes: Bytes;
  readonly root: ExfatEntry;
  readonly #tables: Bytes;
  readonly #layout: Layout;

  constructor(bytes: Bytes, layout: Layout, remark: string | undefined) {
    this.bytes = bytes;
    this.#tables = remembered(bytes);
    this.#layout = layout;
    this.remark = remark;
    const { rootCluster: cluster } = layout;
    this.root = {
      name: '',
      kind: 'directory',
      size: undefined,
      modifiedMs: undefined,
      id: cluster,
      stream: { cluster, isContiguous: false, size: undefined, validBytes: MAX_DIRECTORY_BYTES },
    };
  }

  async list(directory: ExfatEntry, signal?: AbortSignal): Promise<Listing> {
    const entries: ExfatEntry[] = [];
    const set = new EntrySet();
    let damaged = 0;
    const result = (cut: boolean): Listing => ({
      entries,
      cut,
      ...(damaged > 0 ? { remark: `left out: ${damaged} damaged ${damaged === 1 ? 'entry' : 'entries'}` } : {}),
    });
    for await (const raw of this.#rawEntries(directory.stream, signal)) {
      const found = set.add(raw);
      if (found === 'damaged') damaged++;
      else if (found !== undefined) {
        if (entries.length === MAX_ENTRIES) return result(true);
        const { name, isDirectory, modifiedMs, stream } = found;
        const size = isDirectory ? undefined : stream.size;
        entries.push({ name, kind: isDirectory ? 'directory' : 'file', size, modifiedMs, id: stream.cluster, stream });
      }
    }
    if (set.end() === 'damaged') damaged++;
    return result((directory.stream.size ?? 0) > MAX_DIRECTORY_BYTES);
  }

  async look({ modifiedMs, stream }: ExfatEntry): Promise<FileInfo> {
    return { size: stream.size ?? 0, modifiedMs, runs: (signal) => this.#runs(stream, signal) };
  }

  /** Reads the label, which the first entries of the root directory contain. */
  async readLabel(signal: AbortSignal | undefined): Promise<void> {
    try {
      let left = PIECE_BYTES / ENTRY_BYTES;
      for await (const raw of this.#rawEntries(this.root.stream, signal)) {
        if (raw[0] === LABEL_TYPE) {
          this.label = utf16(raw.subarray(2, 2 + Math.min(raw[1]!, 11) * 2));
          return;
        }
        if (--left === 0) return;
      }
    } catch (error) {
      // A damaged root directory has no label. Its listing reports the damage.
      if (!(error instanceof VolumeError)) throw error;
    }
  }

  /** Yields the 32-byte entries of a directory, up to its end mark. */
  async *#rawEntries(stream: Stream, signal: AbortSignal | undefined): AsyncGenerator<Uint8Array> {
    for await (const { offset, length } of this.#pieces(stream, signal)) {
      for (let done = 0; done < length; done += PIECE_BYTES) {
        signal?.throwIfAborted();
        const piece = await this.#tables.read(offset + done, Math.min(PIECE_BYTES, length - done), signal);
        for (let at = 0; at + ENTRY_BYTES <= piece.length; at += ENTRY_BYTES) {
          if (piece[at] === 0) return;
          yield piece.subarray(at, at + ENTRY_BYTES);
        }
      }
    }
  }

  async *#runs(stream: Stream, signal: AbortSignal | undefined): AsyncGenerator<Run> {
    const runs = new Runs();
    for await (const { offset, length } of this.#pieces(stream, signal)) {
      const run = runs.add(offset, length);
      if (run !== undefined) yield run;
    }
    const last = runs.end();
    if (last !== undefined) yield last;
    const unwritten = (stream.size ?? 0) - stream.validBytes;
    if (unwritten > 0) yield { offset: undefined, length: unwritten };
  }

  /**
   * Yields the pieces of a stream that were written: all contiguous clusters, or each cluster of a chain.
   * @throws {@link VolumeError} when the stream leaves the volume, or its chain is too short.
   */
  async *#pieces(
    { cluster: first, isContiguous, size, validBytes }: Stream,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<{ readonly offset: number; readonly length: number }> {
    const { clusterBytes, clusterCount } = this.#layout;
    const bytes = Math.min(validBytes, size ?? MAX_DIRECTORY_BYTES);
    if (size !== undefined && size > clusterCount * clusterBytes)
      throw new VolumeError(`this entry claims ${size} bytes, more than its volume has`);
    if (isContiguous && bytes > 0) {
      this.#check(first);
      this.#check(first + Math.ceil(bytes / clusterBytes) - 1);
      yield { offset: this.#offset(first), length: bytes };
      return;
    }
    // A chain with a cycle ends with the size. That of the root directory ends when it is longer than the volume.
    let cluster = first;
    for (let done = 0; done < bytes; done += clusterBytes) {
      signal?.throwIfAborted();
      if (cluster === END_OF_CHAIN) {
        if (size === undefined) return;
        throw new VolumeError(`the chain of this entry ends after ${done} of its ${bytes} bytes`);
      }
      if (done === clusterCount * clusterBytes) throw new VolumeError('the file allocation table contains a cycle');
      this.#check(cluster);
      yield { offset: this.#offset(cluster), length: Math.min(clusterBytes, bytes - done) };
      const next = await this.#tables.read(this.#layout.fatOffset + cluster * 4, 4, signal);
      cluster = viewOf(next).getUint32(0, true);
    }
  }

  #check(cluster: number): void {
    const { clusterCount } = this.#layout;
    if (cluster < FIRST_CLUSTER || cluster >= clusterCount + FIRST_CLUSTER)
      throw new VolumeError(
        `the file allocation table has cluster ${cluster}, beyond the volume (${clusterCount} clusters)`,
      );
  }

  #offset(cluster: number): number {
    return this.#layout.heapOffset + (cluster - FIRST_CLUSTER) * this.#layout.clusterBytes;
  }
}
