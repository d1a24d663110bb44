/** A FAT volume that is about to be changed: the checks that permit it, free clusters, and the count of them. */

import { VolumeError, viewOf } from './bytes.ts';
import { ATTRIBUTE, FIXED_ROOT, type Layout, layoutOf, MAX_DIRECTORY_BYTES } from './fat.ts';
import { Directory, type DirectoryEntry } from './fat-directory.ts';
import { type ClusterRun, FatTable } from './fat-table.ts';
import type { WritableBytes } from './writable.ts';

const UNKNOWN = 0xffffffff;
const UNCLEAN = 'was not unmounted, or is in use: shut its system down, or repair the volume, before you change it';

/** Free clusters as FAT32 counts them. A hint: programs check it. */
interface FreeCount {
  readonly offset: number;
  readonly sector: Uint8Array;
}

export class FatTarget {
  readonly layout: Layout;
  readonly table: FatTable;
  readonly #bytes: WritableBytes;
  readonly #freeCount: FreeCount | undefined;
  #allocated = 0;

  private constructor(bytes: WritableBytes, layout: Layout, table: FatTable, freeCount: FreeCount | undefined) {
    this.#bytes = bytes;
    this.layout = layout;
    this.table = table;
    this.#freeCount = freeCount;
  }

  /** @throws {@link VolumeError} when the volume is damaged, was not unmounted, or has a form that is not written. */
  static async open(bytes: WritableBytes, signal?: AbortSignal): Promise<FatTarget> {
    const boot = await bytes.read(0, 512, signal);
    const layout = layoutOf(boot, bytes.size);
    if (layout === undefined) throw new VolumeError('this is no FAT volume any more: open the disk again');
    const view = viewOf(boot);
    const sectorBytes = view.getUint16(11, true);
    const isFat32 = layout.bits === 32;
    const sectors = view.getUint16(19, true) || view.getUint32(32, true);
    if (sectors * sectorBytes > bytes.size)
      throw new VolumeError('this volume is cut: it is larger than its partition');
    const fatBytes = (isFat32 ? view.getUint32(36, true) : view.getUint16(22, true)) * sectorBytes;
    const counted = Math.floor((sectors * sectorBytes - layout.dataOffset) / layout.clusterBytes);
    if (counted > layout.clusterCount)
      throw new VolumeError('this volume is damaged: its allocation table is too small');
    if (isFat32 && ((view.getUint16(40, true) & 0x80) !== 0 || view.getUint16(42, true) !== 0))
      throw new VolumeError('this FAT32 volume does not mirror its allocation table, or has an unknown version');
    const extended = isFat32 ? 64 : 36;
    const hasFlags = boot[extended + 2] === 0x29 || boot[extended + 2] === 0x28;
    if (hasFlags && (boot[extended + 1]! & 3) !== 0) throw new VolumeError(`this volume ${UNCLEAN}`);

    const { bits, fatOffset, clusterCount } = layout;
    const copies = boot[16]!;
    const table = new FatTable(bytes, { bits, fatOffset, fatBytes, copies, clusterCount, sectorBytes });
    const media = await table.get(0, signal);
    const state = await table.get(1, signal);
    if ((media & 0xff) !== boot[21])
      throw new VolumeError('this volume is damaged: its allocation table does not begin');
    const clean = bits === 32 ? 0x0c000000 : bits === 16 ? 0xc000 : 0;
    if ((state & clean) !== clean) throw new VolumeError(`this volume ${UNCLEAN}`);
    const countSector = view.getUint16(48, true);
    const freeCount = isFat32 ? await readFreeCount(bytes, countSector * sectorBytes, fatOffset, signal) : undefined;
    return new FatTarget(bytes, layout, table, freeCount);
  }

  /** Finds a directory by its names. */
  async directory(path: readonly string[], signal?: AbortSignal): Promise<Directory> {
    let directory = await this.#directoryAt(this.layout.rootCluster, signal);
    for (const name of path) {
      const entry = directory.find(name);
      if (entry === undefined || !(entry.attributes & ATTRIBUTE.directory))
        throw new VolumeError(`the directory “${name}” is gone: open the disk again`);
      directory = await this.#directoryAt(entry.cluster, signal);
    }
    return directory;
  }

  async #directoryAt(cluster: number, signal: AbortSignal | undefined): Promise<Directory> {
    const { rootOffset, rootBytes, clusterBytes } = this.layout;
    const options = { isFat32: this.layout.bits === 32, signal };
    if (cluster === FIXED_ROOT)
      return Directory.read(this.#bytes, [{ offset: rootOffset, length: rootBytes }], {
        ...options,
        lastCluster: undefined,
      });
    const places: { offset: number; length: number }[] = [];
    let lastCluster = cluster;
    for await (const at of this.table.chain(cluster, signal)) {
      if (places.length * clusterBytes >= MAX_DIRECTORY_BYTES) throw new VolumeError('this directory is damaged');
      places.push({ offset: this.offsetOf(at), length: clusterBytes });
      lastCluster = at;
    }
    if (places.length === 0) throw new VolumeError('this directory is damaged: it has no clusters');
    return Directory.read(this.#bytes, places, { ...options, lastCluster });
  }

  /**
   * Checks that the contents of a file can be replaced.
   * @throws {@link VolumeError} when it is no file, is read-only, or its clusters do not match its size.
   */
  async checkReplaced(old: DirectoryEntry, name: string, signal?: AbortSignal): Promise<void> {
    if (old.attributes & ATTRIBUTE.directory) throw new VolumeError(`“${name}” is a directory here`);
    if (old.name.toUpperCase() !== name.toUpperCase())
      throw new VolumeError(`“${name}” is the short name of “${old.name}”: rename the file first`);
    if (old.attributes & ATTRIBUTE.readOnly) throw new VolumeError(`“${name}” is read-only here`);
    const wanted = Math.ceil(old.size / this.layout.clusterBytes);
    let clusters = 0;
    if (old.cluster !== 0) {
      for await (const cluster of this.table.chain(old.cluster, signal)) {
        // A cycle would be as long as the volume.
        if (++clusters > wanted) break;
        await this.table.compare(cluster);
      }
    }
    if (clusters !== wanted)
      throw new VolumeError(`“${name}” is damaged: its clusters do not match its size. Repair the volume first`);
  }

  /**
   * Allocates clusters and links them, in memory.
   * @throws {@link VolumeError} with both sizes when the volume has too few.
   */
  async allocate(bytes: number, signal?: AbortSignal): Promise<ClusterRun[]> {
    const { clusterBytes } = this.layout;
    const count = Math.ceil(bytes / clusterBytes);
    const hint = this.#freeCount === undefined ? 2 : viewOf(this.#freeCount.sector).getUint32(492, true);
    const found = await this.table.findFree(count, hint, signal);
    if ('free' in found) {
      const sizes = [count, found.free].map((clusters) => (clusters * clusterBytes).toLocaleString('en'));
      throw new VolumeError(`the volume is full: this needs ${sizes[0]} bytes, and ${sizes[1]} are free`);
    }
    await this.table.link(found.runs);
    this.#allocated += count;
    return found.runs;
  }

  /** Frees a chain of clusters, in memory. */
  async free(first: number): Promise<void> {
    for await (const cluster of this.table.chain(first)) {
      await this.table.set(cluster, 0);
      this.#allocated--;
    }
  }

  /** Writes the changes of the table and the count of free clusters, and flushes. */
  async publish(): Promise<void> {
    await this.table.commit();
    if (this.#freeCount !== undefined && this.#allocated !== 0) {
      const { offset, sector } = this.#freeCount;
      const view = viewOf(sector);
      const free = view.getUint32(488, true);
      const left = free - this.#allocated;
      view.setUint32(488, free === UNKNOWN || left < 0 || left > this.layout.clusterCount ? UNKNOWN : left, true);
      await this.#bytes.write(offset, sector.slice());
      this.#allocated = 0;
    }
    await this.#bytes.flush();
  }

  offsetOf(cluster: number): number {
    return this.layout.dataOffset + (cluster - 2) * this.layout.clusterBytes;
  }
}

async function readFreeCount(
  bytes: WritableBytes,
  offset: number,
  fatOffset: number,
  signal: AbortSignal | undefined,
): Promise<FreeCount | undefined> {
  if (offset === 0 || offset + 512 > fatOffset) return undefined;
  const sector = await bytes.read(offset, 512, signal);
  const view = viewOf(sector);
  const isSound = view.getUint32(0, true) === 0x41615252 && view.getUint32(484, true) === 0x61417272;
  return isSound ? { offset, sector } : undefined;
}
