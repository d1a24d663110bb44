/** The master file table of NTFS, and attributes that are spread over several of its records. */

import { type Bytes, MAX_READ_BYTES, utf16, VolumeError, viewOf } from './bytes.ts';
import {
  ATTRIBUTE,
  type Attribute,
  type Extent,
  extentsOf,
  type FileRecord,
  recordOf,
  referenceOf,
} from './ntfs-record.ts';

/** The format's limit for the list of a file's attributes. */
const MAX_LIST_BYTES = 2 ** 18;
/** Far above the extents of an index or of a master file table. */
const MAX_EXTENTS = 100_000;

export interface NtfsLayout {
  readonly clusterBytes: number;
  readonly clusterCount: number;
  readonly recordBytes: number;
  /** The first cluster of the table. */
  readonly mftCluster: number;
}

/** An attribute as bytes at any offset. Holes are damage here: indexes and the table have none. */
export class ClusterMap {
  readonly #extents: Extent[] = [];
  readonly #bytes: Bytes;
  readonly #clusterBytes: number;

  constructor(bytes: Bytes, clusterBytes: number) {
    this.#bytes = bytes;
    this.#clusterBytes = clusterBytes;
  }

  /** Adds the extent that follows the last one. */
  add(extent: Extent): void {
    if (this.#extents.length === MAX_EXTENTS) throw new VolumeError(`a table has more than ${MAX_EXTENTS} pieces`);
    this.#extents.push(extent);
  }

  /** @throws {@link VolumeError} when the bytes are not all in the map; the signal's reason. */
  async read(offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
    const result = new Uint8Array(length);
    for (let done = 0; done < length; ) {
      const vcn = Math.floor((offset + done) / this.#clusterBytes);
      const extent = this.#find(vcn);
      if (extent?.lcn === undefined) throw new VolumeError(`a table of this volume has no cluster ${vcn}`);
      const from = offset + done - extent.vcn * this.#clusterBytes;
      const piece = Math.min(length - done, extent.count * this.#clusterBytes - from);
      result.set(await this.#bytes.read(extent.lcn * this.#clusterBytes + from, piece, signal), done);
      done += piece;
    }
    return result;
  }

  #find(vcn: number): Extent | undefined {
    let [low, high] = [0, this.#extents.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      const { vcn: first, count } = this.#extents[middle]!;
      if (first + count <= vcn) low = middle + 1;
      else high = middle;
    }
    const found = this.#extents[low];
    return found !== undefined && found.vcn <= vcn ? found : undefined;
  }
}

/** The table of all files. */
export class Mft {
  readonly layout: NtfsLayout;
  readonly bytes: Bytes;
  readonly #map: ClusterMap;

  /** @param bytes the volume, with a cache */
  constructor(bytes: Bytes, layout: NtfsLayout) {
    this.bytes = bytes;
    this.layout = layout;
    this.#map = new ClusterMap(bytes, layout.clusterBytes);
  }

  /** Finds the pieces of the table. Each record that lists further pieces is in the pieces before. */
  async open(signal?: AbortSignal): Promise<void> {
    const { mftCluster, clusterBytes, recordBytes } = this.layout;
    const raw = await this.bytes.read(mftCluster * clusterBytes, recordBytes, signal);
    const own = new NtfsFile(this, recordOf(raw, 0));
    for await (const extent of own.extents(ATTRIBUTE.data, '', signal)) this.#map.add(extent);
  }

  async file(number: number, signal?: AbortSignal): Promise<NtfsFile> {
    return new NtfsFile(this, await this.record(number, 0, signal));
  }

  /** Reads a record. `base` is the record that an extension record belongs to, 0 for a file's first record. */
  async record(number: number, base: number, signal?: AbortSignal): Promise<FileRecord> {
    const { recordBytes } = this.layout;
    return recordOf(await this.#map.read(number * recordBytes, recordBytes, signal), number, base);
  }
}

/** A file with the attributes of all of its records. */
export class NtfsFile {
  readonly isDirectory: boolean;
  readonly #mft: Mft;
  readonly #base: FileRecord;

  constructor(mft: Mft, base: FileRecord) {
    this.#mft = mft;
    this.#base = base;
    this.isDirectory = base.isDirectory;
  }

  /** Returns an attribute, or its first part. */
  async attribute(type: number, name: string, signal?: AbortSignal): Promise<Attribute | undefined> {
    for await (const part of this.#parts(type, name, signal)) return part;
    return undefined;
  }

  /** Yields the extents of an attribute. A damaged image ends them with an error. */
  async *extents(type: number, name: string, signal?: AbortSignal): AsyncGenerator<Extent> {
    let next = 0;
    for await (const { value } of this.#parts(type, name, signal)) {
      signal?.throwIfAborted();
      if (value instanceof Uint8Array || value.firstVcn !== next)
        throw new VolumeError('the parts of this file do not follow each other');
      for (const extent of extentsOf(value, this.#mft.layout.clusterCount)) {
        next = extent.vcn + extent.count;
        yield extent;
      }
    }
  }

  /**
   * Reads the whole value of an attribute.
   * @throws {@link VolumeError} when it exceeds `maxBytes` or 16 MiB.
   */
  async value(attribute: Attribute, maxBytes: number, signal?: AbortSignal): Promise<Uint8Array> {
    const { type, name, value } = attribute;
    const size = value instanceof Uint8Array ? value.length : value.size;
    if (size > Math.min(maxBytes, MAX_READ_BYTES)) throw new VolumeError(`an attribute of this file has ${size} bytes`);
    if (value instanceof Uint8Array) return value;
    const map = new ClusterMap(this.#mft.bytes, this.#mft.layout.clusterBytes);
    // A list of attributes is never in a list.
    const extents =
      type === ATTRIBUTE.list ? extentsOf(value, this.#mft.layout.clusterCount) : this.extents(type, name, signal);
    for await (const extent of extents) map.add(extent);
    return map.read(0, size, signal);
  }

  /** Yields the parts of an attribute in the order of the file. */
  async *#parts(type: number, name: string, signal?: AbortSignal): AsyncGenerator<Attribute> {
    const list = this.#base.attributes.find((attribute) => attribute.type === ATTRIBUTE.list);
    const isWanted = (attribute: Attribute): boolean => attribute.type === type && attribute.name === name;
    if (list === undefined) {
      yield* this.#base.attributes.filter(isWanted);
      return;
    }
    for (const { number, id } of listed(await this.value(list, MAX_LIST_BYTES, signal), type, name)) {
      const { number: base } = this.#base;
      const record = number === base ? this.#base : await this.#mft.record(number, base, signal);
      const part = record.attributes.find((attribute) => isWanted(attribute) && attribute.id === id);
      if (part === undefined) throw new VolumeError(`file record ${number} lacks a part of this file`);
      yield part;
    }
  }
}

/** Yields where the parts of an attribute are, from the list of a file's attributes. */
function* listed(list: Uint8Array, type: number, name: string): Generator<{ number: number; id: number }> {
  const view = viewOf(list);
  for (let at = 0; at + 26 <= list.length; ) {
    const length = view.getUint16(at + 4, true);
    const [nameBytes, nameAt] = [list[at + 6]! * 2, at + list[at + 7]!];
    if (length < 26 || at + length > list.length || nameAt + nameBytes > at + length)
      throw new VolumeError('the list of attributes of this file is damaged');
    const isWanted = view.getUint32(at, true) === type && utf16(list.subarray(nameAt, nameAt + nameBytes)) === name;
    if (isWanted) yield { number: referenceOf(view, at + 16), id: view.getUint16(at + 24, true) };
    at += length;
  }
}
