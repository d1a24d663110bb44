/**
 * One image of a chain: finds where the bytes of the disk are, by the L1 table and the L2 tables.
 *
 * - A table's place is checked before it is read. Data is checked to begin within its file.
 * - The bytes behind a file's end are zeros, but only of a cluster that begins before it: QEMU writes the last cluster
 *   of a disk only as far as the disk goes. Anything else is a file that was cut short.
 * - A compressed cluster ends within its last sector of 512 bytes, which may belong to the next cluster, too.
 */

import type { Source } from '../source.ts';
import { corrupt, type Header } from './header.ts';
import { addData, addZeros, type Packing, type Segment } from './segment.ts';
import { TABLE_PAGE_BYTES, type TableCache } from './table-cache.ts';

const SUBCLUSTERS = 32;
/** Pages of tables that one call looks at, so that the event loop turns between calls. */
const MAX_STEPS = 256;
/** Bits in the upper half of an entry. */
const COPIED = 0x8000_0000;
const COMPRESSED = 0x4000_0000;

/** What a cluster without an entry reads as. */
export interface Below {
  readonly size: number;
  /** As {@link Layer.map}. */
  map(offset: number, end: number, segments: Segment[], limit: number): Promise<number>;
}

export class Layer implements Below {
  readonly size: number;
  readonly #header: Header;
  readonly #file: Source;
  readonly #data: Source;
  readonly #below: Below | undefined;
  readonly #tables: TableCache;
  readonly #packing: Packing;
  readonly #clusterBytes: number;
  readonly #entryBytes: number;
  /** Bytes of the disk that one L2 table describes. */
  readonly #tableBytes: number;

  constructor(parts: {
    header: Header;
    file: Source;
    /** Has the data clusters. */
    data: Source;
    below: Below | undefined;
    tables: TableCache;
    unpack: Packing['unpack'];
  }) {
    const { header, file } = parts;
    this.size = header.size;
    this.#header = header;
    this.#file = file;
    this.#data = parts.data;
    this.#below = parts.below;
    this.#tables = parts.tables;
    this.#clusterBytes = 2 ** header.clusterBits;
    this.#entryBytes = header.hasExtendedL2 ? 16 : 8;
    this.#tableBytes = (this.#clusterBytes / this.#entryBytes) * this.#clusterBytes;
    this.#packing = {
      layer: parts.tables.addLayer(),
      file,
      clusterBytes: this.#clusterBytes,
      unpack: parts.unpack,
    };
  }

  /**
   * Appends segments of the disk from `offset` on, in order, at most until `end`, and none when there are `limit`.
   * Resolves to the offset that they reach, which is above `offset`.
   * @throws {@link CodError} COD_CORRUPT; the errors of the file
   */
  async map(offset: number, end: number, segments: Segment[], limit: number): Promise<number> {
    let at = offset;
    for (let steps = 0; at < end && segments.length < limit && steps < MAX_STEPS; steps++) {
      const index = Math.floor(at / this.#tableBytes);
      const tableStart = index * this.#tableBytes;
      const tableEnd = Math.min(end, tableStart + this.#tableBytes);
      const table = await this.#tableAt(index);
      at =
        table === 0
          ? await this.#mapBelow(at, tableEnd, segments, limit)
          : await this.#mapEntries(table, tableStart, at, tableEnd, segments, limit);
    }
    return at;
  }

  /** Returns the offset of an L2 table. 0: there is none. */
  async #tableAt(index: number): Promise<number> {
    const at = this.#header.l1Offset + index * 8;
    const found = this.#tables.page(this.#packing.layer, this.#file, at);
    const page = found instanceof DataView ? found : await found;
    const within = at % TABLE_PAGE_BYTES;
    const offset = hostOffset(page.getUint32(within), page.getUint32(within + 4));
    if (offset % this.#clusterBytes !== 0 || offset + (offset && this.#clusterBytes) > this.#file.size)
      throw corrupt(`the L2 table at ${offset} is not within the file (${this.#file.size} bytes)`, { offset });
    return offset;
  }

  /** Maps by the entries of one page of an L2 table. */
  async #mapEntries(
    table: number,
    tableStart: number,
    offset: number,
    end: number,
    segments: Segment[],
    limit: number,
  ): Promise<number> {
    const clusterBytes = this.#clusterBytes;
    const entryAt = table + Math.floor((offset - tableStart) / clusterBytes) * this.#entryBytes;
    const found = this.#tables.page(this.#packing.layer, this.#file, entryAt);
    const page = found instanceof DataView ? found : await found;
    let at = offset;
    for (
      let place = entryAt % TABLE_PAGE_BYTES;
      place < page.byteLength && at < end && segments.length < limit;
      place += this.#entryBytes
    ) {
      const clusterEnd = Math.min(end, at - (at % clusterBytes) + clusterBytes);
      if (this.#header.hasExtendedL2) at = await this.#mapSubclusters(page, place, at, clusterEnd, segments, limit);
      else if (this.#isAbsent(page, place)) {
        let runEnd = clusterEnd;
        while (runEnd < end && place + 8 < page.byteLength && this.#isAbsent(page, place + 8)) {
          runEnd = Math.min(end, runEnd + clusterBytes);
          place += 8;
        }
        at = await this.#mapBelow(at, runEnd, segments, limit);
        if (at < runEnd) break;
      } else {
        this.#mapCluster(page.getUint32(place), page.getUint32(place + 4), at, clusterEnd, segments);
        at = clusterEnd;
      }
      if (at < clusterEnd) break;
    }
    return at;
  }

  /** Whether an entry says that the cluster is not in this image. */
  #isAbsent(page: DataView, place: number): boolean {
    const [high, low] = [page.getUint32(place), page.getUint32(place + 4)];
    if ((high & COMPRESSED) !== 0 || (low & 1) !== 0) return false;
    return hostOffset(high, low) === 0 && !this.#isFirstDataCluster(high);
  }

  /** In a data file of its own, a cluster may be at offset 0. */
  #isFirstDataCluster(high: number): boolean {
    return this.#header.hasDataFile && (high & COPIED) !== 0;
  }

  /** Maps a part of one cluster by an entry without subclusters. The cluster is not absent. */
  #mapCluster(high: number, low: number, at: number, end: number, segments: Segment[]): void {
    if ((high & COMPRESSED) !== 0) this.#addPacked(high, low, at, end, segments);
    else if ((low & 1) === 0) this.#addData(hostOffset(high, low), at, end, segments);
    else if (this.#header.version < 3) throw corrupt(`a cluster of zeros at ${at}, which version 2 does not have`);
    else addZeros(segments, end - at);
  }

  async #mapSubclusters(
    page: DataView,
    place: number,
    offset: number,
    end: number,
    segments: Segment[],
    limit: number,
  ): Promise<number> {
    const [high, low] = [page.getUint32(place), page.getUint32(place + 4)];
    if ((high & COMPRESSED) !== 0) {
      this.#addPacked(high, low, offset, end, segments);
      return end;
    }
    const [zero, allocated] = [page.getUint32(place + 8), page.getUint32(place + 12)];
    const host = hostOffset(high, low);
    const hasHost = host !== 0 || this.#isFirstDataCluster(high);
    if ((zero & allocated) !== 0 || (allocated !== 0 && !hasHost))
      throw corrupt(`the subclusters at ${offset - (offset % this.#clusterBytes)} contradict each other`);
    const subclusterBytes = this.#clusterBytes / SUBCLUSTERS;
    let at = offset;
    while (at < end && segments.length < limit) {
      const first = Math.floor((at % this.#clusterBytes) / subclusterBytes);
      let last = first;
      const [isZero, isData] = [(zero >>> first) & 1, (allocated >>> first) & 1];
      while (
        last + 1 < SUBCLUSTERS &&
        ((zero >>> (last + 1)) & 1) === isZero &&
        ((allocated >>> (last + 1)) & 1) === isData
      )
        last++;
      const runEnd = Math.min(end, at - (at % subclusterBytes) + (last + 1 - first) * subclusterBytes);
      if (isData) this.#addData(host, at, runEnd, segments);
      else if (isZero) addZeros(segments, runEnd - at);
      else {
        const reached = await this.#mapBelow(at, runEnd, segments, limit);
        if (reached < runEnd) return reached;
      }
      at = runEnd;
    }
    return at;
  }

  #addData(host: number, at: number, end: number, segments: Segment[]): void {
    const { size } = this.#data;
    if (host % this.#clusterBytes !== 0) throw corrupt(`the cluster at ${host} is not aligned`, { offset: host });
    if (host >= size)
      throw corrupt(`the cluster at ${host} is behind the file's end (${size} bytes)`, { offset: host });
    const offset = host + (at % this.#clusterBytes);
    const length = Math.max(0, Math.min(end - at, size - offset));
    if (length > 0) addData(segments, this.#data, offset, length);
    if (length < end - at) addZeros(segments, end - at - length);
  }

  #addPacked(high: number, low: number, at: number, end: number, segments: Segment[]): void {
    if (this.#header.hasDataFile) throw corrupt('a compressed cluster in an image with a data file');
    // The entry's lower part is the offset, and the upper part the number of further sectors.
    const offsetBits = 62 - (this.#header.clusterBits - 8) - 32;
    const offset = (high & (2 ** offsetBits - 1)) * 2 ** 32 + low;
    const sectors = ((high & 0x3fff_ffff) >>> offsetBits) + 1;
    const { size } = this.#file;
    if (offset >= size) throw corrupt(`the cluster at ${offset} is behind the file's end (${size} bytes)`, { offset });
    segments.push({
      kind: 'packed',
      length: end - at,
      skip: at % this.#clusterBytes,
      packing: this.#packing,
      offset,
      packedBytes: Math.min(sectors * 512 - (offset % 512), size - offset),
    });
  }

  async #mapBelow(offset: number, end: number, segments: Segment[], limit: number): Promise<number> {
    const below = this.#below;
    if (below !== undefined && offset < below.size)
      return below.map(offset, Math.min(end, below.size), segments, limit);
    addZeros(segments, end - offset);
    return end;
  }
}

/** Bits 9 to 55 of an entry. */
function hostOffset(high: number, low: number): number {
  return (high & 0x00ff_ffff) * 2 ** 32 + (low - (low % 512));
}

/** A backing file that is a plain disk. */
export class PlainLayer implements Below {
  readonly size: number;
  readonly #file: Source;

  constructor(file: Source) {
    this.size = file.size;
    this.#file = file;
  }

  async map(offset: number, end: number, segments: Segment[]): Promise<number> {
    addData(segments, this.#file, offset, end - offset);
    return end;
  }
}
